"""The model.py files, run outside Triton with a stand-in for its module; tests/triton runs them inside."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from weakref import WeakSet

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from export.checkpoint import load_checkpoint
from export.graph.encoder import build_graph
from export.quantise.rewrite import quantise
from export.quantise.schemes import Tokenwise
from export.repository.write import ENCODER_SOURCES, TOKENIZER_SOURCES
from export.triton_models import device, text_queue
from export.triton_models.text_queue import CPU
from tests.support.small_checkpoints import write_checkpoint
from tests.support.triton_steps import (
    FakeRequest,
    answers,
    fake_pb_utils,
    load_step,
    strings,
    tensors,
    texts,
)


@pytest.fixture(autouse=True)
def _pb_utils(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", fake_pb_utils())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "small", labels=3)


def tokenizer(folder: Path, limit: int, **parameters: str) -> Any:
    config = {
        "input": tensors("TEXT"),
        "output": tensors("input_ids", "attention_mask", "token_count"),
        "parameters": strings({"max_tokens": str(limit), "pad_id": "0"} | parameters),
    }
    return load_step(TOKENIZER_SOURCES, folder, config)


def test_tokens_are_counted_before_truncation_and_cut_to_the_limit(folder: Path) -> None:
    (response,) = tokenizer(folder, 8).execute([texts("a", "a b c d e f", "a b c d e f g", "a " * 100)])
    assert response.tensors["token_count"].ravel().tolist() == [3, 8, 9, 102]
    assert response.tensors["attention_mask"].sum(axis=1).tolist() == [3, 8, 8, 8]
    assert (response.tensors["input_ids"][1:, -1] == 3).all()  # [SEP] stays at the end


def test_the_files_own_padding_and_truncation_are_not_obeyed(folder: Path) -> None:
    (response,) = tokenizer(folder, 64).execute([texts("a " * 30)])
    assert response.tensors["input_ids"].shape == (1, 32)
    (response,) = tokenizer(folder, 64).execute([texts("a")])
    assert response.tensors["input_ids"].tolist() == [[2, 4, 3]]


def test_padding_stays_inside_a_request(folder: Path) -> None:
    first, second = tokenizer(folder, 64).execute([texts("a", "a b c"), texts("a b c d e f")])
    assert first.tensors["input_ids"].shape == (2, 5)
    assert first.tensors["attention_mask"].tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]
    assert second.tensors["input_ids"].shape == (1, 8)


def test_rows_are_filled_up_with_the_exports_padding_token(folder: Path) -> None:
    (response,) = tokenizer(folder, 64, pad_id="1").execute([texts("a", "a b c")])
    assert response.tensors["input_ids"].tolist() == [[2, 4, 3, 1, 1], [2, 4, 5, 6, 3]]


def test_buckets_round_each_request_up_by_itself(folder: Path) -> None:
    padded = tokenizer(folder, 64, length_buckets="8,16,64")
    requests = [texts("a"), texts("a " * 6, "a"), texts("a", "a " * 7), texts("a " * 20), texts("a " * 99)]
    shapes = [response.tensors["input_ids"].shape for response in padded.execute(requests)]
    assert shapes == [(1, 8), (2, 8), (2, 16), (1, 64), (1, 64)]
    (response,) = padded.execute([texts("a")])
    assert response.tensors["attention_mask"].tolist() == [[1, 1, 1, 0, 0, 0, 0, 0]]
    assert response.tensors["token_count"].tolist() == [[3]]


def test_bytes_that_are_not_utf8_fail_their_own_request_only(folder: Path) -> None:
    bad = FakeRequest({"TEXT": np.array([[b"\xff\xfe"]], dtype=object)})
    first, second = tokenizer(folder, 64).execute([bad, texts("a")])
    assert first.error.args == ("TEXT is not UTF-8", 3)
    assert second.error is None


class PanicException(BaseException):
    """As tokenizers raises it where its Rust code panics."""


@pytest.mark.parametrize("length", [1, 20_000])
def test_a_panic_of_tokenizers_fails_its_own_request_only(
    folder: Path, length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tokenizer(folder, 64)
    long = texts("a " * length)

    def panic(_: list[str]) -> Any:
        raise PanicException

    with monkeypatch.context() as patch:
        patch.setattr(model.reader, "encoder", SimpleNamespace(encode_batch=panic))
        patch.setattr(model.reader, "tokenizer", SimpleNamespace(encode_batch_fast=panic))
        (response,) = model.execute([long])
        failed = response or long.answers.get(timeout=5)[0]
        assert failed.error.args == ("tokenization failed: PanicException",)
    again = texts("a " * 20_000)
    model.execute([again])
    assert again.answers.get(timeout=30)[0].error is None
    model.finalize()


def test_a_request_without_rows_is_refused(folder: Path, tmp_path: Path) -> None:
    (response,) = tokenizer(folder, 64).execute([FakeRequest({"TEXT": np.empty((0, 1), dtype=object)})])
    assert response.error.args == ("TEXT has no rows", 3)
    empty = np.empty((0, 4), np.int64)
    (response,) = run(encoder(folder, tmp_path), FakeRequest({"input_ids": empty, "attention_mask": empty}))
    assert response.error.args == ("inference failed: no texts",)


def encoder(folder: Path, tmp_path: Path) -> Any:
    model = quantise(build_graph(load_checkpoint(folder).encoder, "fp32"), Tokenwise())
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    config = {
        "input": tensors("input_ids", "attention_mask"),
        "output": tensors("logits", dims=3),
        "instance_group": [{"count": 1}],
    }
    return load_step(ENCODER_SOURCES, tmp_path, config)


def run(model: Any, *requests: dict[str, Any]) -> list[Any]:
    """Execute and wait for all answers, none of which is returned."""
    assert model.execute([]) is None
    found = answers(model, *requests)
    model.finalize()
    return found


def ids(*rows: list[int]) -> dict[str, Any]:
    width = max(map(len, rows))
    return {
        "input_ids": np.array([row + [0] * (width - len(row)) for row in rows]),
        "attention_mask": np.array([[1] * len(row) + [0] * (width - len(row)) for row in rows]),
    }


def test_requests_of_unequal_length_get_their_own_answers_in_their_own_order(
    folder: Path, tmp_path: Path
) -> None:
    rng = np.random.default_rng(1)
    rows = [[2, *rng.integers(4, 30, n).tolist(), 3] for n in (50, 1, 7, 7, 30, 2, 8, 9, 49, 3)]
    alone = [run(encoder(folder, tmp_path), ids(row))[0].tensors["logits"][0] for row in rows]
    together = run(encoder(folder, tmp_path), ids(*rows[:3]), ids(rows[3]), ids(*rows[4:]))
    assert [len(response.tensors["logits"]) for response in together] == [3, 1, 6]
    found = np.concatenate([response.tensors["logits"] for response in together])
    np.testing.assert_allclose(found, alone, atol=1e-5)
    assert len({tuple(row) for row in found.tolist()}) == len(rows)  # no two alike, so no mix-up can hide


def check_group(widths: list[int]) -> None:
    """One text is always a group; more are few, alike, and together no more than the budget."""
    assert len(widths) <= CPU.texts
    if len(widths) > 1:
        assert max(widths) * len(widths) <= CPU.tokens


@given(st.lists(st.integers(1, 512), min_size=1, max_size=64))
def test_every_text_is_in_one_group_and_little_is_padded(lengths: list[int]) -> None:
    groups = text_queue.length_groups(lengths)
    assert sorted(i for group in groups for i in group) == list(range(len(lengths)))
    for group in groups:
        widths = [lengths[i] for i in group]
        check_group(widths)
        assert all(max(widths) - width <= CPU.padding for width in widths)


def call_of(lengths: list[int]) -> Any:
    return text_queue.Call(None, [[0] * length for length in lengths], labels=2)


@given(st.lists(st.lists(st.integers(1, 512), min_size=1, max_size=16), max_size=12), st.integers(1, 20))
def test_a_queue_gives_every_text_once_and_the_oldest_of_the_short_or_the_long_ones_first(
    calls: list[list[int]], limit: int
) -> None:
    queue = text_queue.TextQueue()
    waiting: list[tuple[int, int, bool]] = []
    taken = []
    for number, lengths in enumerate(calls):
        call = call_of(lengths)
        call.number = number
        queue.add(call)
        waiting += [(number, place, length > CPU.long_tokens) for place, length in enumerate(lengths)]
        if number % 2:
            taken += take(queue, limit, waiting)
    while len(queue):
        taken += take(queue, limit, waiting)
    assert sorted(taken) == sorted((n, p) for n, lengths in enumerate(calls) for p in range(len(lengths)))


def take(queue: Any, limit: int, waiting: list[tuple[int, int, bool]]) -> list[tuple[int, int]]:
    group = queue.take(limit)
    assert 1 <= len(group) <= limit
    widths = [length for length, _, _, _ in group]
    assert widths == sorted(widths)
    check_group(widths)
    names = [(call.number, place, length > CPU.long_tokens) for length, _, place, call in group]
    (long,) = {name[2] for name in names}
    assert next(name for name in waiting if name[2] == long) in names
    for name in names:
        waiting.remove(name)
    return [name[:2] for name in names]


def test_a_short_text_waits_for_one_long_text_at_most() -> None:
    queue = text_queue.TextQueue()
    queue.add(call_of([512] * 20))
    for _ in range(20):
        queue.add(call_of([8]))
        groups = [queue.take(1), queue.take(1)] if len(queue) > 1 else [queue.take(1)]
        assert 8 in {group[0][0] for group in groups}


def test_long_texts_are_not_starved_by_short_ones() -> None:
    queue = text_queue.TextQueue()
    queue.add(call_of([512] * 5))
    for _ in range(5 * text_queue.LONG_EVERY):
        queue.add(call_of([8]))
        queue.take(1)
    assert all(length == 8 for length, *_ in queue.take(16))


def test_a_text_that_fails_fails_its_own_request_only_and_without_a_traceback(
    folder: Path, tmp_path: Path
) -> None:
    bad, good = run(encoder(folder, tmp_path), ids([2, 10_000, 3]), ids([2, 4, 3]))
    assert bad.error.args == ("inference failed: InvalidArgument",)
    assert good.error is None
    assert np.isfinite(good.tensors["logits"]).all()


def test_a_failing_tokenization_is_named_and_fails_its_own_request_only(folder: Path) -> None:
    bad = FakeRequest({"TEXT": np.array([[3.5]], dtype=object)})
    first, second = tokenizer(folder, 64).execute([bad, texts("a")])
    assert first.error.args == ("tokenization failed: TypeError",)
    assert second.error is None


def test_a_response_that_cannot_be_sent_costs_no_thread(folder: Path, tmp_path: Path) -> None:
    model = encoder(folder, tmp_path)
    lost, told, fine = (FakeRequest(ids([2, 4, 3])) for _ in range(3))

    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("no room in shared memory")

    def broken_once(response: Any, flags: Any) -> None:
        if response.error is None:
            raise RuntimeError("no room in shared memory")
        told.answers.put((response, flags))

    lost.get_response_sender = lambda: SimpleNamespace(send=broken)  # type: ignore[method-assign]
    told.get_response_sender = lambda: SimpleNamespace(send=broken_once)  # type: ignore[method-assign]
    for _ in range(8):
        model.execute([lost])
    model.execute([told, fine])
    assert told.answers.get(timeout=30)[0].error.args == ("inference failed: RuntimeError",)
    assert fine.answers.get(timeout=30)[0].error is None
    model.finalize()


def test_no_counter_outlives_the_model(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = WeakSet[Any]()

    class Metric:
        def __init__(self, **_: Any) -> None:
            made.add(self)

        def increment(self, _: float) -> None:
            pass

    class MetricFamily(Metric):
        COUNTER = "counter"

        def Metric(self, labels: dict[str, str]) -> Metric:
            return Metric(labels=labels)

    module = sys.modules["triton_python_backend_utils"]
    monkeypatch.setattr(module, "MetricFamily", MetricFamily, raising=False)
    model = encoder(folder, tmp_path)
    answers(model, ids([2, 4, 3]))
    assert len(made) == 4  # two counters, each in a family
    model.finalize()
    assert not made


@pytest.mark.parametrize(
    ("quota", "period", "cores"),
    [
        ("max", "100000", 3),
        ("-1", "100000", 3),
        ("200000", "100000", 2),
        ("150000", "100000", 2),
        ("50000", "100000", 1),
        ("1000", "100000", 1),
        ("25000", "10000", 3),
        ("900000", "100000", 3),
    ],
)
@pytest.mark.parametrize("version", [1, 2])
def test_a_containers_quota_bounds_the_threads(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, version: int, quota: str, period: str, cores: int
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1, 2})
    assert device.cores(tmp_path) == 3
    if version == 2:
        (tmp_path / "cpu.max").write_text(f"{quota} {period}\n")
    else:
        (tmp_path / "cpu").mkdir()
        (tmp_path / "cpu/cpu.cfs_quota_us").write_text(f"{quota}\n")
        (tmp_path / "cpu/cpu.cfs_period_us").write_text(f"{period}\n")
    assert device.cores(tmp_path) == cores


def test_a_quota_that_cannot_be_read_bounds_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1, 2})
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu/cpu.cfs_quota_us").write_text("100000\n")
    assert device.cores(tmp_path) == 3
    (tmp_path / "cpu/cpu.cfs_period_us").write_text("0\n")
    assert device.cores(tmp_path) == 3
