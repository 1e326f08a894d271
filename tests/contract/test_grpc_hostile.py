"""What must not stop the gRPC port: each attack has its status, and the next good call is answered."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.support.fake_triton import FakeTriton
from tests.support.grpc_calls import INFER, grpc_stubs
from tests.support.harness import TOKEN, Running, running_gateway, settings_for, until
from tests.support.http2 import Http2Peer, http2_peer, message

AUTH = (b"authorization", f"Bearer {TOKEN}".encode())
UNIMPLEMENTED = 12


@pytest.fixture
async def attacked(triton: FakeTriton) -> AsyncIterator[Running]:
    """A gateway that still answers at the end."""
    async with running_gateway(settings_for(triton, grpc_port=0, transfer_timeout_s=1)) as running:
        yield running
        async with grpc_stubs(running.grpc_port) as stubs:
            assert len((await stubs.infer("good")).outputs) == 4


async def ended(peer: Http2Peer, stream: int = 1) -> int | None:
    """Wait for the end of a stream; return its status."""

    async def over() -> bool:
        return peer.closed or peer.ended(stream)

    await until(over)
    return peer.status(stream)


@pytest.mark.parametrize("path", [b"/\xff\xfe", b"", b"/", b"/a\0b", b"/" + b"a" * 8000, INFER + b"\xc3"])
async def test_no_path_stops_the_server(attacked: Running, path: bytes) -> None:
    async with http2_peer(attacked.grpc_port) as peer:
        peer.call(1, path, [AUTH], message(b""))
        assert await ended(peer) == UNIMPLEMENTED
