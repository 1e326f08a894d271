"""The HTTP half: routing, authentication, limits, envelopes. It never imports gRPC."""
