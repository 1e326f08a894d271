"""Other servers with the same model, on the same cores, in the same run."""
