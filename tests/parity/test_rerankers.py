"""Rerankers score pairs as transformers and torch do: tokens, counts and logits, whatever the batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.artefact import Artefact
from export.checkpoint import load_checkpoint
from export.checkpoint.tokenizer import load_tokenizer
from export.graph.encoder import FLAVOURS
from export.plan import ExportPlan
from export.route import route_of
from export.rows import PairRow
from export.run import run_export
from export.torch_route import TorchRoute
from export.triton_models.pairs import NO_ROOM, PairEncoder
from tests.support.mixed_batches import mixed
from tests.support.pair_checkpoints import (
    READ_TYPES,
    RERANKERS,
    TOKENS,
    TORCH,
    of_transformers,
    random_pairs,
    save_reranker,
)
from tests.support.small_checkpoints import LENIENT

LARGEST = 1e-4
BATCHES = ((1, 17), (2, 3, 8))


def differences(graph: Any, folder: Path, rows: list[Any], wanted: Any) -> float:
    """Over every pair alone and in padded batches of mixed lengths."""
    file = folder / "model.onnx"
    file.write_bytes(graph.SerializeToString())
    artefact = Artefact(file, 1)
    found = [artefact.alone(rows), *(mixed(artefact, rows, sizes) for sizes in BATCHES)]
    return max(float(np.abs(logits - wanted).max()) for logits in found)


# torch traces for a minute; the side on which texts are cut is no affair of the model.
CASES = [
    (name, side) for name in RERANKERS for side in ("right", "left") if side == "right" or name not in TORCH
]


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("name", "side"), CASES)
def test_pairs_have_the_tokens_counts_and_logits_of_transformers(
    tmp_path: Path, name: str, side: str
) -> None:
    model = save_reranker(name, tmp_path / "m", side)
    checkpoint = load_checkpoint(tmp_path / "m", tmp_path / "work")
    assert (checkpoint.task, checkpoint.max_tokens) == ("rerank", TOKENS)
    assert checkpoint.problem_type == "multi_label_classification"
    assert checkpoint.token_types == (name in READ_TYPES)
    asked = random_pairs(36, seed=3)
    wanted = of_transformers(model, tmp_path / "m", asked)
    assert 2 <= wanted.count(None) < 10

    tokenizer = load_tokenizer(checkpoint.tokenizer_file, TOKENS)
    assert (tokenizer.truncation or {})["direction"] == side
    tokenizer.no_truncation()
    encoder = PairEncoder(tokenizer, TOKENS, side)
    rows: list[Any] = []
    logits = []
    for short, long, expected in zip(
        encoder.encode_batch(asked), encoder.encode_long(asked), wanted, strict=True
    ):
        assert (short.ids, short.types) == (long.ids, long.types)
        if expected is None:
            assert short.token_count == long.token_count == NO_ROOM
            continue
        ids, logit, count = expected
        assert (short.ids, short.token_count) == (ids, count)
        assert long.token_count == count or TOKENS < long.token_count < count
        rows.append(PairRow(short.ids, short.types) if checkpoint.token_types else short.ids)
        logits.append([logit])
    lengths = [len(row) for row in rows]
    assert min(lengths) < 10
    assert max(lengths) == TOKENS
    assert np.std(logits) > 0.1  # else agreeing would be no news

    route = route_of(checkpoint)
    assert isinstance(route, TorchRoute) == (name in TORCH)
    for flavour in ("cpu",) if name in TORCH else FLAVOURS:
        assert differences(route.fp32_graph(flavour), tmp_path, rows, logits) < LARGEST
    short_rows = sorted(range(len(rows)), key=lengths.__getitem__)[:8]
    reference = route.reference([rows[i] for i in short_rows])
    np.testing.assert_allclose(reference, [logits[i] for i in short_rows], atol=LARGEST)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize(("target", "precision"), [("cpu", "int8"), ("onnxruntime", "fp16")])
def test_a_reranker_of_torch_is_exported_with_its_types(tmp_path: Path, target: str, precision: str) -> None:
    save_reranker("electra", tmp_path / "m")
    plan = ExportPlan(
        tmp_path / "m", tmp_path / "models", tmp_path / "artefacts", target=target, precision=precision,
        limits=LENIENT, timing=None, all_precisions=False,
    )  # fmt: skip
    model = run_export(plan).model
    assert (model.task, model.token_types, model.labels) == ("rerank", True, ("label 0",))
    assert "token_type_ids" in (plan.repository / model.encoder / "config.pbtxt").read_text()
