"""The encoder's device for CUDA on the CPU provider: memory that runs out, and a GPU that is lost."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from export.triton_models import device, encoder_threads
from export.triton_models.device import DeviceError
from tests.support.cuda_steps import Encoder, cuda_config, encoder, on_the_cpu, rows_of, write_graph

__all__ = ["encoder"]  # a fixture

OUT_OF_MEMORY = "bfc_arena.cc:376 Failed to allocate memory for requested buffer of size 4096"


def limited(encoder: Encoder, monkeypatch: pytest.MonkeyPatch, tokens: int) -> list[tuple[int, int, bool]]:
    """Let memory run out above so many computed tokens; returns the runs: texts, width, shrinking."""
    runs, run = [], encoder.device.session.run_with_iobinding
    inner = encoder.device.run

    def watched(inputs: Any, *, shrink: bool = False) -> Any:
        runs.append((*inputs["input_ids"].shape, shrink))
        return inner(inputs, shrink=shrink)

    def short(binding: Any, options: Any) -> None:
        count, width, _ = runs[-1]
        if count * width > tokens:
            raise RuntimeError(OUT_OF_MEMORY)
        run(binding, options)

    monkeypatch.setattr(encoder.device, "run", watched)
    monkeypatch.setattr(encoder.device, "session", _with_run(encoder.device.session, short))
    return runs


def _with_run(session: Any, run: Callable[[Any, Any], None]) -> Any:
    return SimpleNamespace(io_binding=session.io_binding, run_with_iobinding=run)


@pytest.mark.parametrize(("tokens", "halved"), [(2048, 0), (256, 1), (128, 3), (64, 7), (32, 15)])
def test_a_group_is_halved_until_memory_suffices_and_no_text_is_lost(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch, tokens: int, halved: int
) -> None:
    rows = rows_of(*range(17, 33))  # 16 texts, padded to 32 tokens
    wanted = encoder.logits(rows)
    runs = limited(encoder, monkeypatch, tokens)
    np.testing.assert_allclose(encoder.logits(rows), wanted, atol=1e-6)
    assert encoder.threads.padding.halved == halved
    assert runs[0] == (16, 32, False)
    assert all(shrink for _, _, shrink in runs[1:])  # what no run uses goes back to the GPU
    assert len(encoder.warnings) == (halved > 0)  # once, not for each group
    if halved:
        assert encoder.warnings[0].startswith("GPU 0 ran out of memory for 16 texts of 32 tokens")


def test_a_text_that_never_fits_fails_with_the_reason_and_its_neighbours_are_answered(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoder_threads, "PAUSE_S", 0.001)
    rows = rows_of(12, 13, 14, 60)
    wanted = encoder.logits(rows)
    runs = limited(encoder, monkeypatch, 32)
    good, bad = encoder.ask(rows[:3], rows[3:])
    np.testing.assert_allclose(good.tensors["logits"], wanted[:3], atol=1e-6)
    assert bad.error.args == ("inference failed: out of memory",)
    alone = [run for run in runs if run[:2] == (1, 64)]
    assert len(alone) in (2, 3)  # once fewer after its group was halved
    assert alone[-1][2]


def test_memory_that_comes_back_answers_a_text_that_was_alone(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, failures = encoder.device.session.run_with_iobinding, [1, 1]

    def short(binding: Any, options: Any) -> None:
        if failures:
            failures.pop()
            raise RuntimeError("CUDA failure 2: out of memory ; GPU=0 ; hostname=h ; file=/a/b.cc")
        run(binding, options)

    monkeypatch.setattr(encoder.device, "session", _with_run(encoder.device.session, short))
    (response,) = encoder.ask(rows_of(9))
    assert response.error is None
    assert encoder.threads.padding.halved == 0


def test_a_refused_option_to_give_memory_back_costs_no_text(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, options_of_runs = encoder.device.session.run_with_iobinding, []

    def refusing(binding: Any, options: Any) -> None:
        options_of_runs.append(options)
        if len(options_of_runs) == 1:
            raise RuntimeError(OUT_OF_MEMORY)
        if options is not None:
            raise RuntimeError("Did not find an arena based allocator registered for device-id combination")
        run(binding, options)

    rows = rows_of(9, 10, 11, 12)
    wanted = encoder.logits(rows)
    monkeypatch.setattr(encoder.device, "session", _with_run(encoder.device.session, refusing))
    shrinking = encoder.device.shrinking
    np.testing.assert_allclose(encoder.logits(rows), wanted, atol=1e-6)
    assert options_of_runs.count(shrinking) == 1  # once refused, it is not asked for again
    assert encoder.warnings[1:] == ["GPU 0 keeps memory that ran short: ONNX Runtime cannot give it back"]


def test_another_failure_is_no_reason_to_halve_and_fails_its_own_text_alone(encoder: Encoder) -> None:
    rows = [*rows_of(9, 10, 11), [2, 10_000, 3]]
    good, bad = encoder.ask(rows[:3], rows[3:])
    assert good.error is None
    assert bad.error.args == ("inference failed: RuntimeError",)
    assert encoder.threads.padding.halved == 0
    assert encoder.warnings == []


def test_a_gpu_that_fails_text_after_text_is_lost_and_its_process_ends(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[int] = []
    monkeypatch.setattr("os._exit", ended.append)
    session = encoder.device.session

    def lost(_binding: Any, _options: Any) -> None:
        raise RuntimeError("CUDA failure 719: unspecified launch failure")

    def lose() -> None:
        monkeypatch.setattr(encoder.device, "session", _with_run(session, lost))

    few = [rows_of(9)] * (encoder_threads.LOST_AFTER - 1)
    lose()
    assert all(answer.error is not None for answer in encoder.ask(*few))
    monkeypatch.setattr(encoder.device, "session", session)
    encoder.logits(rows_of(9))  # it recovers
    lose()
    encoder.ask(*few[1:], rows_of(*[9] * 20))  # a call counts once, however many texts it holds
    assert ended == []
    encoder.ask(rows_of(9))
    assert ended == [1]
    assert encoder.warnings == ["GPU 0 is lost: 4 calls in a row have failed; starting anew"]


def test_a_gpu_without_memory_for_anything_is_given_up_later(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[int] = []
    monkeypatch.setattr("os._exit", ended.append)
    monkeypatch.setattr(encoder_threads, "PAUSE_S", 0.001)
    limited(encoder, monkeypatch, 0)
    encoder.ask(*[rows_of(9)] * (encoder_threads.SHORT_AFTER - 1))
    assert ended == []
    encoder.ask(rows_of(9))
    assert ended == [1]


def test_texts_that_fail_by_themselves_do_not_end_the_process(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[int] = []
    monkeypatch.setattr("os._exit", ended.append)
    unknown = [2, 10_000, 3]
    encoder.ask(*[[unknown]] * (2 * encoder_threads.LOST_AFTER), [unknown] * 20)
    assert ended == []


def test_a_process_without_a_gpu_goes_on_whatever_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[int] = []
    monkeypatch.setattr("os._exit", ended.append)
    monkeypatch.setenv(device.DEVICE, "cpu")
    encoder = Encoder(write_graph(tmp_path), cuda_config())
    encoder.ask([[2, 10_000, 3]] * 20)
    encoder.close()
    assert ended == []


def test_halved_groups_are_counted_beside_the_padding_of_a_gpu_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: dict[str, float] = {}

    class MetricFamily:
        COUNTER = "counter"

        def __init__(self, name: str, **_: Any) -> None:
            self.name = name
            counted[name] = 0

        def Metric(self, labels: dict[str, str]) -> Any:
            return SimpleNamespace(increment=self._increment)

        def _increment(self, value: float) -> None:
            counted[self.name] += value

    on_the_cpu(monkeypatch)
    monkeypatch.setattr(encoder_threads.Padding, "EVERY_S", 0)
    module = SimpleNamespace(MetricFamily=MetricFamily)
    encoder_threads.Padding(module, "m", halves=False).close()
    assert set(counted) == {"tritonflare_encoder_tokens_total", "tritonflare_encoder_computed_tokens_total"}
    padding = encoder_threads.Padding(module, "m", halves=True)
    padding.read, padding.computed, padding.halved = 1, 2, 3
    padding.tell(threading.Lock())
    assert list(counted.values()) == [1, 2, 3]
    assert list(counted)[2] == "tritonflare_encoder_halved_groups_total"
    padding.tell(threading.Lock())
    assert list(counted.values()) == [1, 2, 3]


@pytest.mark.parametrize(
    ("problem", "short"),
    [
        (RuntimeError(OUT_OF_MEMORY), True),
        (RuntimeError("CUDA failure 2: out of memory ; GPU=0"), True),
        (RuntimeError("Available memory of 12 is smaller than requested bytes of 4096"), True),
        (RuntimeError("CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("CUBLAS failure 1: CUBLAS_STATUS_NOT_INITIALIZED"), True),
        (RuntimeError("CUDNN failure 4003: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"), True),
        (MemoryError(), True),
        (RuntimeError("CUDA failure 700: an illegal memory access was encountered"), False),
        (ValueError("indices element out of data bounds"), False),
    ],
)
def test_only_a_lack_of_memory_counts_as_one(encoder: Encoder, problem: Exception, short: bool) -> None:
    assert encoder.device.out_of_memory(problem) is short


@pytest.mark.parametrize(
    ("tokens", "said"),
    [(2048, ""), (300, "GPU 0 has memory for 4 texts of 64 tokens at once, not for 32.")],
)
def test_the_largest_group_is_computed_first_or_said_not_to_fit(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch, tokens: int, said: str
) -> None:
    runs = limited(encoder, monkeypatch, tokens)
    assert encoder.device.warm_up() == said
    assert runs[0] == (32, 64, False)
    assert runs[-1] == (*runs[-2][:2], False)  # twice, the second time as all later runs


def test_a_gpu_without_memory_for_a_single_text_cannot_be_used(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    limited(encoder, monkeypatch, 63)
    with pytest.raises(DeviceError, match=r"^GPU 0 has too little free memory for a text of 64 tokens\.$"):
        encoder.device.warm_up()


def test_a_graph_that_does_not_run_is_no_lack_of_memory(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(binding: Any, options: Any) -> None:
        raise RuntimeError("CUDA failure 209: no kernel image is available for execution ; file=/a/b")

    monkeypatch.setattr(encoder.device, "session", _with_run(encoder.device.session, broken))
    with pytest.raises(DeviceError, match=r"^GPU 0 cannot be used: CUDA failure 209: no kernel image is"):
        encoder.device.warm_up()
