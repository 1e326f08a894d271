"""Repositories of models for a GPU, made of those for a CPU."""

from __future__ import annotations

from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb


def read_config(folder: Path) -> pb.ModelConfig:
    return text_format.Parse((folder / "config.pbtxt").read_text(encoding="utf-8"), pb.ModelConfig())


def write_config(folder: Path, config: pb.ModelConfig) -> None:
    (folder / "config.pbtxt").unlink()  # it may be a hard link
    (folder / "config.pbtxt").write_text(text_format.MessageToString(config), encoding="utf-8")


def turn_into_cuda(repository: Path, ensemble: str) -> str:
    """Make a published model of the layout ``steps`` one of target ``cuda``; return its encoder's name."""
    config = read_config(repository / ensemble)
    config.parameters["tritonflare.target"].string_value = "cuda"
    write_config(repository / ensemble, config)
    (encoder,) = (step.model_name for step in config.ensemble_scheduling.step if "logits" in step.output_map)
    config = read_config(repository / encoder)
    (group,) = config.instance_group
    group.kind = pb.ModelInstanceGroup.KIND_GPU
    group.gpus.extend([0])
    config.parameters["device"].string_value = "cuda"
    write_config(repository / encoder, config)
    return str(encoder)
