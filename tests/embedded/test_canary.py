"""The supervisor's canaries ask each model for what it reads."""

from __future__ import annotations

import pytest

from embedded.canary import TEXT, Canary
from embedded.repository import RepositoryModel
from tests.support.fake_triton import FakeEnsemble, FakeTriton, read_pairs, read_texts, reranker
from tests.support.gateway_process import triton_in_a_thread


@pytest.mark.parametrize("ensemble", [FakeEnsemble(), reranker()], ids=lambda each: each.task)
def test_a_canary_holds_every_input_of_its_model(ensemble: FakeEnsemble) -> None:
    fake = FakeTriton()
    fake.ensembles = [ensemble]
    inputs = ("QUERY", "TEXT") if ensemble.task == "rerank" else ("TEXT",)
    with triton_in_a_thread(fake), Canary(fake.url, "key", "secret") as canary:
        answer = canary.probe(RepositoryModel(ensemble.name, "@cf/a/m", inputs=inputs)).result(timeout=10)
    assert {output.name for output in answer.outputs} == {"logits", "token_count"}
    (request,) = fake.requests
    if ensemble.task == "rerank":
        assert read_pairs(request) == [(TEXT, TEXT)]
    else:
        assert read_texts(request) == [TEXT]
        assert len(request.inputs) == 1
