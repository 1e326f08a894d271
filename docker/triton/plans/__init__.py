"""Builds, judges and installs TensorRT plans inside the serving image.

NVIDIA's image has Python and trtexec but none of our packages, so everything here is the
standard library alone. A plan fits one TensorRT version and one GPU; that is why it is built
where it is served, and why every step back to the ONNX Runtime encoder is as careful as the
step forward.
"""
