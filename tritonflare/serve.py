"""``tritonflare serve``: Triton and the gateway on this machine, as one program."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click
from pydantic import SecretStr

from tritonflare.gateway import given
from tritonflare.paths import REPOSITORY, TOKENS
from tritonflare.token import add_token

if TYPE_CHECKING:
    from embedded.server import TritonServer
    from gateway.settings import Settings

_log = logging.getLogger("tritonflare.serve")
_ACCOUNT = "0123456789abcdef0123456789abcdef"


@click.command()
@click.option("--host", help="Address to listen on [GATEWAY_HOST, default 127.0.0.1].")
@click.option("--port", type=int, help="Port to listen on [GATEWAY_PORT, default 8787].")
@click.option(
    "--repository",
    type=click.Path(path_type=Path),
    default=REPOSITORY,
    show_default=True,
    help="Model repository that `tritonflare export` wrote.",
)
@click.option("--triton-port", type=int, default=0, help="Loopback gRPC port of Triton; 0 takes a free one.")
def serve(host: str | None, port: int | None, repository: Path, triton_port: int) -> None:
    """Run the real tritonserver and the gateway here; Ctrl-C stops both.

    Triton listens on loopback only, gRPC only, behind a key that is made at each start.
    Without GATEWAY_API_TOKENS or GATEWAY_TOKENS_FILE a token is made once, printed, and
    kept as a hash in .state/tokens.
    """
    from embedded.errors import EmbeddedError
    from embedded.server import TritonServer
    from gateway.logs import configure_logging
    from gateway.main import bind
    from gateway.settings import load_settings

    settings = load_settings(**given(host=host, port=port))
    configure_logging(settings.log_level)
    listening = bind(settings.host, settings.port)  # a busy port is said before Triton takes seconds to load
    token, settings = _with_token(settings)
    try:
        _log.info("starting Triton")
        with _interruptible(), TritonServer(repository, triton_port) as triton:
            asyncio.run(_serve(settings, triton, listening, token))
            ended = triton.poll()
    except EmbeddedError as error:
        click.echo(f"tritonflare: {error}", err=True)
        sys.exit(2)
    finally:
        listening.close()
    if ended is not None:
        click.echo(f"tritonflare: Triton ended by itself (status {ended}); see the log above.", err=True)
        sys.exit(1)


def _with_token(settings: Settings) -> tuple[str | None, Settings]:
    """The settings with a token to use: the configured ones, those made earlier, or a new one."""
    if settings.api_tokens is not None or settings.tokens_file is not None:
        return None, settings
    token = None if TOKENS.is_file() else add_token(TOKENS, "*")
    return token, settings.model_copy(update={"tokens_file": TOKENS})


@contextmanager
def _interruptible() -> Iterator[None]:
    """Until the gateway takes the signals over, SIGTERM unwinds the stack as Ctrl-C does.

    Python's default would end the process on the spot and leave Triton's scratch files behind.
    """

    def unwind(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, unwind)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


async def _serve(
    settings: Settings, triton: TritonServer, listening: socket.socket, token: str | None
) -> None:
    """Run the gateway until a signal comes or Triton ends."""
    from embedded.server import RESTRICTED_KEY
    from gateway.main import serve as serve_gateway

    private = settings.model_copy(
        update={
            "triton_url": triton.address,
            "triton_metadata_key": SecretStr(f"{RESTRICTED_KEY}={triton.secret}"),
        }
    )
    stop = asyncio.Event()

    async def watch() -> None:
        while triton.poll() is None:
            await asyncio.sleep(0.2)
        _log.error("Triton has ended; stopping")
        stop.set()

    watcher = asyncio.create_task(watch())
    try:
        await serve_gateway(
            private,
            sockets=[listening],
            on_started=lambda url: click.echo(_greeting(url, triton.models[0].name, token)),
            stop=stop,
        )
    finally:
        watcher.cancel()
        with suppress(asyncio.CancelledError):
            await watcher


def _greeting(url: str, model: str, token: str | None) -> str:
    """What a newcomer pastes next."""
    if token is None:
        known = "Use your API token for $TOKEN (`tritonflare token create` makes another)."
    else:
        known = f"export TOKEN={token}\n\nThe token is shown this once; only its hash is kept, in {TOKENS}."
    return f"""
Ready: {url}/client/v4

{known}

curl {url}/client/v4/accounts/{_ACCOUNT}/ai/run/{model} \\
  -H "Authorization: Bearer $TOKEN" \\
  -d '{{ "text": "This pizza is great!" }}'
"""
