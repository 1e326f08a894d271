"""A request that fails lets go of its text at once, without the garbage collector, which runs rarely."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType

import pytest

from gateway.domain.service import Predictor
from tests.support.failing import AUTH, FAILURES, FORMS, Form, failing
from tests.support.fake_triton import FakeTriton
from tests.support.harness import running_gateway, settings_for
from tests.support.inference_protocol import MODEL, request

TEXT = "word " * 20_000
INFER = {
    "one text": Form(f"{MODEL}/infer", AUTH, lambda text: request(text)),
    "two texts": Form(f"{MODEL}/infer", AUTH, lambda text: request(text, "short")),
}
"""The forms of the Open Inference Protocol."""


@contextmanager
def without_collector() -> Iterator[list[object]]:
    """Collect nothing in the block, and what could not be freed without at its end."""
    garbage: list[object] = []
    gc.collect()
    gc.disable()
    try:
        yield garbage
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        garbage += gc.garbage
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


def frames_of(garbage: list[object]) -> list[str]:
    """The gateway's functions among it."""
    frames = [found for found in garbage if isinstance(found, FrameType)]
    return [f"{frame.f_code.co_filename}:{frame.f_code.co_name}" for frame in frames if _is_ours(frame)]


def _is_ours(frame: FrameType) -> bool:
    return "/gateway/" in frame.f_code.co_filename and "/tests/" not in frame.f_code.co_filename


def texts_in(garbage: list[object]) -> list[str]:
    """What of it holds a long text."""
    return [
        f"{type(found)} {found!r:.200}"
        for found in garbage
        for held in gc.get_referents(found)
        if isinstance(held, (str, bytes, bytearray)) and len(held) > len(TEXT) // 2
    ]


async def check_failure(name: str, forms: Mapping[str, Form], triton: FakeTriton) -> None:
    """Let requests of each form fail twice; no cycle may hold a text or a frame."""
    failure = FAILURES[name]
    async with (
        running_gateway(settings_for(triton, **failure.settings)) as running,
        failing(failure, running.client, triton),
    ):
        for form in forms.values():
            with without_collector() as garbage:
                for _ in range(2):
                    assert await failure.send(running.client, form, TEXT) == failure.status
                await asyncio.sleep(0.02)
            assert not frames_of(garbage), "\n".join(frames_of(garbage))
            assert texts_in(garbage) == []


@pytest.mark.parametrize("name", FAILURES)
async def test_no_failure_leaves_a_cycle_that_holds_a_text_or_a_frame(name: str, triton: FakeTriton) -> None:
    await check_failure(name, FORMS, triton)


@pytest.mark.parametrize("name", [name for name in FAILURES if name != "400, no text"])
async def test_no_failure_of_an_inference_leaves_a_cycle(name: str, triton: FakeTriton) -> None:
    await check_failure(name, INFER, triton)


async def test_refused_inferences_leave_no_cycle(triton: FakeTriton) -> None:
    wrong = [
        request(TEXT, 7),
        request([[TEXT]]),
        request(TEXT, id=7),
        request(TEXT, outputs=[{"name": TEXT}]),
        {"inputs": [{"name": "TEXT", "shape": [2], "datatype": "BYTES", "data": [TEXT]}]},
    ]
    async with running_gateway(settings_for(triton)) as running:
        with without_collector() as garbage:
            for body in wrong:
                answer = await running.client.run(body, path=f"{MODEL}/infer")
                assert answer.status == 400
                answer = await running.client.run(request(TEXT), path=f"/v2/models/{TEXT[:4]}/infer")
                assert answer.status == 404
            del answer
            await asyncio.sleep(0.02)
        assert not frames_of(garbage), "\n".join(frames_of(garbage))
        assert texts_in(garbage) == []


@pytest.mark.parametrize("cache_bytes", [0, 1_000_000], ids=["coalesced", "cached"])
async def test_no_failure_that_requests_share_leaves_a_cycle(triton: FakeTriton, cache_bytes: int) -> None:
    settings = settings_for(triton, cache_bytes=cache_bytes, call_slots=1)
    async with running_gateway(settings) as running:
        for name in ("503", "500, the model fails", "408, inference"):
            async with failing(FAILURES[name], running.client, triton):
                with without_collector() as garbage:
                    sent = [
                        FAILURES[name].send(running.client, form, TEXT)
                        for form in FORMS.values()
                        for _ in "ab"
                    ]
                    await asyncio.gather(*sent)
                    await asyncio.sleep(0.02)
                assert not frames_of(garbage), "\n".join(frames_of(garbage))
                assert texts_in(garbage) == []


async def test_a_defect_leaves_no_cycle(triton: FakeTriton, monkeypatch: pytest.MonkeyPatch) -> None:
    async def classify(*_: object) -> None:
        error = RuntimeError("a defect")
        raise error  # which this frame holds

    monkeypatch.setattr(Predictor, "answer", classify)
    monkeypatch.setattr(Predictor, "answer_all", classify)
    async with running_gateway(settings_for(triton)) as running:
        for form in FORMS.values():
            with without_collector() as garbage:
                answer = await running.client.send("POST", form.path, form.body(TEXT), form.headers)
                assert answer.status == 500
                del answer
                await asyncio.sleep(0.02)
            assert not frames_of(garbage), "\n".join(frames_of(garbage))
            assert texts_in(garbage) == []
