"""nginx, HAProxy and Caddy as people configure them, in front of gateways."""

from __future__ import annotations

import os
import ssl
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import trustme

from tests.support.deploy.compose_triton import free_port
from tests.support.programs import required
from tests.support.servers import listens, wait_until

EXAMPLES = Path(__file__).parents[2] / "deploy" / "proxies"
_NGINX_MAIN = """
daemon off; master_process off; pid {folder}/pid; error_log {folder}/log warn;
events {{ worker_connections 256; }}
http {{
  access_log off;
  client_body_temp_path {folder}/bodies; proxy_temp_path {folder}/answers;
  fastcgi_temp_path {folder}; uwsgi_temp_path {folder}; scgi_temp_path {folder};
  {servers}
}}
"""
_NGINX = """
  upstream gateways {{ {servers} keepalive 32; }}
  server {{
    listen 127.0.0.1:{port};
    {resend}
    location / {{ proxy_pass http://gateways; proxy_http_version 1.1; proxy_set_header Connection ""; }}
  }}
"""
_HAPROXY = """
defaults
  mode http
  timeout connect 5s
  timeout client 30s
  timeout server 30s
  option redispatch 1
  {resend}
frontend callers
  bind 127.0.0.1:{port}
  default_backend gateways
backend gateways
  balance roundrobin
  {servers}
"""


_RESEND = {
    # A classification may be repeated, although it is a POST.
    "nginx": "proxy_next_upstream error timeout http_503 non_idempotent;",
    "haproxy": "retry-on conn-failure empty-response response-timeout 503",
}


@contextmanager
def running_proxy(name: str, gateways: Sequence[int], folder: Path, *, resend: bool = False) -> Iterator[int]:
    """Run ``nginx`` or ``haproxy`` before gateways at these ports; yields its own.

    Args:
        name: of the program.
        gateways: ports on loopback.
        folder: for its files.
        resend: send to the next gateway what one broke off or refused with 503, and never set one aside.
    """
    port = free_port()
    resending = _RESEND[name] if resend else ""
    if name == "nginx":
        set_aside = " max_fails=0" if resend else ""
        servers = " ".join(f"server 127.0.0.1:{gateway}{set_aside};" for gateway in gateways)
        command = _nginx(_NGINX.format(port=port, servers=servers, resend=resending), folder)
    else:
        program = required("haproxy", "needs haproxy (apt-get install haproxy)")
        servers = "\n  ".join(f"server s{gateway} 127.0.0.1:{gateway}" for gateway in gateways)
        configuration = folder / "haproxy.conf"
        configuration.write_text(_HAPROXY.format(port=port, servers=servers, resend=resending))
        command = [program, "-db", "-f", str(configuration)]
    with _running(command, port, folder):
        yield port


@contextmanager
def running_example(
    name: str, gateways: Sequence[int], folder: Path, *, grpc: Sequence[int] = ()
) -> Iterator[tuple[int, ssl.SSLContext]]:
    """Run the example of ``nginx`` or ``caddy`` before gateways at these ports.

    Only addresses, the host name (``localhost``) and the paths of the certificate are replaced. The
    certificate of its authority is ``folder / "authority.pem"``.

    Args:
        name: of the program.
        gateways: ports on loopback, for HTTP.
        folder: for its files.
        grpc: the gateways' ports for gRPC; without any, gRPC leads nowhere.

    Yields:
        Its port, and what a client needs to trust its certificate.
    """
    port = free_port()
    authority = trustme.CA()
    issued = authority.issue_cert("localhost")
    chain, key = folder / "chain.pem", folder / "key.pem"
    chain.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    key.write_bytes(issued.private_key_pem.bytes())
    authority.cert_pem.write_to_path(str(folder / "authority.pem"))
    replaced = {
        "/etc/ssl/tritonflare/fullchain.pem": str(chain),
        "/etc/ssl/tritonflare/privkey.pem": str(key),
    }
    addresses = [f"127.0.0.1:{gateway}" for gateway in gateways]
    # Nobody listens on port 1.
    grpc_addresses = [f"127.0.0.1:{gateway}" for gateway in grpc or [1]]
    if name == "nginx":
        replaced |= {
            "server 127.0.0.1:8787;": " ".join(f"server {address};" for address in addresses),
            "server 127.0.0.1:8001;": " ".join(f"server {address};" for address in grpc_addresses),
            "listen 443": f"listen 127.0.0.1:{port}",
            "listen [::]:443": f"listen unix:{folder}/https",
            "server_name ai.example.com": "server_name localhost",
        }
        command = _nginx(_replaced(EXAMPLES / "nginx.conf", replaced), folder)
    else:
        program = required("caddy", "needs caddy (apt-get install caddy)")
        replaced |= {
            "reverse_proxy 127.0.0.1:8787": f"reverse_proxy {' '.join(addresses)}",
            "h2c://127.0.0.1:8001": " ".join(f"h2c://{address}" for address in grpc_addresses),
            "https://ai.example.com:443": f"https://localhost:{port}",
            "admin 127.0.0.1:2019": f"admin 127.0.0.1:{free_port()}",
        }
        configuration = folder / "Caddyfile"
        configuration.write_text(_replaced(EXAMPLES / "Caddyfile", replaced))
        command = [program, "run", "--adapter", "caddyfile", "--config", str(configuration)]
    context = ssl.create_default_context()
    authority.configure_trust(context)
    with _running(command, port, folder):
        yield port, context


def _replaced(file: Path, replaced: Mapping[str, str]) -> str:
    text = file.read_text(encoding="utf-8")
    for old, new in replaced.items():
        assert text.count(old) == 1, f"{old} stands {text.count(old)} times in {file}"
        text = text.replace(old, new)
    return text


def _nginx(servers: str, folder: Path) -> list[str]:
    program = required("nginx", "needs nginx (apt-get install nginx-light)")
    configuration = folder / "nginx.conf"
    configuration.write_text(_NGINX_MAIN.format(folder=folder, servers=servers))
    return [program, "-e", f"{folder}/log", "-c", str(configuration)]


@contextmanager
def _running(command: Sequence[str], port: int, folder: Path) -> Iterator[None]:
    # Caddy saves its state there.
    environment = os.environ | {
        "HOME": str(folder),
        "XDG_DATA_HOME": str(folder),
        "XDG_CONFIG_HOME": str(folder),
    }
    with (folder / "output").open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment)
    try:
        assert wait_until(lambda: process.poll() is not None or listens(port), 20)
        assert process.poll() is None, (folder / "output").read_text()
        yield
    finally:
        process.terminate()
        process.wait(10)
