"""Debian's indexes and packages, fetched by apt into the cache; the system's own lists stay as they are.

It takes a Debian 12 with its usual sources. apt checks the signatures.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

from training.packages import DataError

SUITE = "bookworm"
CAT = "/usr/lib/apt/apt-helper"


class Apt:
    """apt with lists of its own that hold the long descriptions in English."""

    def __init__(self, cache: Path):
        self.cache = cache.resolve()
        self.lists = self.cache / "lists"
        self._options = [f"-oDir::State::lists={self.lists}", "-oAcquire::Languages=en"]

    def indexes(self) -> tuple[str, str]:
        """The texts of ``Packages`` and ``Translation-en`` of the suite's section main.

        Raises:
            DataError: apt failed, or has no such suite among its sources.
        """
        (self.lists / "partial").mkdir(parents=True, exist_ok=True)
        if not any(self.lists.glob("*Translation-en*")):
            self._run("apt-get", "update", "-q", *self._options)
        form = "$(CREATED_BY) $(CODENAME) $(COMPONENT) $(FILENAME)"
        listed = self._run("apt-get", "indextargets", *self._options, "--format", form)
        files = {tuple(line.split()[:3]): line.split()[3] for line in listed.splitlines()}
        try:
            wanted = [files[kind, SUITE, "main"] for kind in ("Packages", "Translations")]
        except KeyError:
            raise DataError(f"apt has no {SUITE} main with English descriptions among its sources.") from None
        packages, translations = (self._run(CAT, "cat-file", file) for file in wanted)
        return packages, translations

    def unpack(self, package: str, version: str) -> Path:
        """Download one package and unpack it; return the folder that stands for its ``/``."""
        folder = self.cache / package
        if not folder.exists():
            self._run("apt-get", "download", "-q", *self._options, f"{package}={version}")
            file = next(self.cache.glob(f"{package}_*.deb"))
            self._run("dpkg-deb", "-x", str(file), str(folder))
        return folder

    def _run(self, *command: str) -> str:
        done = subprocess.run(command, cwd=self.cache, check=False, capture_output=True, text=True)
        if done.returncode != 0:
            raise DataError(f"{command[0]} failed: {done.stderr.strip()[-500:]}")
        return done.stdout


def paragraphs(index: str) -> Iterator[dict[str, str]]:
    """The stanzas of a Debian control file; continued lines keep their newlines and one leading space."""
    for stanza in index.split("\n\n"):
        fields: dict[str, str] = {}
        name = ""
        for line in stanza.split("\n"):
            if line.startswith((" ", "\t")):
                fields[name] += "\n" + line
            elif line:
                name, _, value = line.partition(":")
                fields[name] = value.strip()
        if fields:
            yield fields
