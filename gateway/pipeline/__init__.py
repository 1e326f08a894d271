"""The way of a request through the gateway that all protocols share."""
