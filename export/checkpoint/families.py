"""DistilBERT, BERT, RoBERTa and XLM-RoBERTa under one set of names.

All four are the same encoder: what differs is what things are called, where positions start,
whether there are token types, and the activation of the head.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from export.checkpoint.config import Config
from export.checkpoint.model import Array, Encoder, Layer, Linear, Norm
from export.checkpoint.tensors import Tensors
from export.errors import CheckpointError


@dataclass(frozen=True)
class Family:
    """How one ``model_type`` is read, with its token types apart if it has any.

    ``activation`` is the config's name for the hidden one.
    """

    prefix: str
    activation: str
    pad_id: int
    build: Callable[[Config, Tensors, int], Encoder]


def written_family(config: Config) -> Family | None:
    """The family whose graph we write ourselves; None if only torch can export this model."""
    family = FAMILIES.get(config.family)
    if family is None or config.values.get(family.activation, "gelu") != "gelu":
        return None
    return family


def why_not_written(config: Config) -> str:
    """A clause for the person whose model ``written_family`` has not taken."""
    family = FAMILIES.get(config.family)
    if family is None:
        return (
            f"is a {config.family!r} model, and only {', '.join(sorted(FAMILIES))} are exported without torch"
        )
    activation = config.values.get(family.activation)
    return f"has activation {activation!r}, and only 'gelu' is exported without torch"


def _linear(tensors: Tensors, name: str, into: int, out: int) -> Linear:
    return Linear(
        tensors.read(f"{name}.weight", out, into, transposed=True), tensors.read(f"{name}.bias", out)
    )


def _norm(tensors: Tensors, name: str, hidden: int) -> Norm:
    return Norm(tensors.read(f"{name}.weight", hidden), tensors.read(f"{name}.bias", hidden))


def _table(tensors: Tensors, name: str, hidden: int) -> Array:
    """An embedding table; the number of rows comes from the file."""
    return tensors.read(name, tensors.rows(name), hidden)


def _distilbert(config: Config, tensors: Tensors, _pad_id: int) -> Encoder:
    hidden, wide = config.count("dim"), config.count("hidden_dim")
    layers = []
    for i in range(config.count("n_layers")):
        at = f"transformer.layer.{i}"
        layers.append(
            Layer(
                query=_linear(tensors, f"{at}.attention.q_lin", hidden, hidden),
                key=_linear(tensors, f"{at}.attention.k_lin", hidden, hidden),
                value=_linear(tensors, f"{at}.attention.v_lin", hidden, hidden),
                output=_linear(tensors, f"{at}.attention.out_lin", hidden, hidden),
                attention_norm=_norm(tensors, f"{at}.sa_layer_norm", hidden),
                expand=_linear(tensors, f"{at}.ffn.lin1", hidden, wide),
                contract=_linear(tensors, f"{at}.ffn.lin2", wide, hidden),
                output_norm=_norm(tensors, f"{at}.output_layer_norm", hidden),
            )
        )
    return Encoder(
        words=_table(tensors, "embeddings.word_embeddings.weight", hidden),
        positions=_table(tensors, "embeddings.position_embeddings.weight", hidden),
        embedding_norm=_norm(tensors, "embeddings.LayerNorm", hidden),
        layers=tuple(layers),
        dense=_linear(tensors, "pre_classifier", hidden, hidden),
        activation="relu",
        classifier=_linear(tensors, "classifier", hidden, tensors.rows("classifier.weight")),
        heads=config.head_count("n_heads", hidden),
        epsilon=1e-12,
    )


def _bert(config: Config, tensors: Tensors, _pad_id: int) -> Encoder:
    return _bert_like(config, tensors, first_position=0, dense="pooler.dense", classifier="classifier")


def _roberta(config: Config, tensors: Tensors, pad_id: int) -> Encoder:
    """Positions count from ``pad_id + 1``; the rows before it are cut off.

    transformers counts positions by ids that are not padding, so a text that spells out the
    padding token itself (``<pad>``) is numbered differently there; any other text is not.
    """
    return _bert_like(
        config, tensors, first_position=pad_id + 1, dense="classifier.dense", classifier="classifier.out_proj"
    )


def _bert_like(
    config: Config, tensors: Tensors, *, first_position: int, dense: str, classifier: str
) -> Encoder:
    hidden, wide = config.count("hidden_size"), config.count("intermediate_size")
    positions = _table(tensors, "embeddings.position_embeddings.weight", hidden)[first_position:]
    if not len(positions):
        raise CheckpointError(f"{config.name} has no positions left after the first {first_position}.")
    types = _table(tensors, "embeddings.token_type_embeddings.weight", hidden)
    layers = []
    for i in range(config.count("num_hidden_layers")):
        at = f"encoder.layer.{i}"
        layers.append(
            Layer(
                query=_linear(tensors, f"{at}.attention.self.query", hidden, hidden),
                key=_linear(tensors, f"{at}.attention.self.key", hidden, hidden),
                value=_linear(tensors, f"{at}.attention.self.value", hidden, hidden),
                output=_linear(tensors, f"{at}.attention.output.dense", hidden, hidden),
                attention_norm=_norm(tensors, f"{at}.attention.output.LayerNorm", hidden),
                expand=_linear(tensors, f"{at}.intermediate.dense", hidden, wide),
                contract=_linear(tensors, f"{at}.output.dense", wide, hidden),
                output_norm=_norm(tensors, f"{at}.output.LayerNorm", hidden),
            )
        )
    return Encoder(
        words=_table(tensors, "embeddings.word_embeddings.weight", hidden),
        positions=positions,
        embedding_norm=_norm(tensors, "embeddings.LayerNorm", hidden),
        layers=tuple(layers),
        dense=_linear(tensors, dense, hidden, hidden),
        activation="tanh",
        classifier=_linear(tensors, classifier, hidden, tensors.rows(f"{classifier}.weight")),
        heads=config.head_count("num_attention_heads", hidden),
        epsilon=config.epsilon(),
        types=types,
    )


FAMILIES = {
    "distilbert": Family("distilbert.", "activation", 0, _distilbert),
    "bert": Family("bert.", "hidden_act", 0, _bert),
    "roberta": Family("roberta.", "hidden_act", 1, _roberta),
    "xlm-roberta": Family("roberta.", "hidden_act", 1, _roberta),
}
