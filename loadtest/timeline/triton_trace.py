"""Triton's own trace: the times of each request, and of the steps of its ensemble."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

_TRACE = ("mode=triton", "rate=1", "level=TIMESTAMPS")


def trace_options(file: Path) -> list[str]:
    """Options of tritonserver that trace every request into ``file``."""
    return [f"--trace-config={option}" for option in (*_TRACE, f"triton,file={file}")]


def trace_marks(file: Path, steps: Sequence[str]) -> Iterator[tuple[int, str]]:
    """The marks of a trace, once Triton has ended: of the ensemble, and of its steps by their number from 1.

    Args:
        file: as given to `trace_options`.
        steps: Triton's names of the steps, in their order.
    """
    of_model: dict[int, str] = {}
    for event in json.loads(file.read_text(encoding="utf-8")):
        name = event.get("model_name")
        if name is not None:
            of_model[event["id"]] = f"step {steps.index(name) + 1}" if name in steps else "ensemble"
        for stamp in event.get("timestamps", ()):
            yield int(stamp["ns"]), f"{of_model.get(event['id'], 'call')} {stamp['name']}"
