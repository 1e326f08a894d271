"""``tritonflare doctor``: what it finds about the gateway's address."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
import trustme
from click.testing import CliRunner

from gateway.access.certificate import Certificate
from tritonflare.doctor import doctor


class _Handler(BaseHTTPRequestHandler):
    body = b'{"status":"alive"}'

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/livez" else 404)
        self.send_header("content-length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_: object) -> None:
        pass


class _Other(_Handler):
    body = b"It works!"


@contextmanager
def _answering(handler: type[_Handler], certificate: Certificate | None = None) -> Iterator[int]:
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        if certificate is not None:
            server.socket = certificate.context.wrap_socket(server.socket, server_side=True)
        thread = Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def _lines(monkeypatch: pytest.MonkeyPatch, **settings: object) -> str:
    for name, value in settings.items():
        monkeypatch.setenv(f"GATEWAY_{name}", str(value))
    return CliRunner().invoke(doctor).output


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "localhost"])
def test_a_port_at_which_a_tritonflare_answers_is_ok(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    with _answering(_Handler) as port:
        output = _lines(monkeypatch, HOST=host, PORT=port)
    assert f"ok      port: {host}:{port}, in use by a tritonflare\n" in output


def test_a_tritonflare_that_serves_https_is_recognised(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    issued = trustme.CA().issue_cert("gateway.example.com")
    issued.private_key_pem.write_to_path(key)
    issued.cert_chain_pems[0].write_to_path(certificate)
    with _answering(_Handler, Certificate(certificate, key)) as port:
        output = _lines(monkeypatch, PORT=port, TLS_CERTIFICATE=certificate, TLS_KEY=key)
    assert f"ok      port: 127.0.0.1:{port}, in use by a tritonflare\n" in output


def test_a_port_at_which_another_server_answers_is_not_free(monkeypatch: pytest.MonkeyPatch) -> None:
    with _answering(_Other) as port:
        output = _lines(monkeypatch, PORT=port)
    assert f"REMEDY  port: not free\n        Cannot listen on 127.0.0.1 port {port}: " in output


def test_a_port_at_which_nothing_answers_is_not_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tritonflare.doctor._LIVEZ_TIMEOUT_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        output = _lines(monkeypatch, PORT=taken.getsockname()[1])
    assert "REMEDY  port: not free\n" in output


@pytest.mark.parametrize(
    ("host", "heading"), [("unix:/run/tritonflare.sock", "settings"), ("192.0.2.1", "port")]
)
def test_an_address_that_cannot_be_used_is_not_valid(
    monkeypatch: pytest.MonkeyPatch, host: str, heading: str
) -> None:
    output = _lines(monkeypatch, HOST=host)
    assert f"REMEDY  {heading}: not valid\n" in output
    assert "not free" not in output


def test_the_grpc_port_is_checked_where_it_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "gRPC" not in _lines(monkeypatch, PORT=0)
    assert "ok      gRPC port: 127.0.0.1:0 is free\n" in _lines(monkeypatch, PORT=0, GRPC_PORT=0)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        output = _lines(monkeypatch, PORT=0, GRPC_PORT=port)
    assert f"REMEDY  gRPC port: not free\n        Cannot listen on 127.0.0.1 port {port}: " in output
    assert "Set GATEWAY_GRPC_PORT to a port that is free" in output


def test_a_grpc_port_beside_a_tritonflare_is_ok(monkeypatch: pytest.MonkeyPatch) -> None:
    with _answering(_Handler) as port, socket.create_server(("127.0.0.1", 0)) as taken:
        grpc_port = taken.getsockname()[1]
        output = _lines(monkeypatch, PORT=port, GRPC_PORT=grpc_port)
    assert "in use by a tritonflare\n" in output
    assert f"ok      gRPC port: 127.0.0.1:{grpc_port}, in use while a tritonflare runs\n" in output
