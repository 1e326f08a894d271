"""The routes beside the run route: models, schemas, tasks, authors, tokens."""

from __future__ import annotations

import json
import re
from pathlib import Path
from urllib.parse import quote

import grpc
import pytest
from jsonschema import Draft202012Validator, ValidationError, validate
from tritonclient.grpc import service_pb2, service_pb2_grpc

from tests.contract.test_errors import AUTHENTICATION_ERROR, check_ai, check_front
from tests.support.fake_triton import RERANKER, SST2, FakeEnsemble, FakeTriton, reranker
from tests.support.harness import (
    ACCOUNT,
    ANY_TOKEN,
    TOKEN,
    Client,
    access_lines,
    running_gateway,
    settings_for,
    until,
)

AI = f"/client/v4/accounts/{ACCOUNT}/ai"
GET_ROUTES = (
    f"{AI}/models/search",
    f"{AI}/models/schema?model={quote(SST2, safe='')}",
    f"{AI}/tasks/search",
    f"{AI}/authors/search",
    f"{AI}/v1/models",
)


async def _serve_three(client: Client, triton: FakeTriton) -> None:
    triton.ensembles += [FakeEnsemble("b", "@cf/acme/mood"), FakeEnsemble("c", "@cf/acme/spam")]

    async def three() -> bool:
        return len((await client.get(f"{AI}/models/search")).json["result"]) == 3

    await until(three)


async def test_a_search_lists_what_triton_serves(client: Client, triton: FakeTriton) -> None:
    answer = await client.get(f"{AI}/models/search")
    assert answer.status == 200
    assert list(answer.json) == ["result", "success", "errors", "messages", "result_info"]
    assert answer.json["result_info"] == {"page": 1, "per_page": 100, "count": 1, "total_count": 1}
    (entry,) = answer.json["result"]
    assert (entry["name"], entry["task"]["name"]) == (SST2, "Text Classification")
    await _serve_three(client, triton)


@pytest.mark.parametrize("per_page", [1, 2, 3, 50])
async def test_a_client_that_pages_until_it_sees_an_empty_page_ends(
    client: Client, triton: FakeTriton, per_page: int
) -> None:
    await _serve_three(client, triton)
    seen: list[str] = []
    for page in range(1, 6):
        answer = await client.get(f"{AI}/models/search?page={page}&per_page={per_page}")
        names = [entry["name"] for entry in answer.json["result"]]
        info = answer.json["result_info"]
        assert info == {"page": page, "per_page": per_page, "count": len(names), "total_count": 3}
        if not names:
            break
        seen += names
    assert seen == ["@cf/acme/mood", "@cf/acme/spam", SST2]
    assert names == []


async def test_every_filter_of_the_sdks_is_understood(client: Client, triton: FakeTriton) -> None:
    await _serve_three(client, triton)
    for query, count in (
        ("search=mood", 1),
        ("author=acme", 2),
        ("task=Text%20Classification", 3),
        ("task=Text+Generation", 0),
        ("source=1", 3),
        ("source=2", 0),
        ("hide_experimental=true&include_deprecated=true", 3),
        ("format=openrouter", 3),
        ("author=acme&search=spam&per_page=10", 1),
    ):
        answer = await client.get(f"{AI}/models/search?{query}")
        assert len(answer.json["result"]) == count, query
        assert answer.json["result_info"]["total_count"] == count


@pytest.mark.parametrize("name", ["page", "per_page", "source"])
async def test_a_bad_number_is_a_clear_400(client: Client, name: str) -> None:
    for value in ("0", "-1", "x", "", "1.5", "9" * 30):
        check_ai(
            await client.get(f"{AI}/models/search?{name}={value}"),
            400,
            5006,
            f"Bad input: Error: query parameter '{name}' must be an integer >= 1",
        )


async def test_the_schema_of_a_model(client: Client) -> None:
    for slug in (SST2, quote(SST2, safe="")):
        answer = await client.get(f"{AI}/models/schema?model={slug}")
        assert answer.status == 200
        assert answer.json["result"]["input"]["required"] == ["text"]
        assert answer.json["result"]["input"]["properties"]["text"]["minLength"] == 1
        assert set(answer.json["result"]["output"]["items"]["properties"]) == {"score", "label"}
        for schema in answer.json["result"].values():
            assert schema["description"]
            assert schema["additionalProperties"] is True
    unknown = await client.get(f"{AI}/models/schema?model=@cf/no/such")
    check_ai(unknown, 400, 5007, "No such model @cf/no/such or task")
    for query in ("", "?model="):
        check_ai(
            await client.get(f"{AI}/models/schema{query}"),
            400,
            5006,
            "Bad input: Error: query parameter 'model' is required",
        )


async def test_a_schema_tells_the_labels_and_limits_of_its_model(triton: FakeTriton) -> None:
    triton.ensembles = [
        FakeEnsemble(labels=("bad", "so-so", "good"), logits=(1.0, 2.0, 3.0), max_tokens=128),
        reranker(),
    ]
    async with running_gateway(settings_for(triton, max_batch_texts=7, max_contexts=30)) as running:
        found = {}
        for name in (SST2, RERANKER):
            schema = (await running.client.get(f"{AI}/models/schema?model={name}")).json["result"]
            Draft202012Validator.check_schema(schema["input"])
            Draft202012Validator.check_schema(schema["output"])
            found[name] = schema
        answered = await running.client.run({"text": "a"})
        ranked = {"query": "a", "contexts": [{"text": "a"}, {"text": "b"}]}
        ranking = await running.client.run(ranked, path=f"{AI}/run/{RERANKER}")
    classifier, ranks = found[SST2], found[RERANKER]
    assert classifier["input"]["x-limits"] == {"max_input_tokens": 128, "max_requests": 7}
    assert classifier["output"]["items"]["properties"]["label"]["enum"] == ["bad", "so-so", "good"]
    assert ranks["input"]["x-limits"] == {"max_input_tokens": 512, "max_requests": 7}
    assert ranks["input"]["properties"]["contexts"]["maxItems"] == 30
    # What is answered is as described; what is refused is not.
    validate(answered.json["result"], classifier["output"])
    validate(ranked, ranks["input"])
    validate(ranking.json["result"], ranks["output"])
    described = ranks["output"]["properties"]
    assert list(described) == list(ranking.json["result"])
    assert list(described["usage"]["properties"]) == list(ranking.json["result"]["usage"])
    with pytest.raises(ValidationError):
        validate({"query": "a", "contexts": [{"text": "a"}] * 31}, ranks["input"])
    with pytest.raises(ValidationError):
        validate([{"label": "POSITIVE", "score": 1.0}], classifier["output"])


KNOWN_ALIAS = "@cf/huggingface/nonomni-distilbert-sst-2-int8"


async def test_aliases_work_everywhere_and_count_for_the_model_itself(triton: FakeTriton) -> None:
    triton.ensembles[0].overrides["tritonflare.aliases"] = '["@cf/acme/mood"]'
    async with running_gateway(settings_for(triton, aliases=f"@cf/mine/x={SST2}", grpc_port=0)) as running:
        client = running.client
        plain = await client.run({"text": "a"})
        binding = client.headers | {"cf-consn-sdk-version": "2.0.0"}
        tensor = {"name": "TEXT", "shape": [1, 1], "datatype": "BYTES", "data": ["a"]}
        scores = plain.json["result"]
        requests = 1
        for alias in ("@cf/acme/mood", "@cf/mine/x", KNOWN_ALIAS):
            for path in (f"{AI}/run/{alias}", f"/v1/{ACCOUNT}/mine/workers-ai/run/{quote(alias, safe='')}"):
                assert (await client.run({"text": "a"}, path=path)).body == plain.body
            by_body = await client.run({"model": alias, "input": {"text": "a"}}, path=f"{AI}/run")
            assert by_body.body == plain.body
            headers = binding | {"cf-consn-model-id": alias}
            bound = await client.send("POST", "/run?version=3", b'{"inputs":{"text":"a"}}', headers)
            assert bound.json == scores
            named = (await client.get(f"{AI}/models/schema?model={alias}")).json["result"]
            assert named["output"]["items"]["properties"]["label"]["enum"] == ["NEGATIVE", "POSITIVE"]
            for name in (alias, alias.replace("/", "--")):
                inferred = await client.run({"inputs": [tensor]}, path=f"/v2/models/{name}/infer")
                assert (inferred.status, inferred.json["model_name"]) == (200, name)
            async with grpc.aio.insecure_channel(f"127.0.0.1:{running.grpc_port}") as channel:
                stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
                metadata = (("authorization", f"Bearer {TOKEN}"),)
                described = await stub.ModelMetadata(
                    service_pb2.ModelMetadataRequest(name=alias), metadata=metadata
                )
                assert described.name == alias
            requests += 8
        listed = (await client.get(f"{AI}/models/search")).json
        assert [entry["name"] for entry in listed["result"]] == [SST2]
        sample = f'tritonflare_requests_total{{code="0",model="{SST2}",status="200"}}'
        assert await client.metric(sample) == requests
        assert b"mood" not in (await client.get("/metrics")).body


async def test_the_log_has_the_ai_request_id_that_the_answer_has_and_none_else(
    client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = [await client.get(path) for path in (*GET_ROUTES, f"{AI}/models/search?page=0")]
    sent = [answer.header("cf-ai-req-id") for answer in answers]
    assert sent[:-1] == [None] * len(GET_ROUTES)  # no model was asked (contract, section 1.5)
    assert sent[-1] is not None
    lines = await access_lines(capsys)
    assert [line.rpartition(" id=")[2] for line in lines] == [request_id or "-" for request_id in sent]


async def test_metrics_count_a_schema_for_its_model_and_lists_for_none(client: Client) -> None:
    for path in GET_ROUTES:
        await client.get(path)
    await client.get(f"{AI}/models/schema?model=zz")
    for model, code, status, count in ((SST2, 0, 200, 1), ("unknown", 5007, 400, 1), ("none", 0, 200, 4)):
        sample = f'tritonflare_requests_total{{code="{code}",model="{model}",status="{status}"}}'
        assert await client.metric(sample) == count


async def test_tasks_and_authors_are_those_of_the_models(client: Client, triton: FakeTriton) -> None:
    await _serve_three(client, triton)
    (task,) = (await client.get(f"{AI}/tasks/search")).json["result"]
    assert task["id"] == "19606750-23ed-4371-aab2-c20349b53a60"
    assert task["name"] == "Text Classification"
    authors = (await client.get(f"{AI}/authors/search")).json["result"]
    assert authors == [{"name": "acme"}, {"name": "huggingface"}]


async def test_the_list_in_openais_shape(client: Client) -> None:
    assert (await client.get(f"{AI}/v1/models")).json == {
        "object": "list",
        "data": [{"id": SST2, "object": "model", "created": 1795305600, "owned_by": "huggingface"}],
    }


@pytest.mark.parametrize("path", GET_ROUTES)
async def test_each_needs_a_token_and_the_method_get(client: Client, path: str) -> None:
    assert (await client.get(path)).status == 200
    check_front(
        await client.send("GET", path, headers={"Authorization": "Bearer x"}), 401, AUTHENTICATION_ERROR
    )
    assert (await client.send("GET", path, headers={})).error["code"] == 9106
    other = await client.get(path.replace(ACCOUNT, "another"))
    check_front(other, 403, AUTHENTICATION_ERROR)
    posted = await client.send("POST", path, b"{}")
    assert (posted.status, posted.error["code"], posted.header("allow")) == (405, 7001, "GET, HEAD")
    head = await client.send("HEAD", path)
    assert (head.status, head.body) == (200, b"")


@pytest.mark.parametrize("path", GET_ROUTES)
async def test_while_no_model_is_known_no_endpoint_claims_an_empty_list(path: str) -> None:
    fake = FakeTriton()
    await fake.appear()
    await fake.disappear()
    async with running_gateway(settings_for(fake), wait_ready=False) as running:
        answer = await running.client.get(path)
        assert (answer.status, answer.error["code"], answer.header("retry-after")) == (503, 3050, "1")


USER = "/client/v4/user/tokens/verify"
MINE = f"/client/v4/accounts/{ACCOUNT}/tokens/verify"


async def test_a_good_token_is_verified_without_showing_it(client: Client) -> None:
    answer = await client.get(USER)
    assert answer.status == 200
    token_id = answer.json["result"]["id"]
    assert re.fullmatch("[0-9a-f]{32}", token_id)
    assert answer.body.decode() == (
        f'{{"result":{{"id":"{token_id}","status":"active"}},"success":true,"errors":[],"messages":'
        '[{"code":10000,"message":"This API Token is valid and active","type":null}]}'
    )
    assert (await client.get(MINE)).json["result"]["id"] == token_id
    other = await client.send("GET", USER, headers={"Authorization": f"Bearer {ANY_TOKEN}"})
    assert other.json["result"]["id"] != token_id
    from gateway.access.tokens import hash_token

    assert token_id not in hash_token(TOKEN)


async def test_a_bad_token_is_1000(client: Client) -> None:
    invalid = (
        b'{"result":null,"success":false,'
        b'"errors":[{"code":1000,"message":"Invalid API Token"}],"messages":[]}'
    )
    for path in (USER, MINE):
        answer = await client.send("GET", path, headers={"Authorization": "Bearer nobody-issued-this"})
        check_front(answer, 401, invalid)
        assert (await client.send("GET", path, headers={"Authorization": "nonsense"})).error["code"] == 6003
        assert (await client.send("GET", path, headers={})).error["code"] == 9106
        assert (await client.send("POST", path)).status == 405
    foreign = "/client/v4/accounts/another/tokens/verify"
    check_front(await client.get(foreign), 401, invalid)
    any_account = await client.send("GET", foreign, headers={"Authorization": f"Bearer {ANY_TOKEN}"})
    assert any_account.status == 200


async def test_the_version_is_in_the_list_the_answers_and_the_log_and_changes_with_the_publication(
    client: Client, triton: FakeTriton, capsys: pytest.CaptureFixture[str]
) -> None:
    async def version() -> str:
        (entry,) = (await client.get(f"{AI}/models/search")).json["result"]
        return str({each["property_id"]: each["value"] for each in entry["properties"]}["version"])

    first = await version()
    body = b'{"inputs": [{"name": "TEXT", "datatype": "BYTES", "shape": [1, 1], "data": ["a"]}]}'
    for answer in (
        await client.run({"text": "a"}),
        await client.send("POST", f"/v2/models/{SST2}/infer", body),
        await client.send("POST", "/predict", b'{"inputs": "a"}'),
        await client.send("POST", f"{AI}/run", json.dumps({"model": SST2, "input": {"text": "a"}}).encode()),
    ):
        assert (answer.status, answer.header("x-model-version")) == (200, first)
    refused = await client.run({"text": 1})
    assert (refused.status, refused.header("x-model-version")) == (400, None)
    lines = await access_lines(capsys)
    assert [f" version={first} " in line for line in lines] == [False, *[True] * 5]

    triton.ensembles = [FakeEnsemble(overrides={"tritonflare.version": "7"})]

    async def changed() -> bool:
        return await version() != first

    await until(changed)
    assert (await client.run({"text": "a"})).header("x-model-version") == await version()
    assert (await version()).startswith("7-")
    # The digest is over what is published, and that is the same.
    assert (await version()).partition("-")[2] == first.partition("-")[2]


async def test_the_result_of_a_queued_batch_names_no_version(triton: FakeTriton, tmp_path: Path) -> None:
    async with running_gateway(settings_for(triton, batch_folder=str(tmp_path))) as running:
        client = running.client
        queued = await client.run({"requests": [{"text": "a"}]}, query="?queueRequest=true")
        poll = {"request_id": queued.json["result"]["request_id"]}
        answers = [queued]

        async def done() -> bool:
            answers.append(await client.run(poll, query="?queueRequest=true"))
            return "responses" in answers[-1].json["result"]

        await until(done)
    # Another publication may have answered it.
    assert {answer.header("x-model-version") for answer in answers} == {None}
