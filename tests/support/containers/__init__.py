"""A container engine, stand-ins for the images that a registry would give, and compose projects on it."""
