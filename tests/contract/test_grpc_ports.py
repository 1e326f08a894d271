"""The port of gRPC: numbers, addresses, TLS, several workers."""

from __future__ import annotations

import asyncio
import re
import signal
import socket
from pathlib import Path

import grpc
import psutil
import pytest
import trustme

from gateway.ports import Ports
from gateway.settings import ConfigurationError
from tests.contract.test_tls import write_pair
from tests.support.fake_triton import FakeTriton
from tests.support.grpc_calls import grpc_stubs
from tests.support.harness import running_gateway, settings_for, until
from tests.support.worker_processes import Supervised, supervised_gateway


async def works(
    port: int, credentials: grpc.ChannelCredentials | None = None, host: str = "localhost"
) -> bool:
    async with grpc_stubs(port, credentials, host) as stubs:
        return len((await stubs.infer("a")).outputs) == 4


async def test_without_a_port_there_is_no_grpc(triton: FakeTriton) -> None:
    async with running_gateway(settings_for(triton)) as running:
        assert running.grpc_port == 0


def test_a_port_in_use_is_named_and_the_other_one_is_released(triton: FakeTriton) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, socket.create_server(("127.0.0.1", 0)) as free:
        http, grpc_port = free.getsockname()[1], taken.getsockname()[1]
        free.close()
        with pytest.raises(ConfigurationError, match="GATEWAY_GRPC_PORT"):
            Ports.bind(settings_for(triton, port=http, grpc_port=grpc_port))
        socket.create_server(("127.0.0.1", http)).close()


async def test_a_second_gateway_cannot_share_the_port(triton: FakeTriton) -> None:
    async with running_gateway(settings_for(triton, grpc_port=0)) as running:
        with pytest.raises(ConfigurationError, match="GATEWAY_GRPC_PORT"):
            Ports.bind(settings_for(triton, grpc_port=running.grpc_port))


@pytest.mark.parametrize("host", ["::1", "localhost"])
async def test_other_hosts(triton: FakeTriton, host: str) -> None:
    settings = settings_for(triton, host=host, grpc_port=0)
    async with running_gateway(settings) as running:
        assert await works(running.grpc_port, host="[::1]" if host == "::1" else host)


async def test_tls_follows_the_files_of_the_certificate(triton: FakeTriton, tmp_path: Path) -> None:
    old, new = trustme.CA(), trustme.CA()

    def trusting(authority: trustme.CA) -> grpc.ChannelCredentials:
        return grpc.ssl_channel_credentials(authority.cert_pem.bytes())

    settings = settings_for(triton, grpc_port=0, **write_pair(old, tmp_path))
    async with running_gateway(settings) as running:
        assert await works(running.grpc_port, trusting(old))
        write_pair(new, tmp_path)

        async def renewed() -> bool:
            try:
                return await works(running.grpc_port, trusting(new))
            except grpc.aio.AioRpcError:
                return False

        await until(renewed, 20)
        with pytest.raises(grpc.aio.AioRpcError):
            await works(running.grpc_port)  # plain text


@pytest.mark.parametrize("sent", [b"", b"\x16\x03\x01\x02\x00\x01", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"])
async def test_a_tls_handshake_that_does_not_end_is_given_up(
    triton: FakeTriton, tmp_path: Path, sent: bytes
) -> None:
    authority = trustme.CA()
    settings = settings_for(triton, grpc_port=0, transfer_timeout_s=1, **write_pair(authority, tmp_path))
    async with running_gateway(settings) as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.grpc_port)
        writer.write(sent)
        assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()
        credentials = grpc.ssl_channel_credentials(authority.cert_pem.bytes())
        assert await works(running.grpc_port, credentials)


def port_of(running: Supervised) -> int:
    found = re.search(r"serving gRPC on 127\.0\.0\.1:(\d+)$", running.log.read_text(), re.MULTILINE)
    assert found, running.log.read_text()
    return int(found[1])


def listens(worker: psutil.Process, port: int) -> bool:
    return any(found.laddr.port == port for found in worker.net_connections() if found.status == "LISTEN")


async def test_workers_share_the_port_and_are_replaced(triton: FakeTriton, tmp_path: Path) -> None:
    async with supervised_gateway(triton, tmp_path, GATEWAY_GRPC_PORT="0") as running:
        port = port_of(running)
        assert all(listens(worker, port) for worker in running.workers)
        for _ in range(20):
            assert await works(port)
        killed = running.workers[0]
        killed.send_signal(signal.SIGKILL)

        async def replaced() -> bool:
            workers = running.workers
            return (
                len(workers) == 2 and killed not in workers and all(listens(found, port) for found in workers)
            )

        await until(replaced, 20)
        for _ in range(20):
            assert await works(port)
