"""Checkpoint → ONNX graph → FP32, FP16, INT8 → verify → Triton model repository."""
