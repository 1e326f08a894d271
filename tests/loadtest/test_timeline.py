"""The time line of a lone text: its marks, its segments, and the command on the real tritonserver."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest

from loadtest.timeline import marks
from loadtest.timeline.picture import draw
from loadtest.timeline.segments import SEGMENTS, Asked, time_line
from loadtest.timeline.triton_trace import trace_marks
from loadtest.timeline.watched_repository import copy_watched
from tests.support.bundled import bundled_repository
from tests.support.layouts import publish_joined
from tests.support.servers import finished

MS = 1_000_000


@pytest.fixture
def noted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    names: list[str] = []
    monkeypatch.setattr(marks, "mark", names.append)
    return names


def test_a_watched_function_marks_both_ends_even_if_it_fails(noted: list[str]) -> None:
    def divide(by: int) -> float:
        noted.append("inside")
        return 1 / by

    owner = SimpleNamespace(divide=divide)
    marks.watch(owner, "divide", "begins", "ends")
    assert owner.divide(2) == 0.5
    with pytest.raises(ZeroDivisionError):
        owner.divide(0)
    assert noted == ["begins", "inside", "ends"] * 2


def test_a_watched_coroutine_ends_when_it_is_awaited(noted: list[str]) -> None:
    async def answer() -> int:
        noted.append("inside")
        return 42

    owner = SimpleNamespace(answer=answer)
    marks.watch(owner, "answer", ends="ends")
    assert asyncio.run(owner.answer()) == 42
    assert noted == ["inside", "ends"]


def test_marks_are_read_as_they_were_written(tmp_path: Path) -> None:
    (tmp_path / "marks.txt").write_text("17 run begins\n21 run ends\n", encoding="ascii")
    assert marks.read(tmp_path / "marks.txt") == [(17, "run begins"), (21, "run ends")]


def test_segments_follow_each_other_and_fill_the_time() -> None:
    asked = [Asked(0, 10 * MS), Asked(100 * MS, 112 * MS)]
    found = time_line(
        asked,
        [
            (1 * MS, "gateway received"),
            (3 * MS, "run begins"),
            (8 * MS, "run ends"),
            (50 * MS, "run ends"),  # between two texts, such as a canary's
            (101 * MS, "gateway received"),
            (105 * MS, "run begins"),
            (109 * MS, "run ends"),
        ],
    )
    assert (found.whole, found.texts) == (11.0, 2)
    assert found.segments == {
        "client → gateway": 1.0,
        "→ the encoder's thread": 3.0,  # of 2 and 4
        "ONNX Runtime": 4.5,  # of 5 and 4
        "gateway → client": 2.5,  # of 2 and 3
    }


def test_the_second_step_is_told_from_the_first() -> None:
    found = time_line(
        [Asked(0, 9 * MS)],
        [(MS, "execute begins"), (2 * MS, "tokenized"), (5 * MS, "execute begins"), (6 * MS, "run begins")],
    ).segments
    assert found["python backend → its process"] == 1.0
    assert found["python backend → encoder's process"] == 3.0


def test_what_overlaps_the_segment_before_takes_no_time_of_its_own() -> None:
    line = time_line([Asked(0, 9 * MS)], [(4 * MS, "run ends"), (3 * MS, "gateway answered")])
    found = line.segments
    assert found["gRPC → gateway"] == 0.0
    assert sum(found.values()) == 9.0


def test_a_text_without_a_mark_that_others_have_is_left_out() -> None:
    asked = [Asked(start * MS, (start + 9) * MS) for start in (0, 10, 20)]
    marks = [(MS, "run begins"), (5 * MS, "run ends"), (11 * MS, "run begins"), (15 * MS, "run ends")]
    line = time_line(asked, [*marks, (28 * MS, "run ends")])
    assert line.texts == 2
    assert line.segments["ONNX Runtime"] == 4.0
    with pytest.raises(ValueError, match="no text"):
        time_line([], [])


def test_a_trace_tells_the_ensemble_from_its_steps(tmp_path: Path) -> None:
    def stamp(request: int, name: str, at: int) -> dict[str, object]:
        return {"id": request, "timestamps": [{"name": name, "ns": at}]}

    events = [
        {"id": 1, "model_name": "ensemble_folder", "model_version": 1},
        stamp(1, "REQUEST_START", 5),
        {"id": 2, "model_name": "second", "model_version": 1, "parent_id": 1},
        stamp(2, "COMPUTE_START", 7),
    ]
    (tmp_path / "trace.json").write_text(json.dumps(events), encoding="utf-8")
    found = list(trace_marks(tmp_path / "trace.json", ["first", "second"]))
    assert found == [(5, "ensemble REQUEST_START"), (7, "step 2 COMPUTE_START")]


def test_the_copy_is_watched_and_the_original_is_not_touched(tmp_path: Path) -> None:
    original = tmp_path / "models" / "step" / "1"
    original.mkdir(parents=True)
    (original / "model.py").write_text("class TritonPythonModel: ...\n")
    copy_watched(tmp_path / "models", ["step"], tmp_path / "copy")
    assert [file.name for file in original.iterdir()] == ["model.py"]
    copied = tmp_path / "copy" / "step" / "1"
    assert {file.name for file in copied.iterdir()} == {"marks.py", "model.py", "served.py"}
    assert (copied / "served.py").read_text() == (original / "model.py").read_text()


def test_the_same_figures_give_the_same_picture(tmp_path: Path) -> None:
    lines = {"steps": {"gRPC → Triton": 0.3, "ONNX Runtime": 3.0}, "joined": {"ONNX Runtime": 2.9}}
    for name in ("a.svg", "b.svg"):
        draw(lines, tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    words = "".join(ElementTree.parse(tmp_path / "a.svg").getroot().itertext())
    assert all(each in words for each in ("steps", "joined", "ONNX Runtime", "gRPC → Triton", "3.00"))


@pytest.mark.needs_triton
def test_the_command_finds_every_segment_of_either_layout(tmp_path: Path) -> None:
    steps = bundled_repository()
    joined = tmp_path / "joined"
    publish_joined(steps, "@cf/huggingface/distilbert-sst-2-int8", joined)
    options = ("--texts", "25", "--output", str(tmp_path), "--repository", str(steps))
    status, output = finished("bench-timeline", *options, "--repository", str(joined), timeout=120)
    assert status == 0, output
    document = json.loads((tmp_path / "timeline.json").read_text(encoding="utf-8"))
    two, one = (document["milliseconds"][str(each)]["segments"] for each in (steps, joined))
    assert list(two) == [name for _, name in SEGMENTS]
    between = {"tokens → Triton → encoder's queue", "python backend → encoder's process"}
    assert list(one) == [name for name in two if name not in between]
    for line in (two, one):
        assert max(line, key=lambda name: float(line[name])) == "ONNX Runtime"
        assert all(milliseconds >= 0 for milliseconds in line.values())
    assert (tmp_path / "timeline.svg").is_file()
