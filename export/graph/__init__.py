"""Writes the encoder as an ONNX graph, straight from the weights: no torch, no tracing."""
