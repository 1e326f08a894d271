"""``tritonflare gateway``: the gateway alone."""

from __future__ import annotations

from typing import Any

import click

workers_option = click.option(
    "--workers", type=int, help="Gateway processes that share the port [GATEWAY_WORKERS, default 1]."
)

grpc_port_option = click.option(
    "--grpc-port",
    type=int,
    help="Port for gRPC clients; 0 takes a free one [GATEWAY_GRPC_PORT, default none].",
)


@click.command()
@click.option("--host", help="Address to listen on [GATEWAY_HOST, default 127.0.0.1].")
@click.option("--port", type=int, help="Port to listen on [GATEWAY_PORT, default 8787].")
@grpc_port_option
@click.option("--triton-url", help="gRPC address of Triton [GATEWAY_TRITON_URL, default 127.0.0.1:8001].")
@workers_option
def gateway(
    host: str | None, port: int | None, grpc_port: int | None, triton_url: str | None, workers: int | None
) -> None:
    """Run the gateway with a Triton that runs elsewhere.

    Every setting is an environment variable (see .env.example); these options take precedence.
    Needs GATEWAY_API_TOKENS or GATEWAY_TOKENS_FILE (`tritonflare token create`).
    """
    from gateway.main import run
    from gateway.settings import load_settings

    options = given(host=host, port=port, grpc_port=grpc_port, triton_url=triton_url, workers=workers)
    run(load_settings(**options))


def given(**options: Any) -> dict[str, Any]:
    """Return the options that were set on the command line."""
    return {key: value for key, value in options.items() if value is not None}
