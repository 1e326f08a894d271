"""What the gateway knows without HTTP or gRPC: models, validation, scores, errors, health."""
