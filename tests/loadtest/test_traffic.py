"""What the load test asks."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from loadtest.protocols.http import HttpRequests
from loadtest.traffic import KINDS, MIXED, Traffic, long_texts, parse_traffic, read_texts, run_url
from tests.support.texts import sentences

URL = run_url("http://host", "a" * 32, "@cf/x/y")


@pytest.mark.parametrize(
    "host", ["https://h:1", "https://h:1/", "https://h:1/client/v4", "https://h:1/client/v4/"]
)
def test_the_address_is_the_same_however_the_host_is_written(host: str) -> None:
    assert run_url(host, "acc", "@cf/x/y") == "https://h:1/client/v4/accounts/acc/ai/run/@cf/x/y"


def test_a_mix_is_read_with_its_weights() -> None:
    assert parse_traffic("single") == {"single": 1}
    assert parse_traffic("single=9, long=0.5") == {"single": 9, "long": 0.5}
    assert parse_traffic("mixed") == dict(MIXED)
    assert set(MIXED) == set(KINDS)


@pytest.mark.parametrize(
    "text", ["", "short", "single=0", "single=-1", "single=x", "single=inf", "single=nan"]
)
def test_a_mix_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"none of|above 0|could not convert"):
        parse_traffic(text)


def test_sentences_are_spread_over_the_file() -> None:
    chosen = read_texts(limit=100)
    assert len(set(chosen)) == 100
    assert set(chosen) <= set(sentences())
    assert chosen[-1] in sentences()[-40:]


def test_calls_come_in_the_wanted_shares_and_are_what_they_are_called() -> None:
    traffic = Traffic(HttpRequests(URL), MIXED, read_texts(), seed=3)
    calls = [traffic.draw() for _ in range(4000)]
    counts = Counter(call.kind for call in calls)
    for kind, weight in MIXED.items():
        assert counts[kind] / 4000 == pytest.approx(weight / sum(MIXED.values()), abs=0.02)
    for call in calls:
        body = json.loads(call.body)
        if call.kind == "several":
            assert tuple(one["text"] for one in body["requests"]) == call.texts
            assert [one["external_reference"] for one in body["requests"]] == [str(n) for n in range(8)]
        elif call.kind == "invalid":
            assert call.refusal is not None
            assert not call.texts
        else:
            assert (body, call.refusal) == ({"text": call.texts[0]}, None)
    assert {text for call in calls for text in call.texts} <= set(traffic.texts)


def test_the_same_seed_asks_the_same() -> None:
    def drawn(seed: int) -> list[bytes]:
        traffic = Traffic(HttpRequests(URL), MIXED, read_texts(), seed)
        return [traffic.draw().body for _ in range(50)]

    assert drawn(1) == drawn(1) != drawn(2)


def test_long_texts_go_beyond_what_the_model_reads() -> None:
    sizes = [len(text.split()) for text in long_texts(read_texts())]
    assert max(sizes) == 450
    assert min(sizes) < 50
