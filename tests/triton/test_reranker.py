"""A reranker inside the real Triton: pairs in, one logit each, whatever stands beside them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from tritonclient.grpc import InferenceServerClient, InferInput

from embedded.server import RESTRICTED_KEY, TritonServer
from export.checkpoint import load_checkpoint
from export.plan import ExportPlan
from export.reference import logits
from export.repository.inventory import read_inventory, verify_repository
from export.run import run_export
from export.triton_models.pairs import NO_ROOM
from tests.support.small_checkpoints import LENIENT, POSITIONS, ROBERTA_WORDS, WORDS, write_checkpoint

pytestmark = pytest.mark.needs_triton

Pairs = list[tuple[str, str]]
# Three or four of the POSITIONS tokens are special.
LONG_QUERY = "a " * (POSITIONS - 3)
PAIRS: Pairs = [
    ("a b", "c d e"), ("q", "x y z " * 7), (LONG_QUERY, "b"), ("a b", "c"), ("w", "k " * 500),
    ("a b", "c d e f g"), ("m n", "c " * 9_000), ("a b", "z"),
]  # fmt: skip


class Reranker:
    """The published model, served."""

    def __init__(self, server: TritonServer, plan: ExportPlan) -> None:
        self.server = server
        self.source = Path(plan.source)
        (self.model,) = read_inventory(plan.repository)

    def ask(self, pairs: Pairs) -> tuple[npt.NDArray[np.float32], list[int]]:
        """Logits FP32 [n, 1] and token counts of one request."""
        tensors = []
        for place, name in enumerate(("QUERY", "TEXT")):
            tensor = InferInput(name, [len(pairs), 1], "BYTES")
            tensor.set_data_from_numpy(np.array([[pair[place].encode()] for pair in pairs], dtype=np.object_))
            tensors.append(tensor)
        with InferenceServerClient(self.server.address) as client:
            answer = client.infer(
                self.model.ensemble,
                tensors,
                headers={f"triton-grpc-protocol-{RESTRICTED_KEY}": self.server.secret},
            )
        return answer.as_numpy("logits"), answer.as_numpy("token_count").ravel().tolist()


@pytest.fixture(scope="module", params=["bert-steps", "roberta-steps", "bert-joined"])
def reranker(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reranker]:
    """One whose encoder reads token types, and one without; the first also with its steps in one."""
    folder = tmp_path_factory.mktemp(request.param)
    family, _, layout = request.param.partition("-")
    source = write_checkpoint(folder / "m", labels=1, family=family)
    plan = ExportPlan(
        source, folder / "models", folder / "artefacts", precision="fp32", limits=LENIENT, timing=None,
        all_precisions=False, layout=layout,
    )  # fmt: skip
    run_export(plan)
    assert verify_repository(plan.repository) == []
    with TritonServer(plan.repository) as server:
        yield Reranker(server, plan)


def test_a_pair_scores_alone_what_it_scores_beside_others(reranker: Reranker) -> None:
    together, counts = reranker.ask(PAIRS)
    assert together.shape == (len(PAIRS), 1)
    assert [count == NO_ROOM for count in counts] == [pair[0] == LONG_QUERY for pair in PAIRS]
    for row, count, pair in zip(together, counts, PAIRS, strict=True):
        alone, own_count = reranker.ask([pair])
        assert own_count == [count] or POSITIONS < own_count[0] < 10_000
        if count != NO_ROOM:
            np.testing.assert_allclose(alone[0], row, atol=1e-6)
    scored = [row[0] for row, count in zip(together.tolist(), counts, strict=True) if count != NO_ROOM]
    assert len({round(score, 4) for score in scored}) > 4  # else agreeing would be no news


def test_the_scores_are_those_of_the_reference(reranker: Reranker, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(reranker.source, tmp_path)
    words = ROBERTA_WORDS if checkpoint.family == "roberta" else WORDS
    query, text = ([words.index(letter) for letter in part] for part in ("ab", "cde"))
    if checkpoint.family == "roberta":
        ids, types = [0, *query, 2, 2, *text, 2], None
    else:
        ids, types = [2, *query, 3, *text, 3], [0] * 4 + [1] * 4
    found, counts = reranker.ask([("a b", "c d e")])
    assert counts == [len(ids)]
    np.testing.assert_allclose(found, [logits(checkpoint.encoder, ids, types)], atol=1e-5)
