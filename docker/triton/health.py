#!/usr/bin/env python3
"""Health check of the serving image: ready, and every ensemble classifies a text.

Triton calls itself ready while a model's process is dead, so an inference has to be answered too.
Uses Triton's HTTP endpoint on loopback; the standard library only. Exit status 0 or 1.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import urllib.request
from collections.abc import Sequence
from typing import Any

TEXT = "Is anyone there?"


class Unhealthy(Exception):
    """Triton answered, but not as a server that can serve."""


def check(base: str, timeout_s: float) -> int:
    """Ask everything once; return how many ensembles answered.

    Args:
        base: such as ``http://127.0.0.1:8000``.
        timeout_s: how long everything together may take; an answer that trickles in may take a little longer.

    Raises:
        Unhealthy: no ensemble is ready, or one gave no outputs.
        OSError: Triton is away, not ready, too slow, or refused.
        ValueError: an answer was no JSON.
    """
    deadline = time.monotonic() + timeout_s
    _call(f"{base}/v2/health/ready", None, deadline)
    index = _call(f"{base}/v2/repository/index", {"ready": True}, deadline) or []
    answered = 0
    for name in sorted({model["name"] for model in index}):
        config = _call(f"{base}/v2/models/{name}/config", None, deadline)
        if config.get("platform") != "ensemble":
            continue
        text = {"name": "TEXT", "shape": [1, 1], "datatype": "BYTES", "data": [TEXT]}
        answer = _call(f"{base}/v2/models/{name}/infer", {"inputs": [text]}, deadline)
        if not answer.get("outputs"):
            raise Unhealthy(f"{name} gave no outputs")
        answered += 1
    if not answered:
        raise Unhealthy("no ensemble is ready")
    return answered


def _call(url: str, body: Any, deadline: float) -> Any:
    left_s = deadline - time.monotonic()
    if left_s <= 0:
        raise TimeoutError("no time is left")
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})  # noqa: S310 (loopback)
    with urllib.request.urlopen(request, timeout=left_s) as response:  # noqa: S310
        return json.loads(response.read() or b"null")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the check; say in one line what is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="Triton's HTTP endpoint")
    parser.add_argument("--timeout", type=float, default=10.0, help="seconds for all answers together")
    options = parser.parse_args(arguments)
    try:
        answered = check(options.url, options.timeout)
    except (OSError, ValueError, LookupError, AttributeError, Unhealthy) as error:
        sys.stdout.write(f"unhealthy: {error}\n")
        return 1
    sys.stdout.write(f"healthy: {answered} ensembles answered\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
