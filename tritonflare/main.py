"""``tritonflare``: the subcommands, and the handling of configuration errors."""

from __future__ import annotations

import os
import sys
from importlib.metadata import version

import click

from tritonflare import (
    bench,
    bench_rerank,
    bench_timeline,
    classify,
    compare,
    doctor,
    export,
    gateway,
    rerank,
    serve,
    token,
)
from tritonflare.paths import runnable


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version("tritonflare"), prog_name="tritonflare")
def cli() -> None:
    """Self-hosted Workers AI text classification and reranking, served by NVIDIA Triton.

    \b
    tritonflare export        turn a checkpoint into a served model
    tritonflare serve         run Triton and the gateway on this machine
    tritonflare gateway       run the gateway alone, with a Triton elsewhere
    tritonflare classify      classify the texts of a file
    tritonflare rerank        score the documents of a file by their queries
    tritonflare compare       ask two servers about the same texts
    """  # noqa: D301 (click needs the control character)


for command in (
    serve.serve,
    gateway.gateway,
    export.export,
    classify.classify,
    rerank.rerank,
    compare.compare,
    token.token,
    bench.bench,
    bench_rerank.bench_rerank,
    bench_timeline.bench_timeline,
    doctor.doctor,
):
    cli.add_command(command)


def main() -> None:
    """Run the command line; a configuration error is printed without a traceback, with exit code 2."""
    # Read when ONNX Runtime is imported; it would send events and an identifier of this machine to its maker.
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    from gateway.settings import ConfigurationError

    try:
        cli(standalone_mode=True)
    except ConfigurationError as error:
        click.echo(f"tritonflare: {runnable(str(error))}", err=True)
        sys.exit(2)
