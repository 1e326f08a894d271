"""What every client must see."""

from __future__ import annotations

import math
import re
from typing import Any

MODEL = "@cf/huggingface/distilbert-sst-2-int8"
TEXT = "This pizza is great!"
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


def check_scores(result: Any) -> None:
    """Two probabilities in the model's order, and the pizza is great."""
    assert [entry["label"] for entry in result] == ["NEGATIVE", "POSITIVE"]
    negative, positive = (entry["score"] for entry in result)
    assert math.isclose(negative + positive, 1, abs_tol=1e-6)
    assert positive > 0.9
