"""The real ``tritonclient.http`` before the gateway; it comes with pytriton."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException

from tests.support.gateway_process import gateway_before_fake
from tests.support.harness import ACCOUNT, TOKEN
from tests.support.inference_protocol import NAMES

HEADERS = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InferenceServerClient]:
    with (
        gateway_before_fake(tmp_path_factory.mktemp("gateway") / "log") as port,
        InferenceServerClient(f"127.0.0.1:{port}") as connected,
    ):
        yield connected


def texts(*given: str, binary: bool = True, shape: tuple[int, ...] | None = None) -> list[InferInput]:
    values = np.array([text.encode() for text in given], dtype=np.object_).reshape(shape or (len(given), 1))
    tensor = InferInput("TEXT", list(values.shape), "BYTES")
    return [tensor.set_data_from_numpy(values, binary_data=binary)]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("version", ["", "1"])
def test_models_are_described(client: InferenceServerClient, name: str, version: str) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready(name, version, headers=HEADERS)
    assert not client.is_model_ready(name, "2", headers=HEADERS)
    metadata = client.get_model_metadata(name, version, headers=HEADERS)
    config = client.get_model_config(name, version, headers=HEADERS)
    assert (metadata["name"], config["name"], config["max_batch_size"]) == (name, name, 100)
    assert [tensor["name"] for tensor in config["output"]] == [
        tensor["name"] for tensor in metadata["outputs"]
    ]
    (entry,) = client.get_model_repository_index(headers=HEADERS)
    assert client.is_model_ready(entry["name"], entry["version"], headers=HEADERS)
    assert client.get_server_metadata(headers=HEADERS)["name"] == "tritonflare"


@pytest.mark.parametrize("binary_input", [True, False])
@pytest.mark.parametrize("binary_output", [True, False])
@pytest.mark.parametrize("coding", [None, "gzip", "deflate"])
@pytest.mark.parametrize("shape", [(2, 1), (2,)])
def test_every_form_of_a_request_gets_the_same_values(
    client: InferenceServerClient,
    binary_input: bool,
    binary_output: bool,
    coding: str | None,
    shape: tuple[int, ...],
) -> None:
    names = ("label", "logits", "probabilities", "token_count")
    result = client.infer(
        NAMES[0],
        texts("good", "schön und gut", binary=binary_input, shape=shape),
        outputs=[InferRequestedOutput(name, binary_data=binary_output) for name in names],
        request_id="7",
        priority=3,
        timeout=5_000_000,
        headers=dict(HEADERS),
        request_compression_algorithm=coding,
        response_compression_algorithm=coding,
    )
    assert result.get_response()["id"] == "7"
    values: dict[str, Any] = {name: result.as_numpy(name) for name in names}
    label = b"POSITIVE" if binary_output else "POSITIVE"
    assert values["label"].tolist() == [[label], [label]]
    assert values["logits"].tolist() == [[-4.0, 4.5]] * 2
    assert values["token_count"].tolist() == [[3], [5]]
    assert (values["probabilities"].dtype, values["probabilities"].shape) == (np.float32, (2, 2))
    assert np.allclose(values["probabilities"].sum(axis=1), 1)


def test_all_outputs_come_as_binary_data_if_none_is_named(client: InferenceServerClient) -> None:
    result = client.infer(NAMES[2], texts("good"), headers=dict(HEADERS))
    assert result.as_numpy("label").tolist() == [[b"POSITIVE"]]
    assert result.get_output("logits")["parameters"] == {"binary_data_size": 8}


@pytest.mark.parametrize("binary", [True, False])
def test_classes_are_ranked(client: InferenceServerClient, binary: bool) -> None:
    outputs = [InferRequestedOutput("probabilities", binary_data=binary, class_count=5)]
    result = client.infer(NAMES[1], texts("good", "bad"), outputs=outputs, headers=dict(HEADERS))
    classes = result.as_numpy("probabilities")
    best, other = "0.999797:1:POSITIVE", "0.000203:0:NEGATIVE"
    assert [[str(c, "utf-8") if binary else c for c in row] for row in classes] == [[best, other]] * 2


def test_concurrent_requests_are_answered(client: InferenceServerClient) -> None:
    requests = [client.async_infer(NAMES[0], texts(f"text {n}"), headers=dict(HEADERS)) for n in range(20)]
    counts = [request.get_result().as_numpy("token_count").tolist() for request in requests]
    assert counts == [[[4]]] * 20


@pytest.mark.parametrize(
    ("ask", "status", "message"),
    [
        (lambda client: client.get_server_metadata(), "401", "authorization: Bearer <token>"),
        (lambda client: client.get_model_metadata("no", headers=HEADERS), "404", "No such model no"),
        (lambda client: client.get_model_config(NAMES[0], "2", headers=HEADERS), "404", "No version 2"),
        (lambda client: client.infer(NAMES[0], texts("a")), "401", "authorization: Bearer <token>"),
        (lambda client: client.infer("no", texts("a"), headers=dict(HEADERS)), "404", "No such model no"),
        (lambda client: client.infer(NAMES[0], texts(""), headers=dict(HEADERS)), "400", "is empty"),
        (
            lambda client: client.infer(NAMES[0], texts("a"), sequence_id=5, headers=dict(HEADERS)),
            "400",
            "sequences are not supported",
        ),
        (
            lambda client: client.infer(NAMES[0], texts("a"), headers=HEADERS | {"cf-account-id": "another"}),
            "403",
            "not valid for this account",
        ),
        (lambda client: client.get_inference_statistics(headers=HEADERS), "404", "Statistics"),
        (lambda client: client.load_model(NAMES[0], headers=HEADERS), "404", "loaded"),
        (lambda client: client.get_system_shared_memory_status(headers=HEADERS), "404", "Shared memory"),
        (lambda client: client.get_trace_settings(headers=HEADERS), "404", "Traces"),
        (lambda client: client.get_log_settings(headers=HEADERS), "404", "logs"),
    ],
)
def test_errors_arrive_with_status_and_message(
    client: InferenceServerClient, ask: Any, status: str, message: str
) -> None:
    with pytest.raises(InferenceServerException) as caught:
        ask(client)
    assert caught.value.status() == status
    assert message in caught.value.message()


def test_the_account_may_be_named_in_a_header(client: InferenceServerClient) -> None:
    headers = HEADERS | {"cf-account-id": ACCOUNT}
    assert client.infer(NAMES[0], texts("a"), headers=headers).as_numpy("token_count").tolist() == [[3]]
