"""The option ``--device``: whether models compute on the CPU or on an NVIDIA GPU."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from embedded.supervisor import TritonSupervisor

_log = logging.getLogger("tritonflare.serve")

# As in embedded.device, which imports Triton's messages.
device_option = click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="Where models compute. auto: those exported with --target cuda on an NVIDIA GPU, others on the CPU. "
    "cpu: all on the CPU, which is slow for those of target cuda. cuda: as auto, and there must be one.",
)


def warn_of_cpu(supervisor: TritonSupervisor) -> None:
    """Log a warning if models that were exported for a GPU are served on the CPU, as was asked for."""
    names = [model.name for model in supervisor.models if model.target == "cuda"]
    if names and supervisor.device == "cpu":
        _log.warning(
            "%s exported for a GPU and computed on the CPU: slow, and for trying only",
            f"{', '.join(names)} {'is' if len(names) == 1 else 'are'}",
        )
