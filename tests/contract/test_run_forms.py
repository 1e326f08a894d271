"""The other forms of the run route: the model in the body, the AI Gateway's path, gzip bodies, rates."""

from __future__ import annotations

import gzip
import json

import pytest

from tests.contract.test_errors import GOOD, MISSING, check_ai
from tests.support.fake_triton import SST2, FakeTriton
from tests.support.harness import (
    ACCOUNT,
    ANY_TOKEN,
    RUN,
    TOKEN,
    Client,
    running_gateway,
    settings_for,
)

BY_BODY = f"/client/v4/accounts/{ACCOUNT}/ai/run"
BAD = "Bad input: Error: "


async def test_the_model_may_be_named_in_the_body(client: Client, triton: FakeTriton) -> None:
    by_path = await client.run({"text": "a"})
    for body in (
        {"model": SST2, "input": {"text": "a"}},
        {"model": SST2, "input": {"text": "a"}, "options": {"gateway": {"id": "default"}}, "x": 1},
        {"model": SST2, "input": {"text": "a", "extra": 1}, "options": None},
    ):
        answer = await client.run(body, path=BY_BODY)
        assert (answer.status, answer.body) == (200, by_path.body)
    assert triton.texts == [b"a"] * 4
    items = await client.run(
        {"model": SST2, "input": {"text": "a"}}, path=BY_BODY, query="?result_shape=items"
    )
    assert "items" in items.json["result"]


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"{}", BAD + "required properties at '/' are 'model,input'"),
        (b"[]", BAD + "required properties at '/' are 'model,input'"),
        (b'{"model":"m"}', BAD + "required properties at '/' are 'model,input'"),
        (b'{"input":{"text":"a"}}', BAD + "required properties at '/' are 'model,input'"),
        (b'{"model":5,"input":{}}', BAD + "Type mismatch of '/model', 'string' not in 'number','integer'"),
        (b'{"model":null,"input":{}}', BAD + "Type mismatch of '/model', 'string' not in 'null'"),
        (b'{"model":"","input":{}}', BAD + "Length of '/model' must be >= 1 not met"),
        (f'{{"model":"{SST2}","input":{{}}}}'.encode(), BAD + "required properties at '/' are 'text'"),
        (f'{{"model":"{SST2}","input":"a"}}'.encode(), BAD + "required properties at '/' are 'text'"),
        (
            f'{{"model":"{SST2}","input":{{"text":1.5}}}}'.encode(),
            BAD + "Type mismatch of '/text', 'string' not in 'number'",
        ),
    ],
)
async def test_a_body_without_model_or_good_input_is_5006(client: Client, body: bytes, text: str) -> None:
    check_ai(await client.run(body, path=BY_BODY), 400, 5006, text)


async def test_an_unknown_model_in_the_body_is_5007(client: Client) -> None:
    for name, shown in ((b"@cf/no/such", "@cf/no/such"), (rb"x\ud800", "x\ufffd")):
        answer = await client.run(b'{"model":"' + name + b'","input":{"text":"a"}}', path=BY_BODY)
        check_ai(answer, 400, 5007, f"No such model {shown} or task")
    assert await client.metric('tritonflare_requests_total{code="5007",model="unknown",status="400"}') == 2


async def test_the_form_with_the_model_in_the_body_has_the_same_bounds(triton: FakeTriton) -> None:
    async with running_gateway(settings_for(triton, max_body_bytes=100)) as running:
        client = running.client
        check_ai(
            await client.run(b"x" * 101, path=BY_BODY),
            413,
            3006,
            "Request is too large: the limit is 100 bytes",
        )
        check_ai(await client.run(b"", path=BY_BODY), 400, 3003, MISSING + "empty")
        assert (await client.send("GET", BY_BODY)).error["code"] == 7001
        assert (await client.send("POST", BY_BODY, GOOD, {})).error["code"] == 9106


@pytest.mark.parametrize("slug", [SST2, SST2.replace("/", "%2F"), "%40" + SST2[1:]])
async def test_the_path_of_the_ai_gateway_works(client: Client, slug: str) -> None:
    path = f"/v1/{ACCOUNT}/any-gateway/workers-ai/{slug}"
    answer = await client.run({"text": "a"}, path=path)
    assert (answer.status, answer.body) == (200, (await client.run({"text": "a"})).body)
    other = await client.run({"text": "a"}, path=f"/v1/another/g/workers-ai/{slug}")
    assert other.status == 403


def _gzipped(client: Client, encoding: str = "gzip") -> dict[str, str]:
    return dict(client.headers) | {"Content-Encoding": encoding}


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "x-gzip"])
async def test_a_body_in_gzip_works(client: Client, triton: FakeTriton, encoding: str) -> None:
    body = gzip.compress(json.dumps({"text": "zipped"}).encode())
    answer = await client.send("POST", RUN, body, _gzipped(client, encoding))
    assert answer.status == 200
    assert triton.texts == [b"zipped"]


async def test_a_chunked_body_in_gzip_works(client: Client) -> None:
    body = gzip.compress(GOOD)
    chunked = b"%x\r\n%s\r\n%x\r\n%s\r\n0\r\n\r\n" % (7, body[:7], len(body) - 7, body[7:])
    headers = _gzipped(client) | {"Transfer-Encoding": "chunked"}
    assert (await client.send("POST", RUN, chunked, headers)).status == 200


@pytest.mark.parametrize("encoding", ["application/json", "identity", "", "utf-8", "gzip"])
async def test_a_plain_body_is_plain_for_any_content_encoding(client: Client, encoding: str) -> None:
    assert (await client.send("POST", RUN, GOOD, _gzipped(client, encoding))).status == 200


async def test_broken_gzip_is_3003(client: Client) -> None:
    whole = gzip.compress(GOOD)
    for body in (whole[:-1], whole[:12], whole + b"x", b"\x1f\x8b" + b"\xff" * 30):
        answer = await client.send("POST", RUN, body, _gzipped(client))
        check_ai(answer, 400, 3003, MISSING + "not valid gzip")
    not_json = await client.send("POST", RUN, gzip.compress(b"{"), _gzipped(client))
    check_ai(not_json, 400, 3003, MISSING + "not valid JSON")


async def test_the_limit_is_on_the_body_after_decompression(triton: FakeTriton) -> None:
    just = b'{"text":"' + b"a" * 989 + b'"}'
    async with running_gateway(settings_for(triton, max_body_bytes=1000)) as running:
        client = running.client
        assert (await client.send("POST", RUN, gzip.compress(just), _gzipped(client))).status == 200
        bomb = gzip.compress(b"\0" * (50 << 20))[:900]  # refused before its end is missed
        for body in (gzip.compress(just + b" "), bomb):
            answer = await client.send("POST", RUN, body, _gzipped(client))
            check_ai(answer, 413, 3006, "Request is too large: the limit is 1000 bytes")


class FrozenTime:
    """A clock that moves when told to, in place of the module ``time``."""

    def __init__(self, now: float) -> None:
        self.now = now

    def time(self) -> float:
        return self.now


RATE = "rate limiting: inference request per min rate reached"


async def test_above_the_rate_of_an_account_requests_are_3021_with_the_time_to_wait(
    triton: FakeTriton,
) -> None:
    async with running_gateway(settings_for(triton, requests_per_minute=3, max_batch_texts=2)) as running:
        client = running.client
        for _ in range(3):
            assert (await client.run({"text": "a"})).status == 200
        answer = await client.run({"text": "a"})
        check_ai(answer, 429, 3021, RATE)
        # Python's SDK obeys up to 60 seconds.
        assert 1 <= int(answer.header("retry-after") or "0") <= 60
        assert 100 <= int(answer.header("retry-after-ms") or "0") <= 60_000
        check_ai(await client.run({"model": SST2, "input": {"text": "a"}}, path=BY_BODY), 429, 3021, RATE)
        # Asking about models is not inference, and other accounts have a rate of their own.
        assert (await client.get(f"/client/v4/accounts/{ACCOUNT}/ai/models/search")).status == 200
        other = RUN.replace(ACCOUNT, "another")
        headers = {"Authorization": f"Bearer {ANY_TOKEN}"}
        assert (await client.send("POST", other, GOOD, headers)).status == 200
        assert len(triton.texts) == 4


async def test_accounts_that_no_token_names_share_one_rate(triton: FakeTriton) -> None:
    headers = {"Authorization": f"Bearer {ANY_TOKEN}"}
    async with running_gateway(settings_for(triton, requests_per_minute=2, max_batch_texts=1)) as running:
        statuses = [
            (await running.client.send("POST", RUN.replace(ACCOUNT, f"made-up-{n}"), GOOD, headers)).status
            for n in range(4)
        ]
        assert statuses == [200, 200, 429, 429]
        own = await running.client.send("POST", RUN, GOOD, {"Authorization": f"Bearer {TOKEN}"})
        assert own.status == 200


async def test_every_text_of_a_batch_counts_and_a_refused_batch_costs_nothing(triton: FakeTriton) -> None:
    async with running_gateway(settings_for(triton, requests_per_minute=4, max_batch_texts=4)) as running:
        client = running.client
        three = {"requests": [{"text": "a"}] * 3}
        assert (await client.run(three)).status == 200
        for _ in range(3):
            check_ai(await client.run(three), 429, 3021, RATE)
        assert (await client.run(GOOD)).status == 200
        check_ai(await client.run(GOOD), 429, 3021, RATE)
        assert len(triton.texts) == 4


@pytest.mark.parametrize("already", [3, 4])
async def test_a_refused_batch_that_waits_for_retry_after_is_answered_at_once(
    triton: FakeTriton, monkeypatch: pytest.MonkeyPatch, already: int
) -> None:
    clock = FrozenTime(1_000_000_000.0)
    monkeypatch.setattr("limits.aio.storage.memory.time", clock)
    three = {"requests": [{"text": "a"}] * 3}
    async with running_gateway(settings_for(triton, requests_per_minute=4, max_batch_texts=3)) as running:
        client = running.client
        for _ in range(already):
            assert (await client.run(GOOD)).status == 200
        for _ in range(3):
            answer = await client.run(three)
            check_ai(answer, 429, 3021, RATE)
            clock.now += int(answer.header("retry-after-ms") or "0") / 1000
            assert (await client.run(three)).status == 200


async def test_what_never_becomes_a_text_does_not_count(triton: FakeTriton) -> None:
    async with running_gateway(settings_for(triton, requests_per_minute=1, max_batch_texts=1)) as running:
        client = running.client
        for _ in range(3):
            assert (await client.run(b"{")).status == 400
            assert (await client.run(GOOD, path=RUN + "x")).status == 400
        assert (await client.run(GOOD)).status == 200


async def test_refused_credentials_do_not_count(triton: FakeTriton) -> None:
    async with running_gateway(settings_for(triton, requests_per_minute=1, max_batch_texts=1)) as running:
        for _ in range(3):
            assert (await running.client.send("POST", RUN, GOOD, {"Authorization": "Bearer x"})).status == 401
        assert (await running.client.run({"text": "a"})).status == 200
