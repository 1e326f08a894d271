"""What a killed supervisor leaves behind, swept by the next one.

When the supervisor is killed, the kernel ends tritonserver, but python stubs that were still
loading stay, as do shared-memory regions and the scratch folder. All of them carry a tag with
the supervisor's process id, so that only those of dead supervisors are removed, and never
another program's.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

SHM = Path("/dev/shm")  # noqa: S108 (the place where the python backend puts its regions)
PROC = Path("/proc")
_TAG = re.compile(r"tritonflare_(\d+)_")
_PROGRAMS = ("tritonserver", "triton_python_backend_stub")


def tag() -> str:
    """Prefix of everything that this process makes."""
    return f"tritonflare_{os.getpid()}_"


def sweep(own: str = "") -> int:
    """Remove what dead supervisors left; return how much. What belongs to another user is left alone.

    Args:
        own: a tag of this process; what begins with it is removed as well.
    """
    removed = 0
    for process in _orphans():
        with suppress(ProcessLookupError, PermissionError):
            os.kill(process, signal.SIGKILL)
            removed += 1
    for path in (*SHM.glob("tritonflare_*"), *Path(tempfile.gettempdir()).glob("tritonflare_*")):
        owner = _owner(path.name)
        if owner is None or (_alive(owner) and not (own and path.name.startswith(own))):
            continue
        with suppress(OSError):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
            removed += 1
    return removed


def _orphans() -> Iterator[int]:
    """Processes of Triton whose command line names a supervisor that is dead."""
    for entry in PROC.iterdir():
        if not entry.name.isdigit():
            continue
        with suppress(OSError):  # it may end while we look
            words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            if Path(words[0]).name in _PROGRAMS:
                owner = next((found for word in words[1:] if (found := _owner(word)) is not None), None)
                if owner is not None and not _alive(owner):
                    yield int(entry.name)


def _owner(text: str) -> int | None:
    match = _TAG.search(text)
    return int(match[1]) if match else None


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # someone else's, and alive
    return True
