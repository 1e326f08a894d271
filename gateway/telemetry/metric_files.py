"""Metric values of one process in memory-mapped files, on a disk that may be full."""

from __future__ import annotations

import logging
import os
import time
from contextlib import suppress
from pathlib import Path

from prometheus_client.mmap_dict import MmapedDict

_log = logging.getLogger("tritonflare.metrics")

_FIRST_BYTES = 1 << 16
_AGAIN_S = 5.0
"""Pause between two attempts to find room."""


class Room:
    """Whether the files of one process have room; logs when that changes.

    A worker begins with the state of the pool's process, so that not every worker logs the same.
    """

    def __init__(self) -> None:
        self.is_missing = False
        self._again = 0.0

    @property
    def may_be_found(self) -> bool:
        """Whether another attempt is due."""
        return not self.is_missing or time.monotonic() >= self._again

    def missed(self, error: OSError) -> None:
        """Note that there was none."""
        if not self.is_missing:
            _log.warning("metrics cannot be written to TMPDIR (%s); trying again", error.strerror)
        self.is_missing = True
        self._again = time.monotonic() + _AGAIN_S

    def found(self) -> None:
        """Note that there was some."""
        if self.is_missing:
            _log.info("metrics are written to TMPDIR again")
        self.is_missing = False


class MetricFile(MmapedDict):
    """The library's file of values, with every block reserved before it is written to.

    The library makes sparse files. Writing to a hole on a full disk ends the process with SIGBUS, and so
    its replacement. Values without room stay in memory, and are written to the file when there is room.
    """

    def __init__(self, filename: str, room: Room) -> None:
        """Open the file, if there is room for it; its folder is created as well."""
        self._path = Path(filename)
        self._room = room
        self._kept: dict[str, tuple[float, float]] = {}
        self._positions: dict[str, int] = {}
        self._is_open = False
        self._find_room()

    def read_value(self, key: str) -> tuple[float, float]:
        """Return value and time stamp; both are 0 for a key that was never written."""
        if key in self._positions or self._place(key):
            value: tuple[float, float] = super().read_value(key)  # type: ignore[no-untyped-call]
            return value
        return self._kept[key]

    def write_value(self, key: str, value: float, timestamp: float) -> None:
        """Write value and time stamp."""
        if key in self._positions or self._place(key):
            super().write_value(key, value, timestamp)  # type: ignore[no-untyped-call]
        else:
            self._kept[key] = value, timestamp

    def close(self) -> None:
        """Close the file, if it was ever open."""
        if self._is_open:
            super().close()  # type: ignore[no-untyped-call]

    def _place(self, key: str) -> bool:
        """Find a place in the file for the key, and for all others that have none."""
        if self._room.may_be_found and self._find_room() and key in self._positions:
            return True  # written by the process that this one replaces
        self._kept.setdefault(key, (0.0, 0.0))
        if self._is_open and self._room.may_be_found:
            try:
                for other, (value, timestamp) in tuple(self._kept.items()):
                    self._reserve_for(other)
                    super().write_value(other, value, timestamp)  # type: ignore[no-untyped-call]
                    del self._kept[other]
            except OSError as error:
                self._room.missed(error)
            else:
                self._room.found()
        return key in self._positions

    def _find_room(self) -> bool:
        """Open the file, unless it is open."""
        if not self._is_open:
            try:
                self._path.parent.mkdir(mode=0o700, exist_ok=True)
                _reserve(self._path)
                super().__init__(str(self._path))  # type: ignore[no-untyped-call]
                self._is_open = True
            except OSError as error:
                self._room.missed(error)
        return self._is_open

    def _reserve_for(self, key: str) -> None:
        """Reserve room for one more entry the way the library grows the file: by doubling it."""
        most_bytes = len(key.encode()) + 4 + 8 + 16
        if key not in self._positions and self._used + most_bytes > self._capacity:
            os.posix_fallocate(self._f.fileno(), 0, 2 * self._capacity)


def _reserve(path: Path) -> None:
    """Make a file of zeros, or allocate the holes of an existing one.

    It is renamed when it is complete, so that a reader never finds an empty file.
    """
    with suppress(FileNotFoundError), path.open("r+b") as there:
        os.posix_fallocate(there.fileno(), 0, os.fstat(there.fileno()).st_size)
        return
    new = path.with_suffix(".new")
    try:
        with new.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, _FIRST_BYTES)
        new.rename(path)
    except OSError:
        new.unlink(missing_ok=True)
        raise
