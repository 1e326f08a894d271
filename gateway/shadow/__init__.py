"""A second model reads a share of what callers sent to the first, to see how their answers differ."""
