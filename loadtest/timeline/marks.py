"""Marks of time in the programs that are watched, in ns of CLOCK_MONOTONIC as in Triton's traces.

Standard library only: Triton's stubs import a copy of this file.
"""

from __future__ import annotations

import inspect
import threading
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

_EVERY_S = 0.2
_marks: list[tuple[int, str]] = []


def mark(name: str) -> None:
    """Note that ``name`` happens now."""
    _marks.append((time.monotonic_ns(), name))


def watch(owner: Any, function: str, begins: str | None = None, ends: str | None = None) -> None:
    """Have a function or coroutine function of ``owner`` mark its begin and its end."""
    watched: Callable[..., Any] = getattr(owner, function)

    def note(name: str | None) -> None:
        if name is not None:
            mark(name)

    @wraps(watched)
    def call(*args: Any, **kwargs: Any) -> Any:
        note(begins)
        try:
            return watched(*args, **kwargs)
        finally:
            note(ends)

    @wraps(watched)
    async def call_later(*args: Any, **kwargs: Any) -> Any:
        note(begins)
        try:
            return await watched(*args, **kwargs)
        finally:
            note(ends)

    setattr(owner, function, call_later if inspect.iscoroutinefunction(watched) else call)


def write_to(file: Path) -> None:
    """Append the marks to ``file`` from time to time, on a thread of its own."""
    threading.Thread(target=_write, args=(file,), daemon=True).start()


def read(file: Path) -> list[tuple[int, str]]:
    """The marks of a file, in their order."""
    lines = file.read_text(encoding="ascii").splitlines()
    return [(int(at), name) for at, _, name in (line.partition(" ") for line in lines)]


def settle() -> None:
    """Wait until the watched programs have written what they marked before."""
    time.sleep(3 * _EVERY_S)


def _write(file: Path) -> None:
    while True:
        time.sleep(_EVERY_S)
        marks, _marks[:] = _marks[:], []
        with file.open("a", encoding="ascii") as out:
            out.writelines(f"{at} {name}\n" for at, name in marks)
