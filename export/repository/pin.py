"""Which version of a model a rollback chose: the exporter leaves it alone until the user exports again.

The number lies in the file ``pinned`` among the model's kept versions. It counts only while that version is
the published one, so that whatever a killed rollback leaves does no harm. Nothing here imports protobuf.
"""

from __future__ import annotations

from pathlib import Path

from export.files import write_atomically
from export.repository.versions import kept_root

_PIN = "pinned"


def pin_version(repository: Path, ensemble: str, version: int) -> None:
    """Write down that a rollback chose this version; the caller holds the repository's lock.

    Raises:
        OSError: it cannot be written.
    """
    write_atomically(kept_root(repository, ensemble) / _PIN, f"{version}\n".encode())


def unpin(repository: Path, ensemble: str) -> None:
    """Forget it, because another version was published; the caller holds the repository's lock."""
    (kept_root(repository, ensemble) / _PIN).unlink(missing_ok=True)


def pinned_version(repository: Path, ensemble: str) -> int | None:
    """The version that the last rollback chose; None if there was none, or an export came after it.

    Raises:
        OSError: it cannot be read.
    """
    try:
        text = (kept_root(repository, ensemble) / _PIN).read_text(encoding="utf-8")
        return int(text)
    except (FileNotFoundError, ValueError):
        return None
