"""On which device the python models of a repository compute, and what Triton is told about it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from embedded.errors import EmbeddedError
from embedded.repository import RepositoryModel, read_config

CPU, CUDA = "cpu", "cuda"
VARIABLE = "TRITONFLARE_DEVICE"
"""Read by the python models: takes a model for a GPU to the CPU, and never one for the CPU to a GPU."""


def choose_device(asked: str, models: Iterable[RepositoryModel]) -> str:
    """Return ``cpu`` or ``cuda``: where a repository's models compute.

    Args:
        asked: ``cpu``, ``cuda``, or ``auto``, which is ``cuda`` exactly where a model was exported for it.
        models: those of the repository.

    Raises:
        EmbeddedError: ``cuda`` was asked for, and no model was exported for it.
    """
    exported = any(model.target == CUDA for model in models)
    if asked == CUDA and not exported:
        raise EmbeddedError(
            "No model of this repository was exported for a GPU; run `tritonflare export --target cuda`, "
            "or leave --device out."
        )
    return CUDA if exported and asked != CPU else CPU


def link_repository(repository: Path, link: Path, device: str) -> None:
    """Make a repository for Triton that computes on a device, of links to another one, which stays as it is.

    On a CPU, Triton would refuse a model that asks for a GPU. The configuration of each such python model is
    written anew, for a CPU; everything else is linked.

    Args:
        repository: the models to serve.
        link: what is made: a link to the repository, or a folder of links.
        device: ``cpu`` or ``cuda``.

    Raises:
        OSError: it cannot be written.
        EmbeddedError: a configuration is damaged.
    """
    rewritten = {} if device == CUDA else _configs_for_cpu(repository)
    if not rewritten:
        link.symlink_to(repository)
        return
    link.mkdir()
    for entry in repository.iterdir():
        if entry.name not in rewritten:
            (link / entry.name).symlink_to(entry)
            continue
        (link / entry.name).mkdir()
        for file in entry.iterdir():
            if file.name != "config.pbtxt":
                (link / entry.name / file.name).symlink_to(file)
        text = text_format.MessageToString(rewritten[entry.name])
        (link / entry.name / "config.pbtxt").write_text(text, encoding="utf-8")


def _configs_for_cpu(repository: Path) -> dict[str, pb.ModelConfig]:
    """The changed configurations, by the name of the model's folder."""
    changed = {}
    for file in repository.glob("*/config.pbtxt"):
        if b"KIND_GPU" not in file.read_bytes():  # most have none, and parsing takes time at each start
            continue
        config = read_config(file.parent)
        groups = [group for group in config.instance_group if group.kind == pb.ModelInstanceGroup.KIND_GPU]
        if config.backend == "python" and groups:
            for group in groups:
                group.kind = pb.ModelInstanceGroup.KIND_CPU
                group.ClearField("gpus")
            changed[file.parent.name] = config
    return changed
