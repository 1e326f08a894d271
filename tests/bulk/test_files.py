"""Outputs: when they are on the disk."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bulk.files import OutputFiles


def test_the_name_of_an_output_is_on_the_disk_before_its_journal_may_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, synced, sync = OutputFiles(tmp_path / "a.csv"), [], os.fsync

    def noted(descriptor: int) -> None:
        synced.append((os.readlink(f"/proc/self/fd/{descriptor}"), output.final.exists()))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    with output.writing() as stream:
        stream.write(b"a")
    assert synced == [(str(output.partial), False), (str(tmp_path), True)]
