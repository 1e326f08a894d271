"""Small messages that are costly to read are refused before they are read."""

from __future__ import annotations

import gzip
import time
from collections.abc import AsyncIterator

import grpc
import pytest

from gateway.domain.errors import BadInput
from gateway.inference_protocol.tensors import bytes_elements
from tests.support.fake_triton import FakeTriton
from tests.support.grpc_calls import AUTHORIZED, INFER, code, elements, grpc_stubs
from tests.support.harness import Running, running_gateway, settings_for

HALF_A_MEGABYTE = 520_000


@pytest.fixture
async def gateway(triton: FakeTriton) -> AsyncIterator[Running]:
    async with running_gateway(settings_for(triton, grpc_port=0)) as running:
        yield running


@pytest.mark.parametrize(
    "message",
    [
        gzip.compress(b"\x2a\x00" * HALF_A_MEGABYTE),
        gzip.compress(b"\x32\x00" * HALF_A_MEGABYTE),
        gzip.compress(b"".join(b"\x22\x04\x0a\x02%02d" % (number % 100) for number in range(170_000))),
    ],
    ids=["inputs", "outputs", "parameters"],
)
async def test_a_message_of_countless_parts_does_not_hold_up_others(gateway: Running, message: bytes) -> None:
    assert len(message) < 10_000
    async with grpc.aio.insecure_channel(f"127.0.0.1:{gateway.grpc_port}") as channel:
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(INFER.decode())
        began = time.monotonic()
        assert await code(call(message, metadata=AUTHORIZED)) in (
            grpc.StatusCode.INVALID_ARGUMENT,
            grpc.StatusCode.NOT_FOUND,
        )
    assert time.monotonic() - began < 0.5


async def test_texts_that_are_not_valid_count_in_the_rate(triton: FakeTriton) -> None:
    settings = settings_for(triton, grpc_port=0, requests_per_minute=100, max_batch_texts=100)
    async with running_gateway(settings) as running, grpc_stubs(running.grpc_port) as stubs:
        codes = [await code(stubs.infer("")) for _ in range(101)]
    assert codes[0] is grpc.StatusCode.INVALID_ARGUMENT
    assert codes[-1] is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_elements_are_counted_as_they_are_split() -> None:
    with pytest.raises(BadInput, match="more than"):
        bytes_elements("TEXT", elements(*[b""] * 70_000))
