"""The protocols over which a load test asks a model."""
