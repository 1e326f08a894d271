"""The gRPC half: the one place that speaks to Triton."""
