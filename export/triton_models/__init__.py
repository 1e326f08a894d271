"""``model.py`` of each Triton step; the exporter copies these files into the repository.

They run inside Triton's python backend and import nothing of this project.
"""
