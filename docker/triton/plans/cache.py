"""Plans kept by what they depend on, so that a restart builds nothing.

<cache>/<key>/model.plan      the plan; plan.json beside it records what it was built from
<cache>/<key>/verdict.json    what was measured, and on which sentences
<cache>/timing-<host>.cache   TensorRT's own timing cache, per TensorRT version and GPU
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from plans.host import Host
from plans.kit import sha256

_PART = ".part"


class CacheError(Exception):
    """The cache cannot be used; one sentence with the remedy."""


def plan_key(host: Host, onnx_sha256: str, flags: Sequence[str]) -> str:
    """SHA-256 over everything that decides whether a plan may be loaded, and what it computes."""
    return _digest(ingredients(host, onnx_sha256, flags))


def ingredients(host: Host, onnx_sha256: str, flags: Sequence[str]) -> dict[str, Any]:
    """What goes into the key, in words: also written beside the plan."""
    return {
        "tensorrt": host.tensorrt,
        "gpu": host.gpu,
        "compute_capability": host.compute_capability,
        "onnx_sha256": onnx_sha256,
        "flags": list(flags),
    }


class PlanCache:
    """A folder of plans; one process at a time."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Make the folder, keep other runs out, and remove what a killed one left half-written.

        Raises:
            CacheError: another run is at work, or the folder cannot be written.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            lock = (self.root / ".lock").open("w")
        except OSError as error:
            raise CacheError(f"the cache {self.root} cannot be written ({error.strerror}).") from error
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise CacheError("another run is building plans; wait for it to end.") from error
            for part in self.root.glob(f"*{_PART}"):
                shutil.rmtree(part, ignore_errors=True)
            yield

    def timing_cache(self, host: Host) -> Path:
        """The timing cache's file; TensorRT refuses one that another version or GPU wrote."""
        name = _digest([host.tensorrt, host.gpu, host.compute_capability])[:12]
        return self.root / f"timing-{name}.cache"

    def path(self, key: str) -> Path:
        """Where the plan of a key is, or would be."""
        return self.root / key / "model.plan"

    def plan(self, key: str) -> Path | None:
        """The plan of a key, if it is there and undamaged."""
        plan = self.path(key)
        try:
            wanted = json.loads((self.root / key / "plan.json").read_text(encoding="utf-8"))["plan_sha256"]
            return plan if sha256(plan) == wanted else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    @contextmanager
    def building(self, key: str, built_from: Mapping[str, Any]) -> Iterator[Path]:
        """Gives the path to build the plan at; it enters the cache whole, or not at all."""
        part = self.root / f"{key}{_PART}"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        try:
            plan = part / "model.plan"
            yield plan
            write_json(part / "plan.json", {**built_from, "key": key, "plan_sha256": sha256(plan)})
            sync(part)
            shutil.rmtree(self.root / key, ignore_errors=True)
            part.rename(self.root / key)
        finally:
            shutil.rmtree(part, ignore_errors=True)

    def verdict(self, key: str, measured_on: str) -> dict[str, Any] | None:
        """What an earlier run measured on the same sentences."""
        try:
            found = json.loads((self.root / key / "verdict.json").read_text(encoding="utf-8"))
            return found if found["measured_on"] == measured_on else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def keep_verdict(self, key: str, measured_on: str, verdict: Mapping[str, Any]) -> None:
        """Remember a measurement."""
        write_json(self.root / key / "verdict.json", {**verdict, "measured_on": measured_on})

    def prune(self, used: Collection[str]) -> list[str]:
        """Remove the plans of all other keys; returns their keys."""
        stale = sorted(f.parent.name for f in self.root.glob("*/plan.json") if f.parent.name not in used)
        for key in stale:
            shutil.rmtree(self.root / key)
        return stale


def write_json(file: Path, content: Mapping[str, Any]) -> None:
    """Replace a JSON file in one step."""
    write_text(file, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def write_text(file: Path, text: str) -> None:
    """Replace a text file in one step: a reader sees the old content or the new one."""
    part = file.with_name(f".{file.name}{_PART}")
    part.write_text(text, encoding="utf-8")
    with part.open("rb") as stream:
        os.fsync(stream.fileno())
    part.replace(file)


def sync(folder: Path) -> None:
    """Bring a folder's content to disk before a rename makes it count."""
    for path in (*folder.rglob("*"), folder):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
