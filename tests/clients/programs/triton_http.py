"""tritonclient.http, synchronous: binary and JSON tensors, compressed both ways, descriptions, errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gevent.ssl
import numpy as np
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from tests.clients.programs.common import OUTPUTS, Target, column, run, tensors


def connect(target: Target) -> Any:
    """A client, over TLS where the target has an authority."""
    if not target.authority:
        return triton.InferenceServerClient(target.http)
    return triton.InferenceServerClient(
        target.http,
        ssl=True,
        ssl_options={"ca_certs": target.authority},
        ssl_context_factory=gevent.ssl.create_default_context,
    )


def text_input(texts: list[str], *, binary: bool = True) -> Any:
    array = column(texts)
    tensor = triton.InferInput("TEXT", array.shape, "BYTES")
    tensor.set_data_from_numpy(array, binary_data=binary)
    return tensor


def outputs(*names: str, binary: bool = True, class_count: int = 0) -> list[Any]:
    return [
        triton.InferRequestedOutput(name, binary_data=binary, class_count=class_count)
        for name in names or OUTPUTS
    ]


def decoded(result: Any) -> dict[str, Any]:
    return tensors({name: result.as_numpy(name) for name in OUTPUTS})


def infer(client: Any, target: Target, texts: list[str], *, binary: bool = True, **options: Any) -> Any:
    return client.infer(target.model, [text_input(texts, binary=binary)], headers=target.headers, **options)


def scores(target: Target) -> Any:
    """Each text in a request of its own, binary both ways."""
    with connect(target) as client:
        return [decoded(infer(client, target, [text])) for text in target.texts]


def encodings(target: Target) -> Any:
    """All texts in one request, with each encoding of the tensors and each compression."""
    ways: dict[str, dict[str, Any]] = {
        "binary": {"outputs": outputs()},
        "JSON": {"binary": False, "outputs": outputs(binary=False)},
        "binary in, JSON out": {"outputs": outputs(binary=False)},
        "JSON in, binary out": {"binary": False, "outputs": outputs()},
    }
    for name in ("gzip", "deflate"):
        ways[f"{name} in"] = {"request_compression_algorithm": name}
        ways[f"{name} out"] = {"response_compression_algorithm": name}
        ways[f"{name} JSON"] = {
            "binary": False,
            "outputs": outputs(binary=False),
            "request_compression_algorithm": name,
            "response_compression_algorithm": name,
        }
    with connect(target) as client:
        return {way: decoded(infer(client, target, target.texts, **options)) for way, options in ways.items()}


def selected(target: Target) -> Any:
    """Some outputs, in another order, and the request's id and version."""
    wanted = outputs("label", "probabilities")
    with connect(target) as client:
        result = infer(
            client, target, target.texts, outputs=wanted, request_id="request-7", model_version="1"
        )
    response = result.get_response()
    return {
        "id": response["id"],
        "model": response["model_name"],
        "version": response["model_version"],
        "names": [output["name"] for output in response["outputs"]],
        "outputs": decoded(result),
    }


def classes(target: Target) -> Any:
    with connect(target) as client:
        return [
            decoded(infer(client, target, target.texts, outputs=outputs("probabilities", class_count=count)))
            for count in (1, 2)
        ]


def descriptions(target: Target) -> Any:
    """What the client asks about the server and its model."""
    headers = target.headers
    with connect(target) as client:
        return {
            "live": client.is_server_live(),
            "ready": client.is_server_ready(),
            "model ready": client.is_model_ready(target.model, headers=headers),
            "server": client.get_server_metadata(headers=headers),
            "model": client.get_model_metadata(target.model, headers=headers),
            "config": client.get_model_config(target.model, headers=headers),
            "index": client.get_model_repository_index(headers=headers),
        }


def refused(target: Target) -> Any:
    """Status and message of what ends with an error."""
    good = [text_input(["good"])]
    headers = target.headers
    calls: dict[str, Callable[[Any], Any]] = {
        "no token": lambda client: client.infer(target.model, good),
        "wrong token": lambda client: client.infer(
            target.model, good, headers={"authorization": "Bearer wrong"}
        ),
        "unknown model": lambda client: client.infer("no-such-model", good, headers=headers),
        "unknown version": lambda client: infer(client, target, ["good"], model_version="99"),
        "unknown output": lambda client: infer(client, target, ["good"], outputs=outputs("other")),
        "empty text": lambda client: infer(client, target, [""]),
        "metadata of an unknown model": lambda client: client.get_model_metadata("none", headers=headers),
        "two columns": lambda client: client.infer(target.model, [_wide()], headers=headers),
        "input in shared memory": lambda client: client.infer(target.model, [_shared()], headers=headers),
        "system shared memory": lambda client: client.register_system_shared_memory(
            "region", "/region", 64, headers=headers
        ),
        "status of CUDA shared memory": lambda client: client.get_cuda_shared_memory_status(headers=headers),
        "load": lambda client: client.load_model(target.model, headers=headers),
        "unload": lambda client: client.unload_model(target.model, headers=headers),
        "statistics": lambda client: client.get_inference_statistics(target.model, headers=headers),
        "trace settings": lambda client: client.get_trace_settings(headers=headers),
        "log settings": lambda client: client.get_log_settings(headers=headers),
    }
    with connect(target) as client:
        return {name: _outcome(client, call) for name, call in calls.items()}


def _wide() -> Any:
    tensor = triton.InferInput("TEXT", (1, 2), "BYTES")
    tensor.set_data_from_numpy(np.array([[b"a", b"b"]], dtype=np.object_))
    return tensor


def _shared() -> Any:
    tensor = triton.InferInput("TEXT", (1, 1), "BYTES")
    tensor.set_shared_memory("region", 8)
    return tensor


def _outcome(client: Any, call: Callable[[Any], Any]) -> list[str]:
    try:
        call(client)
    except InferenceServerException as error:
        return [str(error.status()), error.message()]
    return ["OK", ""]


PARTS = {
    "scores": scores,
    "encodings": encodings,
    "selected": selected,
    "classes": classes,
    "descriptions": descriptions,
    "refused": refused,
}

if __name__ == "__main__":
    run(PARTS)
