"""``tritonflare serve``: Triton and the gateway on this machine, as one program."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click
import uvloop
from pydantic import SecretStr

from tritonflare.device import device_option, warn_of_cpu
from tritonflare.gateway import given, grpc_port_option, workers_option
from tritonflare.paths import ARTEFACTS, BATCHES, REPOSITORY, TOKENS, runnable
from tritonflare.token import store_token

if TYPE_CHECKING:
    from embedded.repository import RepositoryModel
    from embedded.supervisor import TritonSupervisor
    from gateway.ports import Ports
    from gateway.settings import Settings

_log = logging.getLogger("tritonflare.serve")
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
DOCUMENTED = "@cf/huggingface/distilbert-sst-2-int8"
_ACCOUNT = "0123456789abcdef0123456789abcdef"
_EXAMPLE_TEXT = '{ "text": "This pizza is great!" }'
_EXAMPLE_RANKING = (
    '{ "query": "Who bakes pizza?", '
    '"contexts": [{ "text": "The sea is calm." }, { "text": "Cooks bake pizza." }] }'
)


@click.command()
@click.option("--host", help="Address to listen on [GATEWAY_HOST, default 127.0.0.1].")
@click.option("--port", type=int, help="Port to listen on [GATEWAY_PORT, default 8787].")
@grpc_port_option
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
@device_option
@click.option("--watch", is_flag=True, help="Serve a new version as soon as it is published.")
@workers_option
def serve(
    host: str | None,
    port: int | None,
    grpc_port: int | None,
    repository: Path,
    triton_port: int,
    device: str,
    watch: bool,
    workers: int | None,
) -> None:
    """Run the real tritonserver and the gateway here; Ctrl-C stops both.

    Triton listens on loopback only, gRPC only, behind a key that is generated at each start. It is
    restarted when it crashes or hangs. With --watch, or on SIGHUP, a version that was published
    meanwhile is served by a second Triton, which takes over from the first.
    A model that was exported with --target cuda computes on this machine's NVIDIA GPU, or nothing starts.
    Without GATEWAY_API_TOKENS or GATEWAY_TOKENS_FILE a token is created once, printed, and
    stored as a hash in .state/tokens, which is read again when it changes.
    """
    from embedded.errors import EmbeddedError
    from embedded.supervisor import TritonSupervisor
    from gateway.access.credentials import check_tokens
    from gateway.ports import Ports
    from gateway.settings import load_settings
    from gateway.telemetry.logs import configure_logging

    settings = load_settings(**given(host=host, port=port, grpc_port=grpc_port, workers=workers))
    _require_own_triton(settings)
    configure_logging(settings.log_level, settings.log_format)
    token, settings = _with_token(_with_reports(_with_batches(settings)))
    # Tokens and port first: their errors are reported before Triton takes seconds to load.
    if token is None:
        check_tokens(settings)
    ports = Ports.bind(settings)
    try:
        with _interruptible():
            _log.info("starting Triton")
            with TritonSupervisor(
                repository,
                triton_port,
                watch=watch,
                otlp_endpoint=settings.otlp_endpoint,
                device=device,
            ) as supervisor:
                warn_of_cpu(supervisor)
                try:
                    failed = uvloop.run(_serve(settings, supervisor, ports, token))
                finally:
                    _ignore_signals()  # the loop has restored them, and Triton still has to be stopped
    except EmbeddedError as error:
        click.echo(f"tritonflare: {runnable(str(error))}", err=True)
        sys.exit(2)
    finally:
        ports.close()
    _log.info("stopped")
    if failed:
        click.echo("tritonflare: the supervisor of Triton has failed; see the log above.", err=True)
        sys.exit(1)


def _require_own_triton(settings: Settings) -> None:
    """Refuse settings for a Triton that runs elsewhere, which would have no effect here."""
    from gateway.settings import ConfigurationError

    for field in ("triton_url", "triton_metadata_key"):
        if getattr(settings, field) != type(settings).model_fields[field].default:
            raise ConfigurationError(
                f"GATEWAY_{field.upper()} is for a Triton that runs elsewhere, and `tritonflare serve` "
                "runs its own; unset it, or run `tritonflare gateway`."
            )


def _with_batches(settings: Settings) -> Settings:
    """Return the settings with a place for queued batches; the folder is made when one arrives."""
    if settings.keeps_batches:
        return settings
    try:
        settings.check_batch_sizes()
    except ValueError as error:
        # Nobody has asked for batches: a gateway with these settings has always started.
        _log.warning("queueRequest is answered at once: %s", error)
        return settings
    above = next(folder for folder in (BATCHES, *BATCHES.absolute().parents) if folder.exists())
    if not os.access(above, os.W_OK | os.X_OK):
        # As in a container with a read-only root; what is asked for can still be answered.
        _log.warning("the folder for queued batches cannot be written: queueRequest is answered at once")
        return settings
    return settings.model_copy(update={"batch_folder": BATCHES})


def _with_reports(settings: Settings) -> Settings:
    """Return the settings with the place where `tritonflare export` puts reports."""
    if settings.reports_folder is not None:
        return settings
    return settings.model_copy(update={"reports_folder": ARTEFACTS})


def _with_token(settings: Settings) -> tuple[str | None, Settings]:
    """Return a new token if one is needed, and the settings with the file that holds its hash.

    A new token is stored only when it is shown: a start that fails must not lose it. The file counts
    from then on, in this run too, so that the token can be revoked.
    """
    from gateway.access.tokens import new_token

    if settings.api_tokens is not None or settings.tokens_file is not None:
        return None, settings
    token = None if os.path.isfile(TOKENS) else new_token()  # unlike Path's, never an error
    return token, settings.model_copy(update={"tokens_file": TOKENS})


@contextmanager
def _interruptible() -> Iterator[None]:
    """Until the gateway handles the signals itself, the first of them unwinds the stack.

    Python's default would end the process at once and leave Triton's temporary files behind; a
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
    # Not SIG_IGN: with a signal pending, Python would print a traceback about the race.
    for number in _SIGNALS:
        signal.signal(number, lambda _number, _frame: None)


async def _serve(settings: Settings, supervisor: TritonSupervisor, ports: Ports, token: str | None) -> bool:
    """Run the gateway until a signal arrives; return whether the supervisor has failed."""
    from embedded.server import RESTRICTED_KEY
    from embedded.supervisor import SupervisorEvents
    from gateway.access.tokens import load_tokens
    from gateway.main import serve as serve_gateway
    from gateway.ports import grpc_address
    from gateway.processes.triton_events import TritonEventRelay

    loop = asyncio.get_running_loop()
    stop, failed, relay = asyncio.Event(), asyncio.Event(), TritonEventRelay()

    def fail() -> None:
        failed.set()
        stop.set()

    def started(url: str) -> None:
        grpc = None if settings.grpc_port is None else grpc_address(ports.known_to(settings))
        token_help = _existing_token_help(settings) if token is None else _store(token)
        click.echo(_greeting(url, grpc, _example_model(supervisor), token_help))

    def in_loop(call: Callable[..., object], *values: object) -> None:
        with suppress(RuntimeError):  # the loop has ended, and the gateway with it
            loop.call_soon_threadsafe(call, *values)

    private = settings.model_copy(
        update={
            "triton_url": supervisor.address,
            "triton_metadata_key": SecretStr(f"{RESTRICTED_KEY}={supervisor.secret}"),
        }
    )
    supervisor.connect(
        SupervisorEvents(
            triton_restarted=lambda reason: in_loop(relay.triton_restarted, reason),
            hand_over=lambda address: asyncio.run_coroutine_threadsafe(relay.hand_over(address), loop),
            failed=lambda: in_loop(fail),
        )
    )
    had_terminal = _has_terminal()

    def on_hangup() -> None:
        # SIGHUP means either that the terminal was closed, or a request to reload.
        if had_terminal and not _has_terminal():
            stop.set()
        else:
            supervisor.reload()

    loop.add_signal_handler(signal.SIGHUP, on_hangup)
    await serve_gateway(
        private,
        ports=ports,
        on_started=started,
        stop=stop,
        triton_events=relay,
        tokens=None if token is None else load_tokens(f"*:{token}", None),
    )
    return failed.is_set()


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True


def _example_model(triton: TritonSupervisor) -> RepositoryModel:
    """The documented model if it is served, else the first."""
    return next((model for model in triton.models if model.name == DOCUMENTED), triton.models[0])


def _store(token: str) -> str:
    """Store the hash of a new token; return the lines that show the token."""
    try:
        store_token(TOKENS, "*", token)
    except OSError as error:
        _log.warning("%s cannot be written (%s): the new token is not stored", TOKENS, error.strerror)
        text = (
            f"The token is not stored: {TOKENS} cannot be written ({error.strerror}). It is valid until "
            "this server ends or that file is created. For a lasting one set GATEWAY_API_TOKENS=*:token."
        )
    else:
        text = f"The token is shown this once; only its hash is stored, in {TOKENS}. {_new_token_help()}"
    return f"export TOKEN={token}\n\n{text}"


def _existing_token_help(settings: Settings) -> str:
    """Explain which tokens are valid, when none was created."""
    use = "Use your API token for $TOKEN."
    if settings.tokens_file is None:
        return f"{use} The tokens are those of GATEWAY_API_TOKENS."
    options = "" if settings.tokens_file == TOKENS else f" --file {settings.tokens_file}"
    return f"{use} {_new_token_help(options)}"


def _new_token_help(options: str = "") -> str:
    return (
        f"Lost it? `{sys.argv[0]} token create{options}`, run in this folder, creates another; "
        "this server accepts it about a second later."
    )


def _greeting(url: str, grpc: str | None, model: RepositoryModel, token_help: str) -> str:
    """Return the address and a first command to paste; ``token_help`` explains where the token comes from."""
    tls = " with TLS" if url.startswith("https:") else ""
    grpc_line = "" if grpc is None else f"\ngRPC:  {grpc}{tls} (docs/clients.md)"
    body = _EXAMPLE_RANKING if model.is_reranker else _EXAMPLE_TEXT
    return f"""
Ready: {url}/client/v4{grpc_line}

{token_help}

curl {url}/client/v4/accounts/{_ACCOUNT}/ai/run/{model.name} \\
  -H "Authorization: Bearer $TOKEN" \\
  -d '{body}'
"""
