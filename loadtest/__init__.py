"""Load on a running server: locust users, and a bench that compares with the model in-process."""
