"""Triton's python backend leaves its shared memory behind when it is killed; we sweep our own.

Regions carry a prefix with the supervisor's process id, so that only those of dead
supervisors are removed, and never another program's.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

SHM = Path("/dev/shm")  # noqa: S108 (the place where the python backend puts its regions)
_OURS = re.compile(r"tritonflare_(\d+)_")


def prefix() -> str:
    """Prefix of this process's regions."""
    return f"tritonflare_{os.getpid()}_"


def sweep(*, own: bool = False) -> int:
    """Remove regions of dead supervisors, with ``own`` also this process's; return how many."""
    removed = 0
    for region in SHM.glob("tritonflare_*"):
        match = _OURS.match(region.name)
        if match is None:
            continue
        owner = int(match[1])
        if (own and owner == os.getpid()) or not _alive(owner):
            region.unlink(missing_ok=True)
            removed += 1
    return removed


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # someone else's, and alive
    return True
