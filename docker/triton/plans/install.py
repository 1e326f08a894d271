"""Put a plan into the model repository, or take it out, by renames alone.

Whoever reads the repository at any moment finds models that load on this host. So an encoder
folder is written outside, renamed in, and only then named by the ensemble; on the way out the
ensemble goes back to ONNX Runtime first. A killed run leaves at worst an encoder that no ensemble
names, which the next run removes or uses.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from plans.cache import sync, write_json, write_text
from plans.host import Host
from plans.kit import Candidate, Kit

# Marks the folders that this script wrote; it never touches any other encoder.
MARKER = "plan.json"
CONFIG = "config.pbtxt"


class InstallError(Exception):
    """The repository could not be changed; it serves what it served before."""


class Repository:
    """A Triton model repository; the staging folder stands beside it, where Triton does not read."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self._staging = self.root.with_name(f".{self.root.name}.plans")

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Keep exports out, and remove what a killed run left behind; it was never served.

        Raises:
            InstallError: an export is at work, there is no repository, or it is a mount point,
                into which nothing can be renamed.
        """
        if not self.root.is_dir():
            raise InstallError(f"there is no model repository at {self.root}; run `tritonflare export`.")
        try:
            # The exporter's own lock: it replaces the whole repository.
            lock = self.root.with_name(f".{self.root.name}.lock").open("w")
        except OSError as error:
            raise InstallError(f"{self.root.parent} cannot be written ({error.strerror}).") from error
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise InstallError("an export is writing the repository; wait for it to end.") from error
            shutil.rmtree(self._staging, ignore_errors=True)
            try:
                self._make_staging()
                yield
            finally:
                shutil.rmtree(self._staging, ignore_errors=True)

    def _make_staging(self) -> None:
        self._staging.mkdir()
        if os.stat(self._staging).st_dev != os.stat(self.root).st_dev:
            raise InstallError(f"{self.root} is itself a mount point; mount the folder above it instead.")

    def serves(self, kit: Kit) -> str | None:
        """``fallback``, a precision of the kit, or None where something else was published since."""
        try:
            served = (self.root / kit.ensemble / CONFIG).read_text(encoding="utf-8")
            if served == fallback_config(kit):
                return "fallback"
            return next((c.precision for c in kit.candidates if served == _ensemble_config(c)), None)
        except OSError:
            return None

    def installed_key(self, candidate: Candidate) -> str | None:
        """The key of the plan in the candidate's encoder folder, if this script wrote it."""
        found = _marker(self.root / candidate.encoder)
        return found["key"] if found else None

    def take_out_strangers(self, host: Host | None) -> list[str]:
        """Take out every plan that was not built on this host; needs no kit.

        Returns:
            The ensembles that went back to ONNX Runtime.

        Raises:
            InstallError: a file could not be written.
        """
        here = identity(host) if host else None
        strange = {marker["ensemble"] for _, marker in self._plans() if marker["host"] != here}
        for ensemble in strange:
            self.fall_back(ensemble)
        return sorted(strange)

    def fall_back(self, ensemble: str) -> bool:
        """Serve ONNX Runtime again, and remove the model's plans.

        Returns:
            True if there was a plan.

        Raises:
            InstallError: a file could not be written.
        """
        plans = [(folder, marker) for folder, marker in self._plans() if marker["ensemble"] == ensemble]
        try:
            config = self.root / ensemble / CONFIG
            for _, marker in plans:
                if config.is_file() and config.read_text(encoding="utf-8") == marker["ensemble_config"]:
                    write_text(config, marker["fallback_config"])
            for folder, _ in plans:
                # Out by one rename: a folder that is being deleted would be half a model.
                away = self._staging / f"old-{folder.name}"
                shutil.rmtree(away, ignore_errors=True)
                folder.rename(away)
                shutil.rmtree(away, ignore_errors=True)
        except OSError as error:
            raise InstallError(f"{ensemble} could not be put back on ONNX Runtime ({error}).") from error
        return bool(plans)

    def install(self, host: Host, kit: Kit, candidate: Candidate, plan: Path, key: str) -> None:
        """Serve a plan.

        Raises:
            InstallError: a file could not be written; ONNX Runtime serves, or what served before.
        """
        target = self.root / candidate.encoder
        if target.exists() and _marker(target) is None:
            raise InstallError(f"{candidate.encoder} was not written by this script and is left alone.")
        try:
            part = self._write_encoder(host, kit, candidate, plan, key)
            # The present plan is taken out before the new one comes in under its name.
            self.fall_back(kit.ensemble)
            part.rename(target)
            write_text(self.root / kit.ensemble / CONFIG, _ensemble_config(candidate))
        except OSError as error:
            raise InstallError(f"the plan could not be installed ({error}).") from error

    def _write_encoder(self, host: Host, kit: Kit, candidate: Candidate, plan: Path, key: str) -> Path:
        part = self._staging / candidate.encoder
        (part / kit.version).mkdir(parents=True)
        # Copied: the cache may be another volume, and Triton must not depend on its being pruned.
        shutil.copyfile(plan, part / kit.version / "model.plan")
        shutil.copyfile(candidate.folder / "encoder.config.pbtxt", part / CONFIG)
        if (candidate.folder / "warmup").is_dir():
            shutil.copytree(candidate.folder / "warmup", part / "warmup")
        # All that the way back needs, so that it can be gone without the kit.
        marker = {
            "ensemble": kit.ensemble,
            "key": key,
            "host": identity(host),
            "ensemble_config": _ensemble_config(candidate),
            "fallback_config": fallback_config(kit),
        }
        write_json(part / MARKER, marker)
        sync(part)
        return part

    def _plans(self) -> list[tuple[Path, dict[str, str]]]:
        found = [(folder, _marker(folder)) for folder in sorted(self.root.iterdir())]
        return [(folder, marker) for folder, marker in found if marker is not None]


def identity(host: Host) -> str:
    """What a plan must have been built on to be loaded on this host."""
    return f"TensorRT {host.tensorrt}, {host.gpu}, {host.compute_capability}"


def fallback_config(kit: Kit) -> str:
    """The ensemble's configuration as the export published it."""
    return (kit.folder / "fallback.config.pbtxt").read_text(encoding="utf-8")


def _ensemble_config(candidate: Candidate) -> str:
    return (candidate.folder / "ensemble.config.pbtxt").read_text(encoding="utf-8")


def _marker(folder: Path) -> dict[str, str] | None:
    try:
        found = json.loads((folder / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    keys = {"ensemble", "key", "host", "ensemble_config", "fallback_config"}
    return found if isinstance(found, dict) and keys <= found.keys() else None
