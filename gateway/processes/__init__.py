"""Several processes on one port: the worker pool, its messages, signals, and events of Triton."""
