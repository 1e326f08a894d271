"""What a good request gets, byte for byte."""

from __future__ import annotations

import math
import struct

import pytest

from tests.support.fake_triton import SST2, FakeEnsemble, FakeTriton
from tests.support.harness import ACCOUNT, ANY_TOKEN, RUN, UUID, Client, running_gateway, settings_for

PIZZA = {"text": "This pizza is great!"}


def _softmax2(a: float, b: float) -> tuple[float, float]:
    first = 1 / (1 + math.exp(b - a))
    return first, 1 - first


async def test_the_answer_has_the_bytes_of_the_live_api(client: Client, triton: FakeTriton) -> None:
    triton.answer_logits(0.0, 0.0)
    answer = await client.run(PIZZA)
    assert answer.status == 200
    assert answer.body == (
        b'{"result":[{"label":"NEGATIVE","score":0.5},{"label":"POSITIVE","score":0.5}],'
        b'"success":true,"errors":[],"messages":[]}'
    )


async def test_labels_keep_the_catalogues_order_whichever_wins(client: Client, triton: FakeTriton) -> None:
    for logits in ((-4.0, 4.5), (3.0, -2.0)):
        triton.answer_logits(*logits)
        result = (await client.run(PIZZA)).json["result"]
        assert [entry["label"] for entry in result] == ["NEGATIVE", "POSITIVE"]
        scores = [entry["score"] for entry in result]
        assert scores == pytest.approx(_softmax2(*logits), abs=1e-15)
        assert sum(scores) == pytest.approx(1, abs=1e-15)


async def test_scores_come_in_full_double_precision(client: Client, triton: FakeTriton) -> None:
    logits = struct.unpack("<2f", struct.pack("<2f", -1.2345678, 2.3456789))
    triton.answer_logits(*logits)
    result = (await client.run(PIZZA)).json["result"]
    top = math.exp(logits[0] - logits[1])
    assert result[1]["score"] == 1.0 / math.fsum((top, 1.0))


async def test_the_text_reaches_triton_once_as_utf8(client: Client, triton: FakeTriton) -> None:
    await client.run({"text": "Käse 🧀"})
    assert triton.texts == ["Käse 🧀".encode()]


async def test_a_lone_surrogate_reaches_triton_as_the_replacement_character(
    client: Client, triton: FakeTriton
) -> None:
    answer = await client.run(rb'{"text":"a\ud800b \ud83e\uddc0"}')
    assert answer.status == 200
    assert triton.texts == ["a\ufffdb 🧀".encode()]


@pytest.mark.parametrize(
    "slug",
    [
        "@cf/huggingface/distilbert-sst-2-int8",
        "@cf%2Fhuggingface%2Fdistilbert-sst-2-int8",
        "@cf%2fhuggingface%2fdistilbert-sst-2-int8",
        "%40cf/huggingface/distilbert-sst-2-int8",
        "%40cf%2Fhuggingface%2Fdistilbert-sst-2-int8",
    ],
)
async def test_every_way_to_write_the_slug_works(client: Client, slug: str) -> None:
    answer = await client.run(PIZZA, path=f"/client/v4/accounts/{ACCOUNT}/ai/run/{slug}")
    assert answer.status == 200


@pytest.mark.parametrize(
    "content_type",
    [None, "application/json", "text/plain;charset=UTF-8", "application/x-www-form-urlencoded", "nonsense"],
)
async def test_the_content_type_of_the_request_does_not_matter(
    client: Client, content_type: str | None
) -> None:
    headers = dict(client.headers) | ({"Content-Type": content_type} if content_type else {})
    answer = await client.send("POST", RUN, b'{ "text": "This pizza is great!" }', headers)
    assert answer.status == 200


async def test_a_chunked_body_works(client: Client) -> None:
    headers = dict(client.headers) | {"Transfer-Encoding": "chunked"}
    answer = await client.send("POST", RUN, b'5\r\n{"tex\r\n7\r\nt":"a"}\r\n0\r\n\r\n', headers)
    assert answer.status == 200


@pytest.mark.parametrize(
    "body",
    [
        b'{"text":"a","extra":1,"options":{"rejectIfBusy":true}}',
        b'{"text":1,"text":"last key wins"}',
        b'{"text":"   "}',
        b'\xef\xbb\xbf{"text":"behind a byte order mark"}',
        b'{"text":"a","big":1e999,"bigger":' + b"9" * 5000 + b"}",
        b' \n{"text"\t:"a"}\r\n',
    ],
)
async def test_what_javascript_would_accept_is_accepted(client: Client, body: bytes) -> None:
    assert (await client.run(body)).status == 200


async def test_the_headers_of_an_answer(client: Client) -> None:
    answer = await client.run({"text": "one two three"})
    assert answer.header("content-type") == "application/json"
    assert answer.header("cf-ai-neurons") == "0.01"  # 5 tokens x 0.002394
    assert UUID.fullmatch(answer.header("cf-ai-req-id") or "")
    assert answer.header("cf-ray")
    assert answer.header("x-truncated") is None
    assert answer.header("server") is None


async def test_two_answers_have_two_request_ids(client: Client) -> None:
    first, second = await client.run(PIZZA), await client.run(PIZZA)
    for name in ("cf-ai-req-id", "cf-ray"):
        assert first.header(name) != second.header(name)


async def test_a_text_of_just_the_limit_is_not_truncated(client: Client) -> None:
    answer = await client.run({"text": "word " * 510})
    assert answer.header("x-truncated") is None
    assert answer.header("cf-ai-neurons") == "1.23"  # 512 x 0.002394 = 1.2257


async def test_a_longer_text_is_marked_and_billed_for_what_was_read(client: Client) -> None:
    for words in (511, 2000):
        answer = await client.run({"text": "word " * words})
        assert answer.status == 200
        assert answer.header("x-truncated") == "true"
        assert answer.header("cf-ai-neurons") == "1.23"


async def test_result_shape_items_wraps_and_sorts_best_first(client: Client, triton: FakeTriton) -> None:
    triton.answer_logits(-4.0, 4.5)
    answer = await client.run(PIZZA, query="?result_shape=items")
    assert list(answer.json) == ["result", "success", "errors", "messages"]
    assert [entry["label"] for entry in answer.json["result"]["items"]] == ["POSITIVE", "NEGATIVE"]
    plain = await client.run(PIZZA)
    assert answer.json["result"]["items"] == plain.json["result"][::-1]


async def test_the_query_beats_the_setting_of_the_result_shape(triton: FakeTriton) -> None:
    async with running_gateway(settings_for(triton, result_shape="items")) as running:
        assert "items" in (await running.client.run(PIZZA)).json["result"]
        array = await running.client.run(PIZZA, query="?result_shape=array")
        assert isinstance(array.json["result"], list)


async def test_a_multi_label_model_gets_independent_scores(client: Client, triton: FakeTriton) -> None:
    triton.ensembles.append(
        FakeEnsemble(
            "toxic",
            "@cf/x/toxic",
            ("toxic", "obscene", "threat"),
            128,
            "multi_label_classification",
            (0, 2, -2),
        )
    )
    path = f"/client/v4/accounts/{ACCOUNT}/ai/run/@cf/x/toxic"

    async def served() -> bool:
        return (await client.run(PIZZA, path=path)).status == 200

    from tests.support.harness import until

    await until(served)
    scores = [entry["score"] for entry in (await client.run(PIZZA, path=path)).json["result"]]
    assert scores == pytest.approx([0.5, 1 / (1 + math.exp(-2)), 1 / (1 + math.exp(2))], abs=1e-12)


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "bearer test-token-of-the-account"},
        {"Authorization": f"BEARER   {ANY_TOKEN}"},
        {"X-Auth-Email": "me@example.com", "X-Auth-Key": ANY_TOKEN},
    ],
)
async def test_every_way_to_authenticate_works(client: Client, headers: dict[str, str]) -> None:
    assert (await client.send("POST", RUN, b'{"text":"a"}', headers)).status == 200


async def test_a_connection_serves_several_requests(client: Client) -> None:
    import httpx

    async with httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{client.port}", headers=client.headers, trust_env=False
    ) as http:
        for number in range(3):
            answer = await http.post(RUN, json={"text": str(number)})
            assert answer.json()["success"] is True
        assert (await http.post(RUN, content=b"x" * (2 << 20))).status_code == 413
        assert (await http.post(RUN, json=PIZZA)).status_code == 200


async def test_the_model_is_the_ensemble_that_carries_the_name(client: Client, triton: FakeTriton) -> None:
    await client.run(PIZZA)
    request = triton.requests[-1]
    assert request.model_name == "sst2"
    assert [(i.name, i.datatype, list(i.shape)) for i in request.inputs] == [("TEXT", "BYTES", [1, 1])]
    assert {output.name for output in request.outputs} == {"logits", "token_count"}
    assert request.model_name != SST2
