"""The protocol over gRPC: ``inference.GRPCInferenceService``, health and reflection."""
