"""Clients of all fronts at the same time: no answer depends on its neighbours."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from threading import Event

from tests.support.clients.inference_clients import (
    PATH_SAFE,
    ClientProgram,
    Target,
    check_each,
    scores_of_the_http_api,
)
from tests.support.servers import Program

WITHOUT_NODE = True
REPEATS = 6
"""How often each client sends each text."""
OVER_GRPC = ["triton_grpc", "triton_grpc_aio", "triton_grpc_stream", "kserve_grpc"]
OVER_HTTP = ["triton_http", "triton_http_aio", "kserve_rest"]


def test_scores_are_the_same_bits_while_all_fronts_are_busy(
    inference_gateway: Program, inference_target: Target, http_scores: list[list[float]]
) -> None:
    texts = list(inference_target.texts) * REPEATS
    random.Random(1).shuffle(texts)
    expected = dict(zip(inference_target.texts, http_scores, strict=True))
    target = replace(inference_target, texts=texts)
    targets = [(name, target) for name in OVER_GRPC]
    targets += [(name, target.calling(PATH_SAFE)) for name in OVER_HTTP]
    over = Event()

    def classify_over_the_api() -> int:
        """Ask until all programs have ended, because some need long to start; the number of rounds."""
        rounds = 0
        while not over.is_set():
            assert scores_of_the_http_api(inference_gateway.url, inference_target.texts) == http_scores
            rounds += 1
        return rounds

    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(2))
        stack.callback(over.set)
        api = [pool.submit(classify_over_the_api) for _ in range(2)]
        programs = [stack.enter_context(ClientProgram(name, asked, "scores")) for name, asked in targets]
        answers = [program.results()["scores"] for program in programs]
        over.set()
        assert all(client.result() > 0 for client in api)
    for found in answers:
        check_each(found, [expected[text] for text in texts])
