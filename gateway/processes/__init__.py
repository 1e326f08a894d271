"""Several processes on one port: worker pool, worker control, signals."""
