"""The API as a client: requests and their retries (``http``), models, classification."""
