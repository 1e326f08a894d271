"""nginx and HAProxy as people configure them, in front of gateways."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.support.programs import required
from tests.support.servers import listens, wait_until

_NGINX = """
daemon off; master_process off; pid {folder}/pid; error_log {folder}/log;
events {{ worker_connections 256; }}
http {{
  access_log off;
  client_body_temp_path {folder}; proxy_temp_path {folder};
  fastcgi_temp_path {folder}; uwsgi_temp_path {folder}; scgi_temp_path {folder};
  upstream gateways {{ {servers} keepalive 32; }}
  server {{
    listen 127.0.0.1:{port};
    {resend}
    location / {{ proxy_pass http://gateways; proxy_http_version 1.1; proxy_set_header Connection ""; }}
  }}
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
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    configuration = folder / f"{name}.conf"
    if name == "nginx":
        program = required("nginx", "needs nginx (apt-get install nginx-light)")
        set_aside = " max_fails=0" if resend else ""
        servers = " ".join(f"server 127.0.0.1:{gateway}{set_aside};" for gateway in gateways)
        values = {"folder": folder, "port": port, "servers": servers}
        configuration.write_text(_NGINX.format(**values, resend=_RESEND[name] if resend else ""))
        command = [program, "-e", f"{folder}/log", "-c", str(configuration)]
    else:
        program = required("haproxy", "needs haproxy (apt-get install haproxy)")
        servers = "\n  ".join(f"server s{gateway} 127.0.0.1:{gateway}" for gateway in gateways)
        values = {"port": port, "servers": servers}
        configuration.write_text(_HAPROXY.format(**values, resend=_RESEND[name] if resend else ""))
        command = [program, "-db", "-f", str(configuration)]
    with (folder / "output").open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        assert wait_until(lambda: process.poll() is not None or listens(port), 20)
        assert process.poll() is None, (folder / "output").read_text()
        yield port
    finally:
        process.terminate()
        process.wait(10)
