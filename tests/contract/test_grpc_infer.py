"""The methods of the inference service: models, inputs, outputs."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from tritonclient.grpc import model_config_pb2, service_pb2

from tests.support.fake_triton import SST2, TRACEBACK, FakeEnsemble, FakeTriton, fail
from tests.support.grpc_calls import (
    AUTHORIZED,
    Stubs,
    elements,
    failure,
    grpc_stubs,
    infer_request,
    outputs_of,
)
from tests.support.harness import UUID, Running, running_gateway, settings_for

NAMES = [SST2, "@cf--huggingface--distilbert-sst-2-int8", "sst2"]
CODE = grpc.StatusCode


@pytest.fixture
async def running(triton: FakeTriton) -> AsyncIterator[Running]:
    async with running_gateway(settings_for(triton, grpc_port=0, max_batch_texts=4)) as served:
        yield served


@pytest.fixture
async def stubs(running: Running) -> AsyncIterator[Stubs]:
    async with grpc_stubs(running.grpc_port) as opened:
        yield opened


async def call(stubs: Stubs, method: str, request: Any) -> Any:
    return await getattr(stubs.inference, method)(request, metadata=AUTHORIZED, timeout=5)


@pytest.mark.parametrize("model", NAMES)
@pytest.mark.parametrize("version", ["", "1"])
async def test_models_answer_to_each_of_their_names(stubs: Stubs, model: str, version: str) -> None:
    request = infer_request("one two", model=model)
    request.model_version, request.id = version, "mine"
    response = await call(stubs, "ModelInfer", request)
    assert (response.model_name, response.model_version, response.id) == (model, "1", "mine")


@pytest.mark.parametrize("shape", [[2], [2, 1]])
async def test_all_outputs_come_if_none_is_requested(
    stubs: Stubs, running: Running, shape: list[int]
) -> None:
    response = await stubs.infer("one two", "three", shape=shape)
    described = [(output.name, output.datatype, list(output.shape)) for output in response.outputs]
    assert described == [
        ("logits", "FP32", [2, 2]),
        ("probabilities", "FP32", [2, 2]),
        ("label", "BYTES", [2, 1]),
        ("token_count", "INT32", [2, 1]),
    ]
    values = outputs_of(response)
    scores = {
        item["label"]: item["score"] for item in (await running.client.run({"text": "three"})).json["result"]
    }
    rounded = struct.unpack("<2f", struct.pack("<2f", scores["NEGATIVE"], scores["POSITIVE"]))
    assert values["logits"] == (-4.0, 4.5) * 2
    assert values["probabilities"] == rounded * 2
    assert values["label"] == [b"POSITIVE"] * 2
    assert values["token_count"] == (4, 3)


async def test_typed_contents_are_answered_like_raw_ones(stubs: Stubs) -> None:
    request = infer_request("one two")
    del request.raw_input_contents[:]
    request.inputs[0].contents.bytes_contents.append(b"one two")
    assert outputs_of(await call(stubs, "ModelInfer", request)) == outputs_of(await stubs.infer("one two"))


async def test_outputs_come_in_the_order_in_which_they_are_requested(stubs: Stubs) -> None:
    response = await stubs.infer("a", outputs=["label", "logits"])
    assert [output.name for output in response.outputs] == ["label", "logits"]


@pytest.mark.parametrize(("count", "classes"), [(1, 1), (2, 2), (9, 2)])
async def test_class_count_makes_classes(stubs: Stubs, count: int, classes: int) -> None:
    request = infer_request("a", outputs=["logits"])
    request.outputs[0].parameters["classification"].int64_param = count
    response = await call(stubs, "ModelInfer", request)
    assert (response.outputs[0].datatype, list(response.outputs[0].shape)) == ("BYTES", [1, classes])
    assert outputs_of(response)["logits"] == [b"4.500000:1:POSITIVE", b"-4.000000:0:NEGATIVE"][:classes]


def broken(**changes: Any) -> Any:
    request = infer_request("a")
    for name, value in changes.items():
        if name in ("raw", "typed"):
            del request.raw_input_contents[:]
        if name == "raw":
            request.raw_input_contents.extend(value)
        elif name == "typed":
            request.inputs[0].contents.bytes_contents.extend(value)
        elif name == "output":
            request.outputs.add(name=value)
        elif name == "shape":
            request.inputs[0].shape[:] = value
        else:
            setattr(request.inputs[0], name, value)
    return request


def with_parameter(where: str, name: str, **value: Any) -> Any:
    request = infer_request("a", outputs=["label", "logits"])
    holder = {"request": request, "input": request.inputs[0], "output": request.outputs[1]}[where]
    for kind, given in value.items():
        setattr(holder.parameters[name], kind, given)
    return request


def both_contents() -> Any:
    request = infer_request("a")
    request.inputs[0].contents.bytes_contents.append(b"a")
    return request


@pytest.mark.parametrize(
    "request_",
    [
        broken(shape=[]),
        broken(shape=[0]),
        broken(shape=[-1]),
        broken(shape=[2]),
        broken(shape=[1, 2]),
        broken(shape=[1, 1, 1]),
        broken(shape=[2**62]),
        broken(shape=[-(2**63)]),
        broken(shape=[1] * 10_000),
        broken(shape=[5], raw=[elements(*"abcde")]),
        broken(name="text"),
        broken(name="x" * 10_000),
        broken(datatype="FP32"),
        broken(datatype=""),
        broken(raw=[]),
        broken(raw=[b""]),
        broken(raw=[b"\0"]),
        broken(raw=[b"\0\0\0\0"]),
        broken(raw=[struct.pack("<I", 1 << 30) + b"abc"]),
        broken(raw=[elements("a") + b"\1"]),
        broken(raw=[elements("a", "b")]),
        broken(raw=[elements("a"), elements("b")]),
        broken(raw=[elements(b"\xff")]),
        broken(typed=[b"\xff"]),
        broken(typed=[b""]),
        broken(typed=[b"a", b"b"]),
        broken(output="nothing"),
        both_contents(),
        service_pb2.ModelInferRequest(model_name=SST2),
        with_parameter("request", "sequence_id", int64_param=1),
        with_parameter("input", "shared_memory_region", string_param="x"),
        with_parameter("output", "shared_memory_region", string_param="x"),
        with_parameter("output", "classification", int64_param=-1),
        with_parameter("output", "classification", string_param="1"),
    ],
)
async def test_wrong_requests_are_invalid_arguments(stubs: Stubs, triton: FakeTriton, request_: Any) -> None:
    error = await failure(call(stubs, "ModelInfer", request_))
    assert error.code() is CODE.INVALID_ARGUMENT
    assert len(error.details() or "") < 400
    assert triton.texts == []


@pytest.mark.parametrize("name", ["", "nothing", "x" * 100_000, "@cf/huggingface", "../sst2"])
@pytest.mark.parametrize("method", ["ModelInfer", "ModelMetadata", "ModelConfig"])
async def test_unknown_models_and_versions_are_not_found(stubs: Stubs, method: str, name: str) -> None:
    def request(model: str, version: str = "") -> Any:
        if method == "ModelInfer":
            made = infer_request("a", model=model)
            made.model_version = version
            return made
        return getattr(service_pb2, f"{method}Request")(name=model, version=version)

    for asked in (request(name), request(SST2, "2"), request(SST2, name or "-1")):
        error = await failure(call(stubs, method, asked))
        assert error.code() is CODE.NOT_FOUND
        assert len(error.details() or "") < 700


async def test_the_server_and_its_models_are_described(stubs: Stubs) -> None:
    assert (await stubs.inference.ServerLive(service_pb2.ServerLiveRequest())).live
    assert (await stubs.inference.ServerReady(service_pb2.ServerReadyRequest())).ready
    metadata = await call(stubs, "ServerMetadata", service_pb2.ServerMetadataRequest())
    assert metadata.name == "tritonflare"
    for name, ready in ((SST2, True), ("nothing", False)):
        response = await call(stubs, "ModelReady", service_pb2.ModelReadyRequest(name=name))
        assert response.ready is ready
    model = await call(stubs, "ModelMetadata", service_pb2.ModelMetadataRequest(name=SST2))
    assert [(tensor.name, list(tensor.shape)) for tensor in model.inputs] == [("TEXT", [-1, 1])]
    assert [tensor.name for tensor in model.outputs] == ["logits", "probabilities", "label", "token_count"]
    config = (await call(stubs, "ModelConfig", service_pb2.ModelConfigRequest(name=SST2))).config
    assert config.max_batch_size == 4
    assert config.input[0].data_type == model_config_pb2.TYPE_STRING
    assert json.loads(config.parameters["labels"].string_value) == ["NEGATIVE", "POSITIVE"]
    index = await call(stubs, "RepositoryIndex", service_pb2.RepositoryIndexRequest())
    assert [(found.name, found.version, found.state) for found in index.models] == [(SST2, "1", "READY")]


@pytest.mark.parametrize(
    "method",
    [
        "SystemSharedMemoryStatus",
        "SystemSharedMemoryRegister",
        "SystemSharedMemoryUnregister",
        "CudaSharedMemoryStatus",
        "CudaSharedMemoryRegister",
        "CudaSharedMemoryUnregister",
        "RepositoryModelLoad",
        "RepositoryModelUnload",
        "ModelStatistics",
        "TraceSetting",
        "LogSettings",
    ],
)
async def test_methods_that_are_left_out_are_unimplemented(stubs: Stubs, method: str) -> None:
    request = getattr(service_pb2, f"{method}Request")()
    assert (await failure(call(stubs, method, request))).code() is CODE.UNIMPLEMENTED
    unauthorized = await failure(getattr(stubs.inference, method)(request))
    assert unauthorized.code() is CODE.UNAUTHENTICATED


async def test_responses_carry_the_ids_of_the_request(stubs: Stubs) -> None:
    made = stubs.inference.ModelInfer(infer_request("a"), metadata=AUTHORIZED)
    await made
    metadata = dict(await made.trailing_metadata())
    assert metadata["cf-ray"].endswith("-TFL")
    assert UUID.fullmatch(metadata["cf-ai-req-id"])
    refused = await failure(stubs.infer("a", model="nothing"))
    assert "cf-ray" in dict(refused.trailing_metadata() or ())


async def test_a_text_that_fails_fails_its_whole_request_without_the_words_of_triton(
    stubs: Stubs, triton: FakeTriton
) -> None:
    triton.infer_fault = fail(CODE.INTERNAL)
    error = await failure(stubs.infer("a", "b"))
    assert (error.code(), error.details()) == (CODE.INTERNAL, "The model failed to answer.")
    assert TRACEBACK not in str(error.trailing_metadata())


async def test_models_that_come_later_answer(stubs: Stubs, triton: FakeTriton) -> None:
    triton.ensembles.append(FakeEnsemble(name="other", public_name="@cf/test/other", labels=("A", "B")))
    for _ in range(100):
        try:
            assert outputs_of(await stubs.infer("a", model="@cf/test/other"))["label"] == [b"B"]
            return
        except grpc.aio.AioRpcError:
            await asyncio.sleep(0.05)
    raise AssertionError("the model never answered")
