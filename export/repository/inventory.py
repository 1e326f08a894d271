"""What a model repository holds: the published models, and whether their files are the published ones."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from export.checkpoint import sha256
from export.errors import ExportError, PublishError
from export.repository.versions import versions
from export.repository.write import ENCODER_SOURCES, JOINED_SOURCES, MODEL_SOURCES, TOKENIZER_SOURCES
from export.spec import JOINED, PREFIX, STEPS, ensemble_name, own_prefixes

CONFIG = "config.pbtxt"
_ELEMENT_BYTES = {pb.TYPE_INT64: 8}
_log = logging.getLogger("tritonflare.export")


@dataclass(frozen=True)
class Published:
    """A model of the repository, as its ensemble's configuration describes it."""

    name: str
    ensemble: str
    tokenizer: str
    """Triton's name of the step that takes the text; other models may have the same."""
    encoder: str
    """Triton's name of the step that gives the logits; of the layout ``joined`` it is the same one."""
    version: int
    precision: str
    target: str
    labels: tuple[str, ...]
    created_at: str
    weights_sha256: str
    tokenizer_sha256: str
    model_sha256: str
    size: int
    """Bytes of all its folders; a shared tokenizer counts for each model."""
    aliases: tuple[str, ...] = ()
    """Other public names to which it answers."""

    @property
    def folders(self) -> tuple[str, ...]:
        """Names of the folders that the model needs, each once."""
        return tuple(dict.fromkeys((self.ensemble, self.encoder, self.tokenizer)))

    @property
    def steps(self) -> tuple[str, ...]:
        """Triton's names of the steps, in their order."""
        return tuple(dict.fromkeys((self.tokenizer, self.encoder)))

    @property
    def layout(self) -> str:
        """One of `export.spec.LAYOUTS`."""
        return JOINED if self.encoder and self.encoder == self.tokenizer else STEPS

    def weights_file(self, repository: Path) -> Path:
        """The weights that Triton serves: ``model.onnx`` or ``model.plan``."""
        return _served_version(repository / self.encoder) / _weights(repository / self.encoder)

    def tokenizer_file(self, repository: Path) -> Path:
        """The ``tokenizer.json`` that Triton serves."""
        return _served_version(repository / self.tokenizer) / "tokenizer.json"


def read_inventory(repository: Path) -> list[Published]:
    """The published models by public name; what cannot be read is logged and left out.

    Raises:
        ExportError: there is no such folder.
    """
    if not repository.is_dir():
        raise ExportError(f"there is no model repository {repository.name}; `tritonflare export` makes one.")
    found = []
    for folder in _model_folders(repository):
        config = read_config(folder)
        if config is None:
            _log.warning("%s/%s cannot be read", folder.name, CONFIG)
        elif f"{PREFIX}name" in config.parameters:
            found.append(_published(repository, folder.name, config))
    return sorted(found, key=lambda model: model.name)


def find_published(repository: Path, name: str) -> Published:
    """The published model with a public name.

    Raises:
        ExportError: there is none, or no such folder.
    """
    models = {model.name: model for model in read_inventory(repository)}
    if name not in models:
        known = ", ".join(models) or "none"
        raise PublishError(f"no model is called {name}; published: {known}.")
    return models[name]


def read_config(folder: Path) -> pb.ModelConfig | None:
    """A model folder's configuration; None if it cannot be read."""
    try:
        text = (folder / CONFIG).read_text(encoding="utf-8")
        # A foreign model may use fields of a newer Triton.
        return text_format.Parse(text, pb.ModelConfig(), allow_unknown_field=True)
    except (text_format.ParseError, UnicodeDecodeError, OSError):
        return None


def refuse_conflict(repository: Path, name: str) -> None:
    """Two public names may give one folder; the later must not silently replace the earlier.

    Raises:
        ExportError: a published model has a folder that a model called ``name`` would take, or
            a foreign model has it.
    """
    if not repository.is_dir():
        return
    ensemble = ensemble_name(name)
    for other in read_inventory(repository):
        if other.name == name:
            continue
        mine = any(
            folder == ensemble or folder.startswith(own_prefixes(ensemble)) for folder in other.folders
        )
        if mine or ensemble.startswith(own_prefixes(other.ensemble)):
            raise ExportError(
                f"{name} and the published {other.name} would share folders; choose another --name."
            )
    if _is_foreign(repository / ensemble):
        raise ExportError(
            f"{ensemble} in the repository is not this exporter's; move it away or choose another --name."
        )


def refuse_taken_aliases(repository: Path, model: Published) -> None:
    """A version from before may answer to a name that was given to another model since.

    Raises:
        ExportError: a published model is called like that, or has the same alias.
    """
    for other in read_inventory(repository):
        taken = [alias for alias in model.aliases if alias in (other.name, *other.aliases)]
        if other.name != model.name and taken:
            raise ExportError(
                f"version {model.version} of {model.name} answers to {taken[0]} too, which is a name of "
                f"{other.name} now; export {other.name} without it, or {model.name} again."
            )


def _is_foreign(ensemble: Path) -> bool:
    """Whether an ensemble's folder exists and is not ours; a link would lead out of the copy."""
    if ensemble.is_symlink() or (ensemble.exists() and not ensemble.is_dir()):
        return True
    config = read_config(ensemble)
    if config is not None:
        return f"{PREFIX}name" not in config.parameters
    # Damaged or not there: an ensemble of ours holds nothing else.
    files = (path for path in ensemble.rglob("*") if path.is_symlink() or not path.is_dir())
    return any(path.name not in {CONFIG, ".gitkeep"} for path in files)


def verify_repository(repository: Path) -> list[str]:
    """Compare everything that is published with what its export wrote down.

    Returns:
        One sentence for each thing that is wrong; empty if all is well.

    Raises:
        ExportError: there is no such folder.
    """
    models = read_inventory(repository)
    findings = [
        f"{folder.name}/{CONFIG} cannot be read as a model configuration."
        for folder in _model_folders(repository)
        if read_config(folder) is None
    ]
    for model in models:
        findings += content_damage(repository, model)
        for folder in model.folders:
            if (repository / folder / CONFIG).is_file():
                findings += _foreign_code(repository, model, folder)
                findings += _missing_warmup(repository / folder)
    return list(dict.fromkeys(findings))  # models that share a tokenizer share its findings


def content_damage(repository: Path, model: Published) -> Iterator[str]:
    """One sentence for each file of a model that is missing or not the published one."""
    for folder in model.folders:
        if not (repository / folder / CONFIG).is_file():
            yield f"{model.name} needs {folder}/{CONFIG}, which is missing."
    for folder in (model.ensemble, model.encoder):
        served = max(versions(repository / folder), default=0)
        if served != model.version:
            yield f"{folder} holds version {served}, but {model.name} was published as {model.version}."
    for file, wanted in (
        (model.weights_file(repository), model.model_sha256),
        (model.tokenizer_file(repository), model.tokenizer_sha256),
    ):
        label = file.relative_to(repository)
        if not file.is_file():
            yield f"{label} is missing."
        # A plan is built from the file with this SHA-256, where it is served.
        elif file.suffix != ".plan" and sha256(file) != wanted:
            yield f"{label} is not the file that was published."


def _model_folders(repository: Path) -> list[Path]:
    return sorted(path for path in repository.iterdir() if path.is_dir() and path.name[0] != ".")


def _published(repository: Path, ensemble: str, config: pb.ModelConfig) -> Published:
    def text(key: str) -> str:
        return str(config.parameters[PREFIX + key].string_value)

    tokenizer = encoder = ""
    for step in config.ensemble_scheduling.step:
        tokenizer = step.model_name if "TEXT" in step.input_map else tokenizer
        encoder = step.model_name if "logits" in step.output_map else encoder
    try:
        labels = tuple(map(str, json.loads(text("labels"))))
        aliases = tuple(map(str, json.loads(text("aliases") or "[]")))
        version = int(text("version") or 1)  # models of the first release had no number
    except (ValueError, TypeError):
        labels, aliases, version = (), (), 0
    folders = {ensemble, tokenizer, encoder} - {""}
    return Published(
        name=text("name"),
        ensemble=ensemble,
        tokenizer=tokenizer,
        encoder=encoder,
        version=version,
        precision=text("precision"),
        target=text("target"),
        labels=labels,
        aliases=aliases,
        created_at=text("created_at"),
        weights_sha256=text("weights_sha256"),
        tokenizer_sha256=text("tokenizer_sha256"),
        model_sha256=text("model_sha256"),
        size=sum(
            file.stat().st_size
            for folder in folders
            for file in (repository / folder).rglob("*")
            if file.is_file()
        ),
    )


def _served_version(step: Path) -> Path:
    return step / str(max(versions(step), default=1))


def _weights(encoder: Path) -> str:
    config = read_config(encoder)
    return "model.plan" if config is not None and config.platform == "tensorrt_plan" else "model.onnx"


def _foreign_code(repository: Path, model: Published, folder: str) -> Iterator[str]:
    config = read_config(repository / folder)
    if config is None or config.backend != "python":
        return
    if model.layout == JOINED:
        sources = JOINED_SOURCES
    else:
        sources = TOKENIZER_SOURCES if folder == model.tokenizer else ENCODER_SOURCES
    program = _served_version(repository / folder) / "model.py"
    if program.is_file() and program.read_bytes() != (MODEL_SOURCES / sources["model.py"]).read_bytes():
        # Such as an older exporter's, which had other files beside it: one sentence says it all.
        yield f"{program.relative_to(repository)} is not this exporter's; export {model.name} again."
        return
    for name, source in sources.items():
        file = _served_version(repository / folder) / name
        label = file.relative_to(repository)
        if not file.is_file():
            yield f"{label} is missing."
        elif file.read_bytes() != (MODEL_SOURCES / source).read_bytes():
            yield f"{label} is not this exporter's; export {model.name} again."


def _missing_warmup(folder: Path) -> Iterator[str]:
    config = read_config(folder)
    for sample in config.model_warmup if config is not None else ():
        for tensor in sample.inputs.values():
            file = folder / "warmup" / tensor.input_data_file
            label = file.relative_to(folder.parent)
            wanted = _ELEMENT_BYTES.get(tensor.data_type, 0) * tensor.dims[0]
            if not file.is_file():
                yield f"{label} is missing."
            elif wanted and file.stat().st_size != wanted:
                yield f"{label} has {file.stat().st_size} bytes; its warm-up sample needs {wanted}."
