"""Which folders of a model repository this exporter wrote: it replaces and removes no others."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from export.errors import PublishError
from export.repository.inventory import Published, read_config
from export.repository.write import MODEL_SOURCES
from export.spec import ENCODER_INPUTS, JOINED, TYPE_IDS, ServedModel

_INPUTS = (ENCODER_INPUTS, (*ENCODER_INPUTS, TYPE_IDS))
_ENCODER = re.compile(r"_encoder_(fp32|fp16|int8)(_plan)?")
_JOINED = re.compile(r"_joined_(fp32|fp16|int8)")
# docker/triton/plans/install.py leaves it in the folder of every plan.
_PLAN_MARKER = "plan.json"


def refuse_foreign(root: Path, model: ServedModel, models: Iterable[Published]) -> None:
    """Somebody else's model must not be overwritten because it has the name of one of our steps.

    Raises:
        PublishError: the folder of a step is there, but is not this exporter's.
    """
    known = {folder for other in models for folder in other.folders}
    steps = [(model.encoder, wrote_encoder), (model.tokenizer, wrote_tokenizer)]
    for name, ours in [(model.encoder, wrote_joined)] if model.layout == JOINED else steps:
        folder = root / name
        # What is written through a link would be changed at once, outside of the copy.
        if folder.is_symlink() or (folder.exists() and name not in known and not ours(folder)):
            raise PublishError(
                f"{name} in the repository is not this exporter's; move it away or choose another --name."
            )


def owned_folders(root: Path, ensemble: str) -> set[str]:
    """Steps of any layout and precision, with or without plan, and the tokenizer that was not yet shared."""
    owned = {
        path.name
        for pattern, name, wrote in (("encoder", _ENCODER, wrote_encoder), ("joined", _JOINED, wrote_joined))
        for path in root.glob(f"{ensemble}_{pattern}_*")
        if name.fullmatch(path.name.removeprefix(ensemble)) and wrote(path)
    }
    tokenizer = root / f"{ensemble}_tokenizer"
    if wrote_tokenizer(tokenizer) or not any(path.is_file() for path in tokenizer.rglob("*")):
        owned.add(tokenizer.name)
    return owned


def wrote_encoder(folder: Path) -> bool:
    """Whether this exporter, or the script that builds its plans, wrote an encoder's folder."""
    if (folder / _PLAN_MARKER).is_file():
        return True
    config = read_config(folder)
    if config is None:
        return _runs(folder, "encoder.py")
    warmup = [sample.name for sample in config.model_warmup]
    return (
        tuple(each.name for each in config.input) in _INPUTS
        and bool(warmup)
        and all(name.startswith("tokens_") for name in warmup)
    )


def wrote_joined(folder: Path) -> bool:
    """Whether this exporter wrote the folder of a tokenizer and encoder in one step."""
    config = read_config(folder)
    if config is None:
        return _runs(folder, "joined.py")
    outputs = tuple(each.name for each in config.output)
    return outputs == ("logits", "token_count") and "max_tokens" in config.parameters


def wrote_tokenizer(folder: Path) -> bool:
    """Whether this exporter wrote a tokenizer's folder."""
    config = read_config(folder)
    if config is None:
        return _runs(folder, "tokenizer.py")
    outputs = tuple(each.name for each in config.output)
    known = [(*inputs, "token_count") for inputs in _INPUTS]
    return outputs in known and "max_tokens" in config.parameters


def _runs(folder: Path, source: str) -> bool:
    """Whether a version holds our program; where the configuration is damaged, it is all there is to tell."""
    wanted = (MODEL_SOURCES / source).read_bytes()
    return any(file.is_file() and file.read_bytes() == wanted for file in folder.glob("*/model.py"))
