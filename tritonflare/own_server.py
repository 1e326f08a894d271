"""A Triton and a gateway for one command alone, on free loopback ports."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from tritonflare.device import warn_of_cpu

if TYPE_CHECKING:
    from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

    from embedded.supervisor import TritonSupervisor
    from gateway.settings import Settings

_ACCOUNT = "files"
_UNHURRIED: dict[str, Any] = {
    "host": "127.0.0.1",
    "port": 0,
    # What is asked is bounded by whoever asks, and nobody else does.
    "max_queue_s": 60.0,
    "request_timeout_s": 120.0,
    "access_log_share": 0.0,
    "shutdown_delay_s": 0.0,
    "drain_keep_alive_s": 0.0,
}


def own_settings(**given: Any) -> Settings:
    """Return the settings of a gateway for one command: nothing comes from the environment.

    That is for a server of several callers: shadows, traces, limits, another way with long texts.
    """
    from gateway.settings import Settings

    class OwnSettings(Settings):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            *others: PydanticBaseSettingsSource,
            **named: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return (init_settings,)

    return OwnSettings(**_UNHURRIED, **given)


@contextmanager
def own_triton(repository: Path, device: str) -> Iterator[TritonSupervisor]:
    """Run Triton with the models of a repository.

    Raises:
        EmbeddedError: it does not start.
    """
    from embedded.supervisor import TritonSupervisor
    from gateway.telemetry.logs import configure_logging

    configure_logging("warning", "text")
    with TritonSupervisor(repository, device=device) as supervisor:
        warn_of_cpu(supervisor)
        yield supervisor


@asynccontextmanager
async def own_gateway(triton: TritonSupervisor, stop: asyncio.Event) -> AsyncIterator[tuple[str, str, str]]:
    """Run the gateway in this event loop; yield its address, a token and an account.

    Args:
        triton: the running Triton.
        stop: set by SIGINT and SIGTERM, and at the end; the gateway then answers what is under way.
    """
    from embedded.errors import EmbeddedError
    from embedded.server import RESTRICTED_KEY
    from embedded.supervisor import SupervisorEvents
    from gateway.main import serve
    from gateway.ports import Ports
    from gateway.processes.triton_events import TritonEventRelay

    token = secrets.token_urlsafe(32)
    settings = own_settings(
        triton_url=triton.address,
        triton_metadata_key=SecretStr(f"{RESTRICTED_KEY}={triton.secret}"),
        api_tokens=SecretStr(f"{_ACCOUNT}:{token}"),
    )
    loop, relay = asyncio.get_running_loop(), TritonEventRelay()
    address: asyncio.Future[str] = loop.create_future()

    def restarted(reason: str) -> None:
        with suppress(RuntimeError):  # the loop has ended, and the gateway with it
            loop.call_soon_threadsafe(relay.triton_restarted, reason)

    triton.connect(
        SupervisorEvents(
            triton_restarted=restarted,
            hand_over=lambda to: asyncio.run_coroutine_threadsafe(relay.hand_over(to), loop),
            # Requests then fail until the client gives up and says so.
            failed=lambda: None,
        )
    )
    serving = asyncio.create_task(
        serve(
            settings,
            ports=Ports.bind(settings),
            on_started=address.set_result,
            stop=stop,
            triton_events=relay,
        )
    )
    try:
        waiting: set[asyncio.Future[Any]] = {address, serving}
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        if not address.done():
            serving.result()
            raise EmbeddedError("The gateway was stopped before it served.")
        yield address.result(), token, _ACCOUNT
    finally:
        stop.set()
        await serving
