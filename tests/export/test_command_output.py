"""``tritonflare export``: sentences about what was published."""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from export.repository.inventory import read_inventory
from tests.support.small_checkpoints import write_checkpoint
from tritonflare.export import export


def run(*arguments: str | Path) -> str:
    result = CliRunner().invoke(export, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture
def places(tmp_path: Path, no_pictures: None) -> tuple[str | Path, ...]:
    """A checkpoint of three labels, and where it goes."""
    source = write_checkpoint(tmp_path / "mood", labels=3)
    where = ("--repository", tmp_path / "models", "--artefacts", tmp_path / "artefacts")
    return (source, *where, "--quick", "--precision", "fp32")


@pytest.mark.parametrize(
    ("labels", "told"), [(("0", "2"), True), ((0, "label_1"), True), (("LABEL_0", "label_2"), False)]
)
def test_labels_given_as_numbers_are_reported_to_follow_id2label(
    places: tuple[str | Path, ...], tmp_path: Path, labels: tuple[int | str, ...], told: bool
) -> None:
    file = tmp_path / "eval.jsonl"
    file.write_text("".join(json.dumps({"text": f"text {label}", "label": label}) + "\n" for label in labels))
    line = "Numbers in eval.jsonl are read in the order of id2label (0 = LABEL_0, 1 = LABEL_1, 2 = LABEL_2)."
    assert run(*places, "--allow-poor", "--eval", file).splitlines().count(line) == told


def test_the_command_that_takes_a_doubtful_model_back_runs_as_pasted(
    places: tuple[str | Path, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["/opt/bin/tritonflare", "export"])
    file = tmp_path / "eval.csv"
    file.write_text("text,label\n" + "".join(f"text {n},{n % 3}\n" for n in range(300)))
    found = re.search("^To take it back: `(.*)`$", run(*places, "--allow-poor", "--eval", file), re.M)
    assert found is not None
    program, command, *arguments = shlex.split(found[1])
    assert (program, command) == ("/opt/bin/tritonflare", "export")
    assert len(read_inventory(tmp_path / "models")) == 1
    run(*arguments)
    assert read_inventory(tmp_path / "models") == []
