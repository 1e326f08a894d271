"""The real gateway before a fake Triton with a reranker, for tests of what clients send and get."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.fake_triton import FakeTriton, reranker
from tests.support.gateway_process import triton_in_a_thread
from tests.support.servers import ACCOUNT, TOKEN, Program, running


@contextmanager
def gateway_with_reranker(**settings: str) -> Iterator[Program]:
    """The gateway until the end of the block; see `relevance` for what a context scores."""
    fake = FakeTriton()
    fake.ensembles.append(reranker())
    tokens = {"GATEWAY_API_TOKENS": f"{ACCOUNT}:{TOKEN}"}
    with (
        triton_in_a_thread(fake),
        running("gateway", "--port", "0", "--triton-url", fake.url, **tokens, **settings) as program,
    ):
        yield program
