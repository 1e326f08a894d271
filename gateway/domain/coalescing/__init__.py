"""Coalescing: texts that wait leave together in the next call to the model server."""
