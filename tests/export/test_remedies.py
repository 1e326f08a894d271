from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from export.evaluation.gate import Finding
from export.evaluation.settings import TimingSettings
from export.plan import ExportPlan
from export.remedies import ways_out


@pytest.fixture
def plan(tmp_path: Path) -> ExportPlan:
    return ExportPlan("mood", tmp_path / "models", tmp_path / "artefacts", timing=TimingSettings())


def finding(check: str, value: float, artefact: str = "int8-token", passed: bool = False) -> Finding:
    return Finding(artefact, check, value, 0.0, passed, "", "")


def options(plan: ExportPlan, *findings: Finding, chosen: str = "int8-token", texts: int = 300) -> list[str]:
    return [way.partition(":")[0] for way in ways_out(plan, findings, chosen, texts, enough=200)]


def test_what_passed_needs_no_way_out(plan: ExportPlan) -> None:
    assert options(plan, finding("agreement", 0.99, passed=True)) == []


def test_only_precisions_that_passed_are_named(plan: ExportPlan) -> None:
    found = options(
        plan,
        finding("agreement", 0.9),
        finding("agreement", 0.9, "fp16"),
        finding("agreement", 1, "fp32", True),
    )
    assert [option for option in found if "precision" in option] == ["--precision fp32"]


def test_limits_are_named_so_that_what_was_found_just_passes(plan: ExportPlan) -> None:
    labelled = dataclasses.replace(plan, examples=Path("eval.csv"))
    found = options(
        labelled,
        finding("agreement", 0.97836),
        finding("accuracy drop", 0.7512),
        finding("neighbours", 3.14e-4),
    )
    assert found[-1] == "--min-agreement 97.83 --max-drop 0.76 --max-neighbours 0.00032"


@pytest.mark.parametrize("check", ["finite", "neighbour flips", "p99 shift"])
def test_a_limit_that_no_option_moves_is_not_reported_as_moved(plan: ExportPlan, check: str) -> None:
    found = options(plan, finding(check, 2), finding("agreement", 0.9))
    assert not any(option.startswith("--min-agreement") for option in found)


def test_other_schemes_are_named_where_they_can_help(plan: ExportPlan) -> None:
    schemes = ["--int8 blocks", "--int8 auto"]
    assert options(plan, finding("agreement", 0.9))[:2] == schemes
    blocks = dataclasses.replace(plan, int8="blocks")
    assert "--int8 blocks" not in options(
        blocks, finding("agreement", 0.9, "int8-blocks"), chosen="int8-blocks"
    )
    auto = dataclasses.replace(plan, int8="auto")
    assert not any("--int8" in option for option in options(auto, finding("agreement", 0.9)))
    assert not any("--int8" in option for option in options(plan, finding("neighbours", 1e-3)))


def test_more_texts_are_asked_for_where_there_are_few(plan: ExportPlan) -> None:
    assert "--eval FILE" in options(plan, finding("agreement", 0.9))
    labelled = dataclasses.replace(plan, examples=Path("eval.csv"))
    assert "--eval FILE with 200 texts or more" in options(labelled, finding("agreement, own", 0.9), texts=50)
    assert not any("--eval" in option for option in options(labelled, finding("agreement", 0.9)))


def test_beside_a_tensorrt_plan_the_other_target_is_named(plan: ExportPlan) -> None:
    gpu = dataclasses.replace(plan, target="tensorrt")
    assert options(gpu, finding("agreement", 0.9, "fp16"), chosen="fp16")[0] == (
        "--target onnxruntime --precision fp32"
    )


def test_no_precision_mends_what_is_wrong_with_the_model_itself(plan: ExportPlan) -> None:
    labelled = dataclasses.replace(plan, examples=Path("eval.csv"))
    signs = [finding("sign: label order", 1, name) for name in ("int8-token", "fp32")]
    ways = ways_out(labelled, signs, "int8-token", 300, 200, order=("so, so", "it's good"))
    assert [way.partition(":")[0] for way in ways] == [
        """--labels '"so, so",it'"'"'s good'""",
        "--allow-poor",
    ]
    minimum = finding("minimum accuracy", 0.4567)
    assert options(labelled, *signs, minimum) == ["--allow-poor --min-accuracy 45.67"]
    assert options(labelled, minimum, finding("minimum accuracy", 0.9, "fp32", True)) == [
        "--precision fp32", "--int8 blocks", "--int8 auto", "--min-accuracy 45.67",
    ]  # fmt: skip
