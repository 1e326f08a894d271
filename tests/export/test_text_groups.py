"""Which texts are computed together: on a CPU as ever, on a GPU many under a budget of tokens."""

from __future__ import annotations

import hashlib
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from export.triton_models.text_queue import Call, GpuGroupPolicy, TextQueue, length_groups

GPU = GpuGroupPolicy(texts=8, tokens=1024, padding=32, multiple=8, longest=300)
# Of the program before it knew any other device.
CPU_DECISIONS = "d69550c070c68a66880e3764621d95c53a125eca1a865793963a0bce4efe49f5"


def call_of(lengths: list[int], number: int = 0) -> Any:
    call: Any = Call(None, [[0] * length for length in lengths], labels=2)
    call.number = number
    return call


def decided(group: list[Any]) -> bytes:
    return repr([(length, age, place, call.number) for length, age, place, call in group]).encode()


def test_the_cpu_groups_texts_exactly_as_it_did_before_there_were_gpus() -> None:
    rng = random.Random(19)
    digest = hashlib.sha256()
    for _ in range(200):
        longest = rng.choice((12, 40, 140, 512))
        calls = [
            [rng.randint(1, longest) for _ in range(rng.randint(1, 24))] for _ in range(rng.randint(1, 12))
        ]
        digest.update(repr(length_groups(calls[0])).encode())
        queue = TextQueue()
        for number, lengths in enumerate(calls):
            queue.add(call_of(lengths, number))
            for _ in range(rng.randint(0, 3)):
                if len(queue):
                    digest.update(decided(queue.take(rng.randint(1, 20))))
        while len(queue):
            digest.update(decided(queue.take(rng.randint(1, 20))))
    assert digest.hexdigest() == CPU_DECISIONS


@pytest.mark.parametrize(
    ("length", "width"), [(1, 8), (8, 8), (9, 16), (295, 296), (297, 300), (300, 300), (301, 301)]
)
def test_a_gpus_groups_are_padded_to_multiples_of_8_and_no_further_than_the_model_reads(
    length: int, width: int
) -> None:
    assert GPU.width(length) == width


def check_group(lengths: list[int]) -> None:
    computed = len(lengths) * GPU.width(max(lengths))
    assert len(lengths) <= GPU.texts
    if len(lengths) > 1:
        assert computed <= GPU.tokens
        assert computed - sum(lengths) <= GPU.padding + computed // 8


@given(st.lists(st.integers(1, 300), min_size=1, max_size=64))
def test_every_text_is_in_one_group_within_the_budgets_of_the_gpu(lengths: list[int]) -> None:
    groups = length_groups(lengths, GPU)
    assert sorted(i for group in groups for i in group) == list(range(len(lengths)))
    for group in groups:
        check_group([lengths[i] for i in group])


@given(st.lists(st.lists(st.integers(1, 300), min_size=1, max_size=16), max_size=12), st.integers(1, 20))
def test_a_queue_for_a_gpu_gives_every_text_once_and_the_oldest_first(
    calls: list[list[int]], limit: int
) -> None:
    queue = TextQueue(GPU)
    waiting: list[tuple[int, int]] = []
    for number, lengths in enumerate(calls):
        queue.add(call_of(lengths, number))
        waiting += [(number, place) for place in range(len(lengths))]
        if number % 2:
            take(queue, limit, waiting)
    while len(queue):
        take(queue, limit, waiting)
    assert not waiting


def take(queue: TextQueue, limit: int, waiting: list[tuple[int, int]]) -> None:
    group: list[Any] = queue.take(limit)
    assert len(group) <= limit
    check_group([length for length, _, _, _ in group])
    names = [(call.number, place) for _, _, place, call in group]
    assert waiting[0] in names
    for name in names:
        waiting.remove(name)


def test_a_gpu_takes_a_whole_call_of_mixed_short_texts_at_once_but_no_long_one_beside_them() -> None:
    policy = GpuGroupPolicy()
    short = [6 + place % 20 for place in range(63)]
    queue = TextQueue(policy)
    queue.add(call_of([*short, 400]))
    assert [text[0] for text in queue.take(64)] == sorted(short)
    assert [text[0] for text in queue.take(64)] == [400]
