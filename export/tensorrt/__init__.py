"""What TensorRT needs of the export: checked graphs, INT8 by modelopt, profiles, and the plan kit.

Plans themselves are built where they are served, by docker/triton/build_plans.py; nothing
here needs a GPU.
"""
