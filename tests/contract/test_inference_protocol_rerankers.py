"""Rerankers over the Open Inference Protocol: by hand, and by the real tritonclient."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from tritonclient.grpc import service_pb2
from tritonclient.utils import InferenceServerException

from tests.support.deploy.compose_triton import free_port
from tests.support.fake_triton import RERANKER, FakeTriton, reranker
from tests.support.gateway_process import gateway_process, triton_in_a_thread
from tests.support.grpc_calls import AUTHORIZED, Stubs, elements, failure, grpc_stubs, outputs_of
from tests.support.harness import ACCOUNT, TOKEN, Client, Running, running_gateway, settings_for
from tests.support.inference_protocol import check_error, infer, outputs, raw_texts, text_input

QUERY = "red wine"
TEXTS = ("white wine", "red wine of the south", "beer")
LOGITS = [0.0, 1.0, -1.0]
COUNTS = [7, 10, 6]
MODEL = f"/v2/models/{RERANKER}"
HEADERS = {"authorization": f"Bearer {TOKEN}"}
"""Copied for each call, because tritonclient adds to it."""


@pytest.fixture
async def running(triton: FakeTriton) -> AsyncIterator[Running]:
    triton.ensembles.append(reranker())
    async with running_gateway(settings_for(triton, grpc_port=0)) as served:
        yield served


@pytest.fixture
def client(running: Running) -> Client:
    return running.client


@pytest.fixture
async def stubs(running: Running) -> AsyncIterator[Stubs]:
    async with grpc_stubs(running.grpc_port) as opened:
        yield opened


def query_input(*queries: str) -> dict[str, Any]:
    return text_input(*queries, name="QUERY")


def expected_outputs() -> dict[str, Any]:
    return {
        "logits": LOGITS,
        "probabilities": pytest.approx([1 / (1 + math.exp(-logit)) for logit in LOGITS]),
        "label": ["LABEL_0"] * 3,
        "token_count": COUNTS,
    }


async def test_pairs_are_scored_in_order_over_http(client: Client) -> None:
    body = {"inputs": [text_input(*TEXTS), query_input(*[QUERY] * 3)]}
    answer = await infer(client, body, f"{MODEL}/infer")
    assert outputs(answer) == expected_outputs()
    assert [output["shape"] for output in answer.json["outputs"]] == [[3, 1]] * 4


async def test_binary_inputs_follow_each_other(client: Client) -> None:
    raw = {"QUERY": raw_texts(*[QUERY.encode()] * 3), "TEXT": raw_texts(*map(str.encode, TEXTS))}
    tensors = [
        {"name": name, "shape": [3, 1], "datatype": "BYTES", "parameters": {"binary_data_size": len(data)}}
        for name, data in raw.items()
    ]
    header = json.dumps({"inputs": tensors}).encode()
    answer = await infer(
        client,
        header + b"".join(raw.values()),
        f"{MODEL}/infer",
        Inference_Header_Content_Length=str(len(header)),
    )
    assert outputs(answer) == expected_outputs()


async def test_scores_are_those_of_the_run_route(client: Client) -> None:
    contexts = [{"text": text} for text in TEXTS]
    run = await client.run(
        {"query": QUERY, "contexts": contexts}, path=f"/client/v4/accounts/{ACCOUNT}/ai/run/{RERANKER}"
    )
    scores = {entry["id"]: entry["score"] for entry in run.json["result"]["response"]}
    body = {"inputs": [text_input(*TEXTS), query_input(*[QUERY] * 3)]}
    found = outputs(await infer(client, body, f"{MODEL}/infer"))["probabilities"]
    assert found == [float(np.float32(scores[place])) for place in range(3)]
    assert run.json["result"]["usage"]["prompt_tokens"] == sum(COUNTS)


async def test_the_model_is_described(client: Client) -> None:
    for path in (MODEL, f"{MODEL}/config"):
        described = (await client.get(path)).json
        tensors = described.get("inputs") or described["input"]
        assert [tensor["name"] for tensor in tensors] == ["QUERY", "TEXT"]


TOO_LONG = (
    "Bad input: an element of input 'QUERY' leaves no room for that of input 'TEXT': "
    "the model reads 512 tokens"
)


async def test_what_is_refused_over_http(client: Client) -> None:
    one = text_input("a")
    for inputs, message in (
        ([one], "Bad input: the inputs must be 'QUERY' and 'TEXT', but the request has 'TEXT'"),
        (
            [one, query_input("q", "r")],
            "Bad input: the inputs 'QUERY' and 'TEXT' must have the same number of elements",
        ),
    ):
        check_error(await infer(client, {"inputs": inputs}, f"{MODEL}/infer"), 400, message)
    # All or none: of the second pair the query alone is too long.
    long = {"inputs": [text_input("a", "b"), query_input("q", "long " * 600)]}
    refused = await infer(client, long, f"{MODEL}/infer")
    check_error(refused, 400, TOO_LONG)


def infer_pairs(*pairs: tuple[str, str]) -> Any:
    request = service_pb2.ModelInferRequest(model_name=RERANKER)
    for place, name in enumerate(("QUERY", "TEXT")):
        request.inputs.add(name=name, datatype="BYTES", shape=[len(pairs)])
        request.raw_input_contents.append(elements(*(pair[place] for pair in pairs)))
    return request


async def test_pairs_are_scored_in_order_over_grpc(stubs: Stubs) -> None:
    request = infer_pairs(*((QUERY, text) for text in TEXTS))
    answer = outputs_of(await stubs.inference.ModelInfer(request, metadata=AUTHORIZED, timeout=5))
    assert answer["logits"] == tuple(LOGITS)
    assert answer["token_count"] == tuple(COUNTS)
    assert answer["label"] == [b"LABEL_0"] * 3


async def test_what_is_refused_over_grpc(stubs: Stubs) -> None:
    error = await failure(stubs.infer("a", model=RERANKER))
    assert error.code().name == "INVALID_ARGUMENT"
    assert "the inputs must be 'QUERY' and 'TEXT'" in (error.details() or "")
    long = infer_pairs((QUERY, "a"), ("long " * 600, "b"))
    error = await failure(stubs.inference.ModelInfer(long, metadata=AUTHORIZED, timeout=5))
    assert (error.code().name, error.details()) == ("INVALID_ARGUMENT", TOO_LONG)


async def test_tensors_and_rankings_travel_in_the_same_calls(stubs: Stubs, running: Running) -> None:
    """The same pairs, once as tensors and once as a ranking, all at once and over both ports."""
    contexts = [{"text": text} for text in TEXTS]
    path = f"/client/v4/accounts/{ACCOUNT}/ai/run/{RERANKER}"
    request = infer_pairs(*((QUERY, text) for text in TEXTS))
    calls = [stubs.inference.ModelInfer(request, metadata=AUTHORIZED, timeout=5) for _ in range(20)]
    runs = [running.client.run({"query": QUERY, "contexts": contexts}, path=path) for _ in range(20)]
    answers = await asyncio.gather(*calls, *runs)
    for answer in answers[:20]:
        assert outputs_of(answer)["logits"] == tuple(LOGITS)
    for answer in answers[20:]:
        assert [entry["id"] for entry in answer.json["result"]["response"]] == [1, 0, 2]


@dataclass(frozen=True)
class Addresses:
    """Where a gateway before a fake reranker listens."""

    http: str
    grpc: str


@pytest.fixture(scope="module")
def addresses(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Addresses]:
    fake, port = FakeTriton(), free_port()
    fake.ensembles = [reranker()]
    log = tmp_path_factory.mktemp("gateway") / "log"
    with (
        triton_in_a_thread(fake),
        gateway_process(log, GATEWAY_TRITON_URL=fake.url, GATEWAY_GRPC_PORT=str(port)) as found,
    ):
        yield Addresses(f"127.0.0.1:{found}", f"127.0.0.1:{port}")


@pytest.mark.parametrize("module", [tritonclient.http, tritonclient.grpc], ids=["http", "grpc"])
def test_tritonclient_scores_pairs(addresses: Addresses, module: Any) -> None:
    address = addresses.http if module is tritonclient.http else addresses.grpc
    with module.InferenceServerClient(address) as connected:
        inputs = []
        for name, values in (("QUERY", [QUERY] * 3), ("TEXT", TEXTS)):
            array = np.array(values, dtype=object)
            inputs.append(module.InferInput(name, array.shape, "BYTES").set_data_from_numpy(array))
        answer = connected.infer(RERANKER, inputs, headers=dict(HEADERS))
        assert answer.as_numpy("logits").tolist() == [[logit] for logit in LOGITS]
        assert answer.as_numpy("probabilities").dtype == np.float32
        assert answer.as_numpy("token_count").ravel().tolist() == COUNTS
        with pytest.raises(InferenceServerException, match="'QUERY' and 'TEXT'"):
            connected.infer(RERANKER, inputs[1:], headers=dict(HEADERS))
