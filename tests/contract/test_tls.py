"""HTTPS: what is spoken, what is refused, a certificate that changes."""

from __future__ import annotations

import asyncio
import signal
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme

from gateway.access.certificate import Certificate
from gateway.access.credentials import check_certificate
from gateway.main import serve
from gateway.ports import Ports
from gateway.settings import ConfigurationError, Settings
from tests.contract.test_protocol import post
from tests.support.fake_triton import FakeTriton, hold
from tests.support.harness import RUN, TOKEN, running_gateway, settings_for, until
from tests.support.worker_processes import supervised_gateway

HEADERS = {"Authorization": f"Bearer {TOKEN}"}
GOOD = {"text": "a"}


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def write_pair(authority: trustme.CA, folder: Path, name: str = "localhost") -> dict[str, Path]:
    """A certificate for ``name`` and its key, as settings."""
    issued = authority.issue_cert(name)
    chain, key = folder / "chain.pem", folder / "key.pem"
    chain.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    key.write_bytes(issued.private_key_pem.bytes())
    return {"tls_certificate": chain, "tls_key": key}


def client_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


async def handshake(port: int, context: ssl.SSLContext) -> Any:
    """The certificate that the gateway shows, and the version of TLS."""
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="localhost")
    try:
        shown = writer.get_extra_info("ssl_object")
        return shown.getpeercert(binary_form=True), shown.version(), shown.selected_alpn_protocol()
    finally:
        writer.close()


async def test_requests_over_tls_are_answered_on_one_connection(
    triton: FakeTriton, authority: trustme.CA, tmp_path: Path
) -> None:
    async with running_gateway(settings_for(triton, **write_pair(authority, tmp_path))) as running:
        base = f"https://localhost:{running.client.port}"
        async with httpx.AsyncClient(
            base_url=base, headers=HEADERS, verify=client_context(authority)
        ) as client:
            for _ in range(3):
                assert (await client.post(RUN, json=GOOD)).status_code == 200
            large = await client.post(RUN, json={"text": "word " * 50_000})
            assert (large.status_code, large.headers["x-truncated"]) == (200, "true")
            refused = await client.post(RUN, content=b"x" * 2_000_000)
            assert refused.status_code == 413


async def test_the_printed_address_is_https(
    triton: FakeTriton, authority: trustme.CA, tmp_path: Path
) -> None:
    said: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    stop = asyncio.Event()
    settings = settings_for(triton, **write_pair(authority, tmp_path))
    task = asyncio.create_task(serve(settings, on_started=said.set_result, stop=stop))
    assert (await said).startswith("https://127.0.0.1:")
    stop.set()
    await task


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_tls_1_2_and_1_3_are_spoken(
    triton: FakeTriton, authority: trustme.CA, tmp_path: Path, version: ssl.TLSVersion
) -> None:
    async with running_gateway(settings_for(triton, **write_pair(authority, tmp_path))) as running:
        context = client_context(authority)
        context.minimum_version = context.maximum_version = version
        context.set_alpn_protocols(["h2", "http/1.1"])
        _, spoken, protocol = await handshake(running.client.port, context)
        assert (spoken, protocol) == (version.name.replace("_", "."), "http/1.1")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_only_foreign_protocols_get_the_alert_and_none_is_served(
    triton: FakeTriton, authority: trustme.CA, tmp_path: Path, version: ssl.TLSVersion
) -> None:
    async with running_gateway(settings_for(triton, **write_pair(authority, tmp_path))) as running:

        async def spoken(*offered: str) -> Any:
            context = client_context(authority)
            context.minimum_version = context.maximum_version = version
            if offered:
                context.set_alpn_protocols(list(offered))
            return (await handshake(running.client.port, context))[2]

        for foreign in (["h2"], ["h2", "http/1.0"], ["x" * 250] * 200):  # the last in several pieces
            with pytest.raises(ssl.SSLError, match=r"(?i)no.application.protocol"):
                await spoken(*foreign)
        assert await spoken() is None
        assert await spoken("x" * 250, "http/1.1") == "http/1.1"


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
async def test_tls_1_1_and_plain_text_are_refused_and_others_still_served(
    triton: FakeTriton, authority: trustme.CA, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running_gateway(settings_for(triton, **write_pair(authority, tmp_path))) as running:
        old = client_context(authority)
        old.minimum_version = ssl.TLSVersion.TLSv1
        old.maximum_version = ssl.TLSVersion.TLSv1_1
        old.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await handshake(running.client.port, old)
        reader, writer = await asyncio.open_connection("127.0.0.1", running.client.port)
        writer.write(b"GET /livez HTTP/1.1\r\nHost: private\r\n\r\n")
        assert b"HTTP/1.1" not in await asyncio.wait_for(reader.read(), 5)
        writer.close()
        await handshake(running.client.port, client_context(authority))
    assert "private" not in caplog.text
    assert "Traceback" not in caplog.text


async def test_a_handshake_that_does_not_end_is_cut_off(
    triton: FakeTriton, authority: trustme.CA, tmp_path: Path
) -> None:
    settings = settings_for(triton, transfer_timeout_s=0.5, **write_pair(authority, tmp_path))
    async with running_gateway(settings) as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.client.port)
        writer.write(b"\x16\x03\x01\x02\x00")
        assert await asyncio.wait_for(reader.read(), 3) == b""
        writer.close()


async def test_a_new_certificate_is_shown_without_a_restart_and_a_wrong_one_never(
    triton: FakeTriton, authority: trustme.CA, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pair = write_pair(authority, tmp_path)
    async with running_gateway(settings_for(triton, **pair)) as running:
        context = client_context(authority)

        async def shown() -> Any:
            return (await handshake(running.client.port, context))[0]

        first = await shown()
        pair["tls_key"].write_bytes(authority.issue_cert("localhost").private_key_pem.bytes())

        async def complained() -> bool:
            return "the key does not match the certificate" in caplog.text

        await until(complained)
        assert await shown() == first
        write_pair(authority, tmp_path)

        async def exchanged() -> bool:
            return bool(await shown() != first)

        await until(exchanged)


class KeyThatChanges(type(Path())):  # type: ignore[misc]  # what Path() makes differs by platform
    """A path to a key that somebody exchanges just before its n-th use."""

    uses_left: int
    exchange: Callable[[], object]

    def __fspath__(self) -> str:
        self.uses_left -= 1
        if self.uses_left == 0:
            self.exchange()
        return str(self)


@pytest.mark.parametrize("use", [1, 2, 3, 4])
async def test_a_pair_that_is_exchanged_while_it_is_read_leaves_a_whole_one_in_use(
    authority: trustme.CA, tmp_path: Path, use: int
) -> None:
    pair = write_pair(authority, tmp_path)
    other = authority.issue_cert("localhost").private_key_pem.bytes()
    key = KeyThatChanges(pair["tls_key"])
    key.uses_left, key.exchange = 0, lambda: pair["tls_key"].write_bytes(other)
    certificate = Certificate(pair["tls_certificate"], key)
    server = await asyncio.start_server(
        lambda _reader, writer: writer.close(), "127.0.0.1", 0, ssl=certificate.context
    )
    async with server:

        async def shown() -> Any:
            return (await handshake(server.sockets[0].getsockname()[1], client_context(authority)))[0]

        first = await shown()
        write_pair(authority, tmp_path)
        key.uses_left = use
        with suppress(ConfigurationError):
            certificate.read_again()
        kept = await shown()
        assert kept == first or use > 2  # one reading uses the key twice
        write_pair(authority, tmp_path)
        key.uses_left = 0
        certificate.read_again()
        assert await shown() not in (first, kept)


class SlowClient:
    """Makes a TLS handshake in as many steps as a test wants."""

    def __init__(self, context: ssl.SSLContext, reader: asyncio.StreamReader, writer: asyncio.StreamWriter):
        self.reader, self.writer = reader, writer
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, server_hostname="localhost")

    @classmethod
    async def greet(cls, port: int, context: ssl.SSLContext) -> SlowClient:
        """Connect, say hello, and wait until that is answered."""
        client = cls(context, *await asyncio.open_connection("127.0.0.1", port))
        with pytest.raises(ssl.SSLWantReadError):
            client._tls.do_handshake()
        client.writer.write(client._out.read())
        client._in.write(await client.reader.read(65536))
        return client

    async def ask(self, request: bytes) -> bytes:
        """Finish the handshake, send a request, and return all that comes until the end."""
        answer = b""
        while True:
            try:
                if not answer:
                    self._tls.do_handshake()
                    self._tls.write(request)
                    request = b""
                while piece := self._tls.read(65536):
                    answer += piece
                self.writer.close()
                return answer
            except ssl.SSLWantReadError:
                pass
            self.writer.write(self._out.read())
            came = await asyncio.wait_for(self.reader.read(65536), 5)
            if not came:
                self.writer.close()
                return answer
            self._in.write(came)


async def test_a_handshake_that_is_under_way_at_the_end_is_finished_and_answered(
    triton: FakeTriton, authority: trustme.CA, tmp_path: Path
) -> None:
    pair = {f"GATEWAY_{name.upper()}": str(file) for name, file in write_pair(authority, tmp_path).items()}
    async with supervised_gateway(triton, tmp_path, GATEWAY_TRANSFER_TIMEOUT_S="2", **pair) as running:
        context = client_context(authority)
        answered = await SlowClient.greet(running.port, context)
        others = [await SlowClient.greet(running.port, context) for _ in range(3)]
        began = asyncio.get_running_loop().time()
        running.process.send_signal(signal.SIGTERM)
        await asyncio.sleep(0.3)
        head, _, body = (await answered.ask(post())).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 "), head
        assert b"\r\nconnection: close" in head.lower()
        assert b"POSITIVE" in body
        for other in others:
            assert await asyncio.wait_for(other.reader.read(), 5) == b""  # and no reset
            other.writer.close()
        assert await asyncio.to_thread(running.process.wait, 10) == 0
        assert asyncio.get_running_loop().time() - began < 5


async def test_one_that_ends_during_the_drain_does_not_hold_it_up(
    triton: FakeTriton, authority: trustme.CA, tmp_path: Path
) -> None:
    """The connection was accepted before the end began, and entered the limiter after."""
    settings = settings_for(triton, drain_timeout_s=30, **write_pair(authority, tmp_path))
    async with running_gateway(settings) as running:
        context, release = client_context(authority), asyncio.Event()
        triton.infer_fault = hold(release)
        late = await SlowClient.greet(running.client.port, context)
        busy = asyncio.create_task((await SlowClient.greet(running.client.port, context)).ask(post()))

        async def inferring() -> bool:
            return triton.running > 0

        await until(inferring)
        running.stop.set()
        await asyncio.sleep(0.2)
        asking = asyncio.create_task(late.ask(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"))
        head = await asyncio.wait_for(asking, 5)
        assert head.startswith(b"HTTP/1.1 200 ")
        assert b"connection: close" in head.lower()
        release.set()
        assert (await busy).startswith(b"HTTP/1.1 200 ")
        await asyncio.wait_for(asyncio.shield(running.task), 5)


def _settings(**given: object) -> Settings:
    return Settings(api_tokens="a:b", **given)  # type: ignore[arg-type]


def test_files_that_make_no_tls_are_one_clear_sentence_each(authority: trustme.CA, tmp_path: Path) -> None:
    pair = write_pair(authority, tmp_path)
    other = tmp_path / "other.pem"
    other.write_bytes(authority.issue_cert("localhost").private_key_pem.bytes())
    text = tmp_path / "text.pem"
    text.write_text("no certificate")
    from cryptography.hazmat.primitives import serialization

    key = serialization.load_pem_private_key(pair["tls_key"].read_bytes(), None)
    locked = tmp_path / "locked.pem"
    locked.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    for changed, sentence in (
        ({"tls_key": other}, "the key does not match the certificate"),
        ({"tls_certificate": text}, "one is not PEM"),
        ({"tls_key": tmp_path / "none"}, "cannot be read: No such file or directory"),
        ({"tls_key": locked}, "is encrypted"),
    ):
        with pytest.raises(ConfigurationError, match=sentence):
            check_certificate(_settings(**(pair | changed)))
    assert check_certificate(_settings(**pair)) is not None


async def test_what_is_wrong_with_the_certificate_is_reported_at_start(
    triton: FakeTriton, tmp_path: Path
) -> None:
    missing = tmp_path / "none"
    settings = settings_for(triton, tls_certificate=missing, tls_key=missing)
    with socket.socket() as sock, pytest.raises(ConfigurationError, match="GATEWAY_TLS_CERTIFICATE"):
        await serve(settings, ports=Ports(sock), stop=asyncio.Event())
