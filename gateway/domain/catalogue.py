"""The served models. The list is kept in Triton's model repository; the gateway has none of its own.

An ensemble is served when the ``parameters`` of its ``config.pbtxt`` name it: every key starts with
``tritonflare.``.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType

from gateway.domain.errors import BackendUnavailable, NoSuchModel
from gateway.domain.scores import ProblemType
from gateway.domain.tasks import Task, parse_task

_log = logging.getLogger("tritonflare.catalogue")

PREFIX = "tritonflare."
NAME_KEY = PREFIX + "name"

_DISTILBERT = "@cf/huggingface/distilbert-sst-2-int8"
KNOWN_ALIASES = {
    "@cf/huggingface/nonomni-distilbert-sst-2-int8": _DISTILBERT,
    "@cf/huggingface/omni-distilbert-sst-2-int8": _DISTILBERT,
}
"""Other names of models that Cloudflare's OpenAPI description has, and the names that they stand for."""


class MalformedEntry(ValueError):
    """An ensemble's parameters do not describe a model."""


@dataclass(frozen=True, slots=True)
class Ensemble:
    """An ensemble as Triton reports it: its name and its string parameters."""

    name: str
    parameters: Mapping[str, str]
    max_batch_size: int = 0
    """Most texts in one call; 0 for an ensemble that does not batch."""


@dataclass(frozen=True, slots=True)
class Model:
    """One model of the catalogue."""

    name: str
    """Public name, for example ``@cf/huggingface/distilbert-sst-2-int8``."""
    ensemble: str
    """Name of the Triton ensemble that answers for it."""
    labels: tuple[str, ...]
    """In the order of the logits, which is also the order of the answer."""
    max_tokens: int
    """Longest input in tokens; longer ones are truncated."""
    problem_type: ProblemType
    max_batch_size: int = 1
    """Most texts in one call."""
    special_tokens: int | None = None
    """Tokens that the tokenizer adds to each text; None if Triton cannot cut its texts into windows."""
    task: Task = Task.CLASSIFICATION
    aliases: tuple[str, ...] = ()
    """Other names to which it answers, unless another model is called like that."""
    version: str = ""
    """Number of the publication in its repository."""
    version_id: str = "0"
    """What callers see of the version; see `version_id`."""
    precision: str = ""
    target: str = ""
    checkpoint: str = ""
    description: str = ""
    created_at: str = ""
    weights_sha256: str = ""
    tokenizer_sha256: str = ""
    model_sha256: str = ""


_NOT_IN_DIGEST = {PREFIX + "version", PREFIX + "created_at"}
_TEXT_FIELDS = tuple(field.name for field in fields(Model) if field.default == "")
"""Fields that are copied unchanged and may be absent."""


def parse_model(ensemble: Ensemble) -> Model:
    """Read the model that an ensemble's parameters describe.

    Raises:
        MalformedEntry: a required parameter is missing or malformed.
    """
    given = ensemble.parameters
    name = given.get(NAME_KEY, "")
    if not name or not name.isprintable():
        raise MalformedEntry(f"{NAME_KEY} is empty or not printable")
    texts = {field: given.get(PREFIX + field, "") for field in _TEXT_FIELDS}
    task, labels = _task(given), _names(given, "labels")
    if task is Task.RERANK and len(labels) != 1:
        raise MalformedEntry(f"{PREFIX}labels must be one label, because the task is {task.value}")
    return Model(
        name=name,
        ensemble=ensemble.name,
        labels=labels,
        task=task,
        aliases=_aliases_of(given),
        max_tokens=_max_tokens(given),
        problem_type=_problem_type(given),
        max_batch_size=max(1, ensemble.max_batch_size),
        special_tokens=_special_tokens(given),
        version_id=version_id(given),
        **texts,
    )


def version_id(parameters: Mapping[str, str]) -> str:
    """Return what names a publication of a model: its number and a digest, such as ``3-9f2c1ab0``.

    The number is the one that `tritonflare export --list` shows. The digest is over everything else that
    the export wrote down, the SHA-256 of the weights among it, but not over the date: two repositories
    count from 1 each, and gateways must not take their models for the same.

    Args:
        parameters: of the ensemble.
    """
    number = parameters.get(PREFIX + "version", "1")  # models of the first release had none
    if not (number.isascii() and number.isdigit() and len(number) < 10):
        number = "0"  # it becomes a header, and anybody may write a configuration
    rest = [
        [key, value]
        for key, value in sorted(parameters.items())
        if key.startswith(PREFIX) and key not in _NOT_IN_DIGEST
    ]
    return f"{number}-{hashlib.sha256(json.dumps(rest).encode()).hexdigest()[:8]}"


def _task(given: Mapping[str, str]) -> Task:
    try:
        return parse_task(given.get(PREFIX + "task", ""))
    except ValueError:
        raise MalformedEntry(f"{PREFIX}task is none of {', '.join(task.value for task in Task)}") from None


def _aliases_of(given: Mapping[str, str]) -> tuple[str, ...]:
    if given.get(PREFIX + "aliases", "[]") == "[]":
        return ()
    aliases = _names(given, "aliases")
    if not all(alias.isprintable() for alias in aliases):
        raise MalformedEntry(f"{PREFIX}aliases holds a name that is not printable")
    return aliases


def _names(given: Mapping[str, str], key: str) -> tuple[str, ...]:
    """Read a JSON array of strings, none of them empty or twice."""
    try:
        names = json.loads(given.get(PREFIX + key, ""))
    except (ValueError, RecursionError):
        names = None
    if not isinstance(names, list) or not names:
        raise MalformedEntry(f"{PREFIX}{key} is not a JSON array of strings")
    if not all(isinstance(name, str) and name for name in names) or len(set(names)) != len(names):
        raise MalformedEntry(f"{PREFIX}{key} holds something that is not a string, or one twice")
    return tuple(names)


def _max_tokens(given: Mapping[str, str]) -> int:
    text = given.get(PREFIX + "max_tokens", "")
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) > 0):
        raise MalformedEntry(f"{PREFIX}max_tokens is not a positive number")
    return int(text)


def _special_tokens(given: Mapping[str, str]) -> int | None:
    """Read what repositories lack that were exported before there were windows."""
    text = given.get(PREFIX + "special_tokens", "")
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) < _max_tokens(given)):
        raise MalformedEntry(f"{PREFIX}special_tokens is not a number below {PREFIX}max_tokens")
    return int(text)


def _problem_type(given: Mapping[str, str]) -> ProblemType:
    try:
        return ProblemType(given.get(PREFIX + "problem_type", ""))
    except ValueError:
        choices = ", ".join(problem.value for problem in ProblemType)
        raise MalformedEntry(f"{PREFIX}problem_type is none of {choices}") from None


class Catalogue:
    """The models that are served now, by public name.

    Args:
        aliases: other names of models, and the public names that they stand for. They count before those that
            the models bring, and these before `KNOWN_ALIASES`. No alias counts before a public name.
    """

    def __init__(self, aliases: Mapping[str, str] = MappingProxyType({})) -> None:
        self._given_aliases = aliases
        self._models: dict[str, Model] = {}
        self._aliases: dict[str, Model] = {}
        self._other_names: dict[str, Model] = {}
        """By names that only `find_by_any_name` knows."""
        self._listeners: list[Callable[[Iterable[Model]], None]] = []
        self._logged: frozenset[str] = frozenset()
        """Warnings of the last refresh."""

    def on_replace(self, listener: Callable[[Iterable[Model]], None]) -> None:
        """Have ``listener`` called with the models after every refresh, changed or not."""
        self._listeners.append(listener)

    def __iter__(self) -> Iterator[Model]:
        return iter(self._models.values())

    def __len__(self) -> int:
        return len(self._models)

    def __contains__(self, name: object) -> bool:
        return name in self._models

    def find(self, name: str) -> Model:
        """Return the model whose public name or alias is ``name``.

        Raises:
            NoSuchModel: other models are served, this one is not.
            BackendUnavailable: no model at all is known, so whether this one exists is unknown.
        """
        model = self._models.get(name) or self._aliases.get(name)
        if model is not None:
            return model
        if not self._models:
            raise BackendUnavailable
        raise NoSuchModel(name)

    def find_by_any_name(self, name: str) -> Model:
        """Return the model whose public name, alias, ensemble, or name with ``--`` for ``/`` is ``name``.

        A public name counts before the others.

        Raises:
            NoSuchModel: other models are served, this one is not.
            BackendUnavailable: no model at all is known, so whether this one exists is unknown.
        """
        other = None if name in self._models else self._other_names.get(name)
        return self.find(name) if other is None else other

    def replace(self, ensembles: Iterable[Ensemble]) -> None:
        """Replace the models by those that Triton reports; malformed entries are logged once and left out.

        Of two ensembles with one public name, the first by ensemble name is kept.
        """
        models, warnings = self._read(ensembles)
        self._aliases = _aliases(models, self._given_aliases, warnings)
        # The list is read every few seconds: a lasting defect is worth one line, not thousands.
        for warning in sorted(warnings - self._logged):
            _log.warning("%s", warning)
        if models.keys() != self._models.keys():
            _log.info("serving %s", ", ".join(models) or "no model")
        self._models, self._logged = models, frozenset(warnings)
        self._other_names = {name.replace("/", "--"): model for name, model in self._aliases.items()}
        self._other_names |= _other_names(models)
        for listener in self._listeners:
            listener(models.values())

    def _read(self, ensembles: Iterable[Ensemble]) -> tuple[dict[str, Model], set[str]]:
        """Return the models by public name, and a warning for each ensemble that is left out."""
        models: dict[str, Model] = {}
        warnings: set[str] = set()
        for ensemble in sorted(ensembles, key=lambda ensemble: ensemble.name):
            if NAME_KEY not in ensemble.parameters:
                continue
            try:
                model = parse_model(ensemble)
            except MalformedEntry as exc:
                warnings.add(f"ensemble {ensemble.name} is not served: {exc}")
                continue
            if model == self._models.get(model.name):
                model = self._models[model.name]  # what is unchanged stays the very same object
            kept = models.setdefault(model.name, model)
            if kept is not model:
                warnings.add(
                    f"ensemble {ensemble.name} is not served: {kept.ensemble} is called {model.name} too"
                )
        return models, warnings


def _other_names(models: Mapping[str, Model]) -> dict[str, Model]:
    by_name = {model.name.replace("/", "--"): model for model in models.values()}
    return by_name | {model.ensemble: model for model in models.values()}


def _aliases(models: Mapping[str, Model], given: Mapping[str, str], warnings: set[str]) -> dict[str, Model]:
    """Return the models by their aliases; add a warning for each alias that is left out."""
    wanted = [*given.items(), *((alias, model.name) for model in models.values() for alias in model.aliases)]
    taken = _other_names(models)
    aliases: dict[str, Model] = {}
    for alias, name in wanted:
        model = models.get(name)
        if model is None:
            warnings.add(f"alias {alias} is not served: no model is called {name}")
            continue
        owner = models.get(alias) or taken.get(alias) or aliases.get(alias)
        if owner is None:
            aliases[alias] = model
        elif owner is not model:
            warnings.add(f"alias {alias} of {name} is not served: it means {owner.name}")
    known = {alias: models[name] for alias, name in KNOWN_ALIASES.items() if name in models}
    return {alias: model for alias, model in (known | aliases).items() if alias not in models}
