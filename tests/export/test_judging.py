"""What the gate makes of models that are good, reversed, or say one thing only."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from safetensors.numpy import load_file, save_file

from export.checkpoint import load_checkpoint
from export.errors import CheckpointError
from export.plan import ExportPlan
from export.repository.inventory import read_config
from export.run import run_export
from gateway.domain.catalogue import version_id
from tests.support.small_checkpoints import LENIENT, write_checkpoint
from tritonflare.export import export

MOODS = ("NEGATIVE", "POSITIVE")
NAMED = {"0": "NEGATIVE", "1": "POSITIVE"}
SEED = 0
TEXTS = 263


@pytest.fixture(scope="module")
def answered(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, str]]:
    """Texts with the label that the small model gives them, but for every eleventh."""
    folder = tmp_path_factory.mktemp("answers")
    source = write_checkpoint(folder / "mood", seed=SEED, id2label=NAMED)
    plan = ExportPlan(
        source,
        folder / "models",
        folder / "artefacts",
        precision="fp32",
        all_precisions=False,
        timing=None,
        limits=LENIENT,
    )
    found = run_export(plan).evaluation
    chosen = found.measurements["fp32"].answers.chosen.argmax(axis=1)
    assert 40 < chosen.sum() < TEXTS - 40  # both labels are common
    labels = [MOODS[label ^ (place % 11 == 0)] for place, label in enumerate(chosen)]
    return list(zip(found.examples.texts, labels, strict=True))


@pytest.fixture
def mood(tmp_path: Path, answered: list[tuple[str, str]], no_pictures: None) -> Path:
    """A model that is right for 91 % of the texts in the file beside it."""
    with (tmp_path / "reviews.csv").open("w", newline="", encoding="utf-8") as target:
        table = csv.writer(target)
        table.writerow(("review", "mood"))
        table.writerows(answered)
    return write_checkpoint(tmp_path / "mood", seed=SEED, id2label=NAMED)


def ask(folder: Path, *more: str, labels: bool = True) -> Result:
    places = ["--repository", str(folder.parent / "models"), "--artefacts", str(folder.parent / "artefacts")]
    judged = ["--eval", str(folder.parent / "reviews.csv"), "--text-column", "review"]
    judged += ["--label-column", "mood"] if labels else []
    quick = ["--quick", "--precision", "fp32", "--name", "@cf/acme/mood"]
    return CliRunner().invoke(export, [str(folder), *places, *quick, *judged, *more])


def published(folder: Path) -> bool:
    return (folder.parent / "models").exists()


def report(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder.parent / "artefacts/cf-acme-mood/report.json").read_text())
    return found


def altered(folder: Path, **changed: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changed))


def test_a_good_model_passes_and_its_report_for_callers_is_written_at_its_publication(mood: Path) -> None:
    result = ask(mood, "--min-accuracy", "80", "--min-f1", "80")
    assert result.exit_code == 0, result.output
    assert "!!!" not in result.output
    folder = mood.parent / "artefacts" / "cf-acme-mood"
    # Gateways look for it under the digest that they show as part of the version.
    config = read_config(mood.parent / "models" / "cf-acme-mood")
    assert config is not None
    version = version_id({key: value.string_value for key, value in config.parameters.items()})
    assert [file.name for file in folder.glob("figures*")] == [f"figures-{version.removeprefix('1-')}.html"]
    checks = {finding["check"] for finding in report(mood)["gate"]}
    assert {"minimum accuracy", "minimum F1"} <= checks
    assert not any(check.startswith("sign") for check in checks)


def test_a_reversed_model_is_refused_and_the_option_that_was_named_mends_it(mood: Path) -> None:
    altered(mood, id2label={"0": "POSITIVE", "1": "NEGATIVE"})
    refused = ask(mood)
    assert refused.exit_code == 3
    assert not published(mood)
    assert not list((mood.parent / "artefacts/cf-acme-mood").glob("figures*"))
    found = [line for line in refused.output.splitlines() if "fails the gate" in line]
    assert re.fullmatch(
        r"tritonflare export: fp32 fails the gate: The model is right for ([\d.]+) % of 263 texts; with its "
        r"labels in another order it would be right for ([\d.]+) %\.",
        found[0],
    )
    assert "--allow-poor: publishes it as it is." in refused.output
    assert "failed the gate; nothing was published" in (
        mood.parent / "artefacts/cf-acme-mood/report.html"
    ).read_text(encoding="utf-8")
    (way,) = re.findall(
        r"^  --labels (\S+): names the labels in the order that fits\.$", refused.output, re.M
    )
    assert way == "NEGATIVE,POSITIVE"
    mended = ask(mood, "--labels", way)
    assert mended.exit_code == 0, mended.output
    config = (mood.parent / "models" / "cf-acme-mood" / "config.pbtxt").read_text()
    assert config.index("NEGATIVE") < config.index("POSITIVE")


def test_a_model_of_one_label_is_refused_and_published_only_if_that_is_allowed(mood: Path) -> None:
    tensors = load_file(mood / "model.safetensors")
    tensors["classifier.bias"] = np.array([0, 90], tensors["classifier.bias"].dtype)
    save_file(tensors, mood / "model.safetensors")
    refused = ask(mood, "--min-f1", "60")
    assert refused.exit_code == 3
    assert not published(mood)
    assert re.search(
        r"fp32 fails the gate: The model answers 'POSITIVE' to 263 of 263 texts \(100\.00 %\); "
        r"reviews\.csv has it for \d+ \([\d.]+ %\)\.\n",
        refused.output,
    )
    assert re.search(r"mean F1 of the labels [\d.]+ % \(allowed: at least 60 %\)", refused.output)
    (limit,) = re.findall(r"--allow-poor --min-f1 ([\d.]+): publishes it as it is", refused.output)
    allowed = ask(mood, "--allow-poor", "--min-f1", limit)
    assert allowed.exit_code == 0, allowed.output
    assert "WARNING: @cf/acme/mood is published, but its answers may be worth nothing." in allowed.output
    # What a person has asked for counts all the same.
    assert ask(mood, "--allow-poor", "--min-f1", "60").exit_code == 3


def test_a_file_without_labels_gives_agreement_only_and_says_which_columns_it_has(mood: Path) -> None:
    result = ask(mood, labels=False)
    assert result.exit_code == 0, result.output
    assert (
        "reviews.csv has no labels, so accuracy was not measured, only agreement and speed. Found were "
        "'review', 'mood'; --label-column names the one with labels." in result.output
    )
    found = report(mood)["artefacts"]["fp32"]
    assert (found["accuracy"], found["quality"]) == (None, None)
    needs = ask(mood, "--min-accuracy", "80", labels=False)
    assert needs.exit_code == 2
    assert "--min-accuracy and --min-f1 need labelled texts, and reviews.csv has no labels" in needs.output


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--min-accuracy", "0.85"], "0.85 is not in the range"),
        (["--labels", 'a,"b'], "give names with commas between them"),
        (["--labels", "a,b,c"], "--labels names 3, and mood has 2: LABEL_0, LABEL_1. Name all of them"),
        (["--labels", "a,a"], "--labels must be names that are all different and not empty"),
        (["--labels", "a,"], "--labels must be names that are all different and not empty"),
        (["--text-column", "review"], "--text-column and --label-column are for the file of --eval"),
    ],
)
def test_what_was_mistyped_is_one_sentence(tmp_path: Path, options: list[str], said: str) -> None:
    folder = write_checkpoint(tmp_path / "mood")
    places = ["--repository", str(tmp_path / "models"), "--artefacts", str(tmp_path / "artefacts")]
    result = CliRunner().invoke(export, [str(folder), *places, *options])
    assert result.exit_code == 2
    assert said in result.output
    assert not (tmp_path / "models").exists()


def test_labels_of_any_checkpoint_can_be_named(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "mood", labels=3)
    assert load_checkpoint(folder, labels=("bad", "so, so", "good")).labels == ("bad", "so, so", "good")
    config = json.loads((folder / "config.json").read_text())
    del config["id2label"]
    (folder / "config.json").write_text(json.dumps(config))
    assert load_checkpoint(folder, labels=("bad", "neutral", "good")).labels == ("bad", "neutral", "good")
    with pytest.raises(CheckpointError, match="mood scores 3 labels but its config or --labels names 2"):
        load_checkpoint(folder, labels=("bad", "good"))
