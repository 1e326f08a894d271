"""gRPC reflection: finds the service and calls it with messages made at run time, as grpcurl does."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import grpc
import numpy as np
from google.protobuf import json_format
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from tests.clients.programs.common import Target, run

Document = dict[str, Any]
SERVICE = "inference.GRPCInferenceService"


def services(target: Target) -> Any:
    """Names of the services, and the methods of the protocol's."""
    with grpc.insecure_channel(target.grpc) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        service = DescriptorPool(database).FindServiceByName(SERVICE)
        return {
            "services": sorted(database.get_services()),
            "methods": [each.name for each in service.methods],
        }


def scores(target: Target) -> Any:
    """Each text in a request of its own."""
    with grpc.insecure_channel(target.grpc) as channel:
        call = _method(channel, target)
        return [_probabilities(call(_request(target.model, text))) for text in target.texts]


def requests(target: Target) -> Any:
    """The answers, as JSON, to requests that are JSON themselves."""
    with grpc.insecure_channel(target.grpc) as channel:
        call = _method(channel, target)
        return [call(json.loads(text)) for text in target.texts]


def _method(channel: grpc.Channel, target: Target) -> Callable[[Document], Document]:
    """ModelInfer, from JSON to JSON."""
    pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
    method = pool.FindServiceByName(SERVICE).methods_by_name["ModelInfer"]
    request_class = GetMessageClass(method.input_type)
    call = channel.unary_unary(
        f"/{SERVICE}/ModelInfer",
        request_serializer=request_class.SerializeToString,
        response_deserializer=GetMessageClass(method.output_type).FromString,
    )

    def ask(document: Document) -> Document:
        request = json_format.ParseDict(document, request_class())
        return json_format.MessageToDict(call(request, metadata=tuple(target.headers.items()), timeout=60))

    return ask


def _request(model: str, text: str) -> Document:
    contents = {"bytes_contents": [base64.b64encode(text.encode()).decode()]}
    return {
        "model_name": model,
        "inputs": [{"name": "TEXT", "datatype": "BYTES", "shape": [1], "contents": contents}],
        "outputs": [{"name": "probabilities"}],
    }


def _probabilities(answer: Document) -> list[float]:
    values: list[float] = np.frombuffer(base64.b64decode(answer["rawOutputContents"][0]), "<f4").tolist()
    return values


if __name__ == "__main__":
    run({"services": services, "scores": scores, "requests": requests})
