"""Which TensorRT and which GPU this is: the two things that a plan is bound to."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

# Where NVIDIA's tritonserver and tensorrt images have it; it is not on their PATH.
IMAGE_TRTEXEC = Path("/usr/src/tensorrt/bin/trtexec")
_BANNER = re.compile(r"\[TensorRT v(\d{5,6})\](?:\s*\[b(\d+)\])?")


class NoTensorRT(Exception):
    """Plans cannot be built here; one sentence with the reason."""


@dataclass(frozen=True)
class Host:
    """trtexec with its version ("11.2.1.2"; the build number is left out where unknown), and the GPU."""

    trtexec: Path
    tensorrt: str
    gpu: str
    compute_capability: str

    @property
    def major(self) -> int:
        """10 or 11."""
        return int(self.tensorrt.split(".", maxsplit=1)[0])


def find_host(trtexec: Path | None = None) -> Host:
    """Look for trtexec and the GPU.

    Raises:
        NoTensorRT: one of them is missing, TensorRT is older than 10, or the GPUs differ.
    """
    found = trtexec or _which("trtexec") or IMAGE_TRTEXEC
    if not found.is_file():
        raise NoTensorRT("there is no trtexec here; run this inside NVIDIA's tritonserver image.")
    gpu, capability = _gpu()
    return Host(found, tensorrt_version(_output([str(found), "--help"])), gpu, capability)


def tensorrt_version(banner: str) -> str:
    """The version in trtexec's first line: v110201 with [b2] is 11.2.1.2.

    Raises:
        NoTensorRT: there is no such line, or it names a version that we do not build for.
    """
    match = _BANNER.search(banner)
    if match is None:
        raise NoTensorRT("trtexec does not print its TensorRT version (or is older than 10).")
    number, build = int(match[1]), match[2]
    parts = [number // 10000, number // 100 % 100, number % 100]
    if parts[0] < 10:
        raise NoTensorRT("TensorRT is older than 10; use a tritonserver image of 24.05 or later.")
    return ".".join(map(str, parts)) + (f".{build}" if build else "")


def _gpu() -> tuple[str, str]:
    smi = _which("nvidia-smi")
    query = ["--query-gpu=name,compute_cap", "--format=csv,noheader"]
    lines = _output([str(smi), *query]).splitlines() if smi else []
    found = {line.strip() for line in lines if re.fullmatch(r".+,\s*\d+\.\d+\s*", line)}
    if not found:
        raise NoTensorRT("there is no NVIDIA GPU here (nvidia-smi shows none).")
    if len(found) > 1:
        raise NoTensorRT(
            f"the GPUs differ ({'; '.join(sorted(found))}) and a plan fits one kind; "
            "show the container GPUs of one kind."
        )
    name, _, capability = found.pop().rpartition(",")
    return name.strip(), capability.strip()


def _which(program: str) -> Path | None:
    path = shutil.which(program)
    return Path(path) if path else None


def _output(command: list[str]) -> str:
    try:
        # trtexec's exit code for --help is not the same in all versions; its first line is.
        done = subprocess.run(
            command, check=False, capture_output=True, text=True, errors="replace", timeout=60
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoTensorRT(f"{Path(command[0]).name} cannot be run ({error}).") from error
    return done.stdout + done.stderr
