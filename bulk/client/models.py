"""Which models a server has, and what one request to them may hold."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote

import msgspec

from bulk.client.http import ApiClient
from bulk.errors import Refused

_MAX_TOKENS_ELSEWHERE = 512


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """One model of a server."""

    name: str
    is_reranker: bool
    max_texts: int
    """The most texts of a request; 1 where the server does not say that it takes batches."""
    max_tokens: int
    """Tokens that the model reads of an input; special tokens count."""
    max_contexts: int
    """Of a reranker, the most contexts of a request."""
    labels: tuple[str, ...]
    """Of a classifier, in its order; empty where the server does not list them."""
    version: str = ""
    """See `model_version`."""


class _Entry(msgspec.Struct):
    name: str


class _Models(msgspec.Struct):
    result: list[_Entry]


class _Limits(msgspec.Struct):
    max_input_tokens: int = _MAX_TOKENS_ELSEWHERE
    max_requests: int = 1


class _Property(msgspec.Struct, rename="camel"):
    max_items: int = 25


class _Input(msgspec.Struct):
    properties: dict[str, msgspec.Raw] = {}
    limits: _Limits = msgspec.field(name="x-limits", default_factory=_Limits)


class _Label(msgspec.Struct):
    enum: tuple[str, ...] = ()


class _ItemProperties(msgspec.Struct):
    label: _Label = msgspec.field(default_factory=_Label)


class _Items(msgspec.Struct):
    properties: _ItemProperties = msgspec.field(default_factory=_ItemProperties)


class _Output(msgspec.Struct):
    items: _Items = msgspec.field(default_factory=_Items)


class _Schemas(msgspec.Struct):
    input: _Input
    output: _Output = msgspec.field(default_factory=_Output)


class _SchemaAnswer(msgspec.Struct):
    result: _Schemas


async def model_facts(client: ApiClient, name: str) -> ModelFacts:
    """Ask for a model's schema.

    Raises:
        ServerError: see `ApiClient.send`; also where there is no such API.
    """
    reply = await client.get(f"/ai/models/schema?model={quote(name, safe='')}")
    if not reply.is_ok:
        raise Refused(f"the server does not describe {name}: {reply.error.reason}")
    try:
        schemas = msgspec.json.decode(reply.body, type=_SchemaAnswer).result
        given = schemas.input
        contexts = given.properties.get("contexts")
        held = msgspec.json.decode(contexts, type=_Property) if contexts is not None else _Property()
    except msgspec.DecodeError:
        raise Refused(f"the server's description of {name} cannot be read") from None
    return ModelFacts(
        name,
        is_reranker=contexts is not None,
        max_texts=max(1, given.limits.max_requests),
        max_tokens=given.limits.max_input_tokens,
        max_contexts=held.max_items,
        labels=schemas.output.items.properties.label.enum,
    )


class _Named(msgspec.Struct):
    property_id: str = ""
    value: object = ""


class _Found(msgspec.Struct):
    name: str
    properties: list[_Named] = []


class _Search(msgspec.Struct):
    result: list[_Found]


async def model_version(client: ApiClient, model: ModelFacts) -> str:
    """Return which version of a model answers, empty if the server does not tell.

    It is read from the list of models. For a name that is not in there, such as an alias, a word is asked.

    Raises:
        ServerError: see `ApiClient.send`.
    """
    reply = await client.get(f"/ai/models/search?per_page=100&search={quote(model.name, safe='')}")
    try:
        found = msgspec.json.decode(reply.body, type=_Search).result
    except msgspec.DecodeError:
        found = []
    for each in found:
        for named in each.properties if each.name == model.name else ():
            if named.property_id == "version":
                return str(named.value)
    body = {"query": "a", "contexts": [{"text": "a"}]} if model.is_reranker else {"text": "a"}
    return (await client.run(model.name, body)).model_version or ""


async def choose_model(client: ApiClient, name: str | None, reranker: bool) -> ModelFacts:
    """Return the model that was named, or the server's only one for the task.

    Raises:
        Refused: there is none or more than one, or the one that was named is for another task.
        ServerError: see `ApiClient.send`.
    """
    task = "rerank" if reranker else "classify"
    if name is not None:
        facts = await model_facts(client, name)
        if facts.is_reranker != reranker:
            raise Refused(f"{name} is no model to {task} with")
        return facts
    reply = await client.get("/ai/models/search?per_page=100")
    try:
        names = [entry.name for entry in msgspec.json.decode(reply.body, type=_Models).result]
    except msgspec.DecodeError:
        raise Refused(f"the server does not list its models: {reply.error.reason}") from None
    found = [
        facts
        for facts in [await model_facts(client, each) for each in names]
        if facts.is_reranker == reranker
    ]
    if len(found) == 1:
        return found[0]
    if not found:
        raise Refused(f"the server has no model to {task} with")
    listed = ", ".join(facts.name for facts in found)
    raise Refused(f"the server has several models to {task} with; name one with --model: {listed}")
