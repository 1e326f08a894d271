"""``tritonflare serve``: Triton and the gateway on this machine, as one program."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click
import uvloop
from pydantic import SecretStr

from tritonflare.gateway import given, workers_option
from tritonflare.paths import REPOSITORY, TOKENS, runnable
from tritonflare.token import remember

if TYPE_CHECKING:
    from embedded.supervisor import TritonSupervisor
    from gateway.settings import Settings

_log = logging.getLogger("tritonflare.serve")
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
DOCUMENTED = "@cf/huggingface/distilbert-sst-2-int8"
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
@click.option(
    "--triton-port", type=int, default=0, help="Loopback gRPC port of the first Triton; 0 takes a free one."
)
@click.option("--watch", is_flag=True, help="Serve a new version as soon as it is published.")
@workers_option
def serve(
    host: str | None,
    port: int | None,
    repository: Path,
    triton_port: int,
    watch: bool,
    workers: int | None,
) -> None:
    """Run the real tritonserver and the gateway here; Ctrl-C stops both.

    Triton listens on loopback only, gRPC only, behind a key that is made at each start. When it
    dies or hangs it is started anew. With --watch, or on SIGHUP, a version that was published
    meanwhile is served by a second Triton, which takes the place of the first.
    Without GATEWAY_API_TOKENS or GATEWAY_TOKENS_FILE a token is made once, printed, and
    kept as a hash in .state/tokens, which is read again when it changes.
    """
    from embedded.errors import EmbeddedError
    from embedded.supervisor import TritonSupervisor
    from gateway.access.credentials import check_tokens
    from gateway.main import bind_for
    from gateway.settings import load_settings
    from gateway.telemetry.logs import configure_logging

    settings = load_settings(**given(host=host, port=port, workers=workers))
    _require_own_triton(settings)
    configure_logging(settings.log_level, settings.log_format)
    token, settings = _with_token(settings)
    # Tokens and port first: what is wrong with them is said before Triton takes seconds to load.
    if token is None:
        check_tokens(settings)
    listening = bind_for(settings)
    try:
        with _interruptible():
            _log.info("starting Triton")
            with TritonSupervisor(
                repository, triton_port, watch=watch, otlp_endpoint=settings.otlp_endpoint
            ) as supervisor:
                try:
                    failed = uvloop.run(_serve(settings, supervisor, listening, token))
                finally:
                    _ignore_signals()  # the loop has given them back, and Triton still has to be stopped
    except EmbeddedError as error:
        click.echo(f"tritonflare: {runnable(str(error))}", err=True)
        sys.exit(2)
    finally:
        listening.close()
    _log.info("stopped")
    if failed:
        click.echo("tritonflare: Triton is not looked after any more; see the log above.", err=True)
        sys.exit(1)


def _require_own_triton(settings: Settings) -> None:
    """Refuse settings that are about a Triton elsewhere, which would do nothing here."""
    from gateway.settings import ConfigurationError

    for field in ("triton_url", "triton_metadata_key"):
        if getattr(settings, field) != type(settings).model_fields[field].default:
            raise ConfigurationError(
                f"GATEWAY_{field.upper()} is about a Triton that runs elsewhere, and `tritonflare serve` "
                "runs its own; unset it, or run `tritonflare gateway`."
            )


def _with_token(settings: Settings) -> tuple[str | None, Settings]:
    """The settings with a token to use: the configured ones, those made earlier, or a new one.

    A new one is written down only when it is shown: a start that fails must not lose it. The file counts
    from then on, in this run too, so that the token can be revoked.
    """
    from gateway.access.tokens import new_token

    if settings.api_tokens is not None or settings.tokens_file is not None:
        return None, settings
    token = None if os.path.isfile(TOKENS) else new_token()  # unlike Path's, never an error
    return token, settings.model_copy(update={"tokens_file": TOKENS})


@contextmanager
def _interruptible() -> Iterator[None]:
    """Until the gateway takes the signals over, each of them unwinds the stack, once.

    Python's default would end the process on the spot and leave Triton's scratch files behind; a
    second signal would interrupt the clean-up, which is bounded anyway.
    """

    def unwind(number: int, frame: object) -> None:
        _ignore_signals()
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, unwind) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _ignore_signals() -> None:
    # Not SIG_IGN: with a signal on its way, Python would print a traceback about the race.
    for number in _SIGNALS:
        signal.signal(number, lambda _number, _frame: None)


async def _serve(
    settings: Settings, supervisor: TritonSupervisor, listening: socket.socket, token: str | None
) -> bool:
    """Run the gateway until a signal comes; tell whether the supervisor has failed."""
    from embedded.server import RESTRICTED_KEY
    from embedded.supervisor import Reports
    from gateway.access.tokens import load_tokens
    from gateway.main import serve as serve_gateway
    from gateway.processes.upstream import Upstream

    loop = asyncio.get_running_loop()
    stop, failed, upstream = asyncio.Event(), asyncio.Event(), Upstream()

    def fail() -> None:
        failed.set()
        stop.set()

    def started(url: str) -> None:
        known = _how_to_get_another(settings) if token is None else _kept(token)
        click.echo(_greeting(url, _shown_model(supervisor), known))

    def tell(call: Callable[..., object], *values: object) -> None:
        with suppress(RuntimeError):  # the loop has ended: nobody has to know any more
            loop.call_soon_threadsafe(call, *values)

    private = settings.model_copy(
        update={
            "triton_url": supervisor.address,
            "triton_metadata_key": SecretStr(f"{RESTRICTED_KEY}={supervisor.secret}"),
        }
    )
    supervisor.report_to(
        Reports(
            restarted=lambda reason: tell(upstream.restarted, reason),
            move=lambda address: asyncio.run_coroutine_threadsafe(upstream.move(address), loop),
            failed=lambda: tell(fail),
        )
    )
    had_terminal = _has_terminal()

    def hang_up() -> None:
        # The same signal says that the terminal is gone, and that there is something new to serve.
        if had_terminal and not _has_terminal():
            stop.set()
        else:
            supervisor.reload()

    loop.add_signal_handler(signal.SIGHUP, hang_up)
    await serve_gateway(
        private,
        sockets=[listening],
        on_started=started,
        stop=stop,
        upstream=upstream,
        tokens=None if token is None else load_tokens(f"*:{token}", None),
    )
    return failed.is_set()


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True


def _shown_model(triton: TritonSupervisor) -> str:
    """The documented model if it is served, else the first."""
    names = [model.name for model in triton.models]
    return DOCUMENTED if DOCUMENTED in names else names[0]


def _kept(token: str) -> str:
    """Write the hash of a new token down; return what to say of it."""
    try:
        remember(TOKENS, "*", token)
    except OSError as error:
        _log.warning("%s cannot be written (%s): the new token is not kept", TOKENS, error.strerror)
        said = (
            f"The token is not kept: {TOKENS} cannot be written ({error.strerror}). It is good until this "
            "server ends or that file is made. To have one that stays, set GATEWAY_API_TOKENS=*:token."
        )
    else:
        said = f"The token is shown this once; only its hash is kept, in {TOKENS}. {_another()}"
    return f"export TOKEN={token}\n\n{said}"


def _how_to_get_another(settings: Settings) -> str:
    """What to say to those who should have a token already."""
    use = "Use your API token for $TOKEN."
    if settings.tokens_file is None:
        return f"{use} The tokens are those of GATEWAY_API_TOKENS."
    return f"{use} {_another('' if settings.tokens_file == TOKENS else f' --file {settings.tokens_file}')}"


def _another(options: str = "") -> str:
    return (
        f"Lost it? `{sys.argv[0]} token create{options}`, run in this folder, makes another; "
        "this server knows it about a second later."
    )


def _greeting(url: str, model: str, known: str) -> str:
    """What a newcomer pastes next; ``known`` says how to get at a token."""
    return f"""
Ready: {url}/client/v4

{known}

curl {url}/client/v4/accounts/{_ACCOUNT}/ai/run/{model} \\
  -H "Authorization: Bearer $TOKEN" \\
  -d '{{ "text": "This pizza is great!" }}'
"""
