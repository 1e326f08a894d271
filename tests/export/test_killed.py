"""kill -9 at any moment of an export: the repository is the old one or the new one, never a mixture."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import pytest

from export.errors import VerificationError
from export.files import scratch_folder, write_atomically
from export.plan import ExportPlan
from export.record import ExportNeeded, unchanged_export
from export.repository.inventory import Published, read_inventory, verify_repository
from export.run import run_export
from tests.support.small_checkpoints import LENIENT, write_checkpoint

BUDGET_S = 22.0
NAME = "@x/mood"
# Says what it begins, so that no kill is wasted on importing numpy and many can hit the publishing.
EXPORT = f"""
import sys
from pathlib import Path
from tests.support.small_checkpoints import LENIENT
from export.evaluation.evaluate import Silent
from export.plan import ExportPlan
from export.run import run_export
source, repository, artefacts = map(Path, sys.argv[1:])
class Steps(Silent):
    def step(self, name):
        print(name, flush=True)
plan = ExportPlan(source, repository, artefacts, name={NAME!r}, timing=None, limits=LENIENT)
print("begins", flush=True)
run_export(plan, Steps())
print("ends", flush=True)
"""
DYING = """
import os, signal
from export.repository import exchange
original = exchange._exchange
def die(one, other):
    if {exchanged}:
        original(one, other)
    os.kill(os.getpid(), signal.SIGKILL)
exchange._exchange = die
"""


def snapshot(folder: Path) -> dict[Path, bytes]:
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class Home:
    """A repository with a shared tokenizer, and two checkpoints that take turns under one name."""

    def __init__(self, folder: Path) -> None:
        self.repository = folder / "repository"
        self.artefacts = folder / "artefacts"
        self.sources = [write_checkpoint(folder / f"mood{seed}", seed=seed) for seed in (0, 1)]
        run_export(self.plan(0, "@x/neighbour"))
        self.weights = [run_export(self.plan(turn)).model.weights_sha256 for turn in (0, 1)]

    def plan(self, turn: int, name: str = NAME) -> ExportPlan:
        return ExportPlan(
            self.sources[turn], self.repository, self.artefacts, name=name, timing=None, limits=LENIENT
        )

    def published(self) -> Published:
        return next(model for model in read_inventory(self.repository) if model.name == NAME)

    @contextmanager
    def export(self, turn: int, program: str = EXPORT) -> Iterator[tuple[subprocess.Popen[str], IO[str]]]:
        """A process that exports, and what it says."""
        arguments = [str(path) for path in (self.sources[turn], self.repository, self.artefacts)]
        command = [sys.executable, "-c", program, *arguments]
        environment = os.environ | {"TMPDIR": tempfile.gettempdir()}
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
            assert process.stdout is not None
            yield process, process.stdout
        assert process.returncode in (0, -signal.SIGKILL)

    def succeeds_and_tidies(self, turn: int) -> None:
        """The next export works, and is skipped only if done; nothing temporary is left but the locks."""
        with suppress(ExportNeeded):
            unchanged_export(self.plan(turn))
            assert self.published().weights_sha256 == self.weights[turn]
        run_export(self.plan(turn))
        assert verify_repository(self.repository) == []
        assert self.published().weights_sha256 == self.weights[turn]
        hidden = {path.name for path in self.repository.parent.rglob(".*") if path.name != ".gitkeep"}
        assert hidden == {".repository.lock", ".x-mood.lock", ".x-neighbour.lock"}
        assert list(Path(tempfile.gettempdir()).glob("tritonflare*")) == []

    def seconds(self, turn: int) -> dict[str, float]:
        """How long a whole export takes to its end from its beginning and from the publishing."""
        with self.export(turn) as (_, lines):
            began = {line.strip(): time.monotonic() for line in lines}
        return {step: began["ends"] - began[step] for step in ("begins", "publishing")}

    def killed(self, turn: int, step: str, delay_s: float) -> bool:
        """Export and kill at a moment after a step's beginning; whether that was before the end."""
        with self.export(turn) as (process, lines):
            assert any(line.strip() == step for line in lines)
            time.sleep(delay_s)
            process.kill()
        return process.returncode != 0


@pytest.fixture
def home(
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    no_pictures: None,
    monkeypatch: pytest.MonkeyPatch,
) -> Home:
    """Pictures are drawn by the processes alone, which are the exports that get killed."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("temporary")))
    return Home(tmp_path)


def test_a_killed_export_leaves_the_old_repository_or_the_whole_new_one(home: Home) -> None:
    began = time.monotonic()
    seconds = home.seconds(0)
    rng = random.Random(7)
    kills = finished = kept = replaced = 0
    # On a machine that has other things to do, five kills take longer.
    while (spent := time.monotonic() - began) < BUDGET_S or (
        min(kills, kept + 2) < 5 and spent < 3 * BUDGET_S
    ):
        before, old = snapshot(home.repository), home.published()
        turn = 1 - home.weights.index(old.weights_sha256)
        step = rng.choice(["begins", "publishing", "publishing"])
        if home.killed(turn, step, rng.uniform(0, 1.1 * seconds[step])):
            kills += 1
        else:
            finished += 1
        if snapshot(home.repository) == before:
            kept += 1
        else:
            new = home.published()
            assert (new.weights_sha256, new.version) == (home.weights[turn], old.version + 1)
            replaced += 1
        assert verify_repository(home.repository) == []
    print(f"\n{kills} killed, {finished} finished; {kept} times the old one, {replaced} times the new one")
    assert kills >= 5
    assert kept >= 3

    home.succeeds_and_tidies(1)


@pytest.mark.parametrize("exchanged", [False, True])
def test_a_kill_on_either_side_of_the_exchange_is_on_either_side_of_the_publication(
    home: Home, tmp_path: Path, exchanged: bool
) -> None:
    before = snapshot(home.repository)
    with home.export(0, DYING.format(exchanged=exchanged) + EXPORT) as (_, lines):
        assert "ends" not in lines.read()
    assert (snapshot(home.repository) == before) is not exchanged
    assert home.published().weights_sha256 == home.weights[0 if exchanged else 1]
    assert verify_repository(home.repository) == []
    assert (tmp_path / ".repository.staging").exists()
    home.succeeds_and_tidies(0)


def test_a_refused_export_leaves_whole_artefacts_and_the_repository_alone(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = snapshot(home.repository)

    def refuse(*_: object) -> None:
        raise VerificationError("not good enough")

    monkeypatch.setattr("export.run.require", refuse)
    with pytest.raises(VerificationError):
        run_export(home.plan(1))
    assert snapshot(home.repository) == before
    left = {path.name for path in home.artefacts.rglob("*") if path.suffix != ".png" and path.is_file()}
    # Figures of what is published stay: one page for each model's weights.
    figures = {name for name in left if name.startswith("figures-")}
    assert len(figures) >= 2
    left -= figures
    files = {"model.onnx", "report.html", "report.json", "report.md", "published.json"}
    assert left == files | {".x-mood.lock", ".x-neighbour.lock"}


def test_a_file_that_cannot_be_written_to_its_end_does_not_replace_the_old_one(tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    write_atomically(file, b"old")
    with pytest.raises(TypeError):
        write_atomically(file, "text, which a binary file refuses")  # type: ignore[arg-type]
    assert file.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_an_export_removes_the_folders_of_killed_ones_and_of_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "tritonflare_export_killed" / "within").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "tritonflare_export_link").symlink_to(tmp_path / "elsewhere")
    with scratch_folder() as first:
        (first / "file").touch()
        with scratch_folder() as second:
            assert first != second
            assert (first / "file").exists()
            assert {path.name for path in tmp_path.iterdir()} == {
                "elsewhere",
                "tritonflare_export_link",
                first.name,
                second.name,
            }
    assert {path.name for path in tmp_path.iterdir()} == {"elsewhere", "tritonflare_export_link"}
