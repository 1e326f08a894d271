"""What a bench's document says of its machine and its settings."""

from __future__ import annotations

ENVIRONMENT = {"cpu": "a CPU", "cores": 2}
INT8_SETTINGS = {
    "rounds": 3,
    "seconds": 3.0,
    "texts": 512,
    "tokens_mean": 25.9,
    "model": "@cf/x",
    "precision": "INT8",
    "load_generator": "wrk 4.1.0",
}
