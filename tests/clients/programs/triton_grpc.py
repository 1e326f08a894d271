"""tritonclient.grpc, synchronous: what it can ask, with raw and with typed contents."""

from __future__ import annotations

import queue
from typing import Any

import grpc
import tritonclient.grpc as triton
from tritonclient.grpc import service_pb2, service_pb2_grpc

from tests.clients.programs.common import OUTPUTS, Target, column, run, tensors


def connect(target: Target) -> Any:
    """A client, over TLS where the target has an authority."""
    secure = bool(target.authority)
    return triton.InferenceServerClient(target.grpc, ssl=secure, root_certificates=target.authority or None)


def text_input(texts: list[str]) -> Any:
    array = column(texts)
    tensor = triton.InferInput("TEXT", array.shape, "BYTES")
    tensor.set_data_from_numpy(array)
    return tensor


def decoded(result: Any) -> dict[str, Any]:
    return tensors({name: result.as_numpy(name) for name in OUTPUTS})


def infer(client: Any, target: Target, texts: list[str], **options: Any) -> Any:
    return client.infer(target.model, [text_input(texts)], headers=target.headers, **options)


def scores(target: Target) -> Any:
    """Each text in a request of its own."""
    with connect(target) as client:
        return [decoded(infer(client, target, [text])) for text in target.texts]


def batch(target: Target) -> Any:
    with connect(target) as client:
        return decoded(infer(client, target, target.texts))


def compressed(target: Target) -> Any:
    with connect(target) as client:
        return {
            name: decoded(infer(client, target, target.texts, compression_algorithm=name))
            for name in ("gzip", "deflate")
        }


def callbacks(target: Target) -> Any:
    """All requests at once, over the client's own threads."""
    answers: queue.Queue[tuple[int, Any, Any]] = queue.Queue()
    with connect(target) as client:
        for place, text in enumerate(target.texts):
            client.async_infer(
                target.model,
                [text_input([text])],
                lambda result, error, place=place: answers.put((place, result, error)),
                headers=target.headers,
            )
        found = sorted((answers.get(timeout=60) for _ in target.texts), key=lambda answer: answer[0])
    return [str(error) if error else decoded(result) for _, result, error in found]


def typed(target: Target) -> Any:
    """The texts in ``contents`` instead of raw contents, as clients of other languages send them."""
    request = service_pb2.ModelInferRequest(
        model_name=target.model,
        id="typed",
        inputs=[
            service_pb2.ModelInferRequest.InferInputTensor(
                name="TEXT",
                datatype="BYTES",
                shape=[len(target.texts)],
                contents=service_pb2.InferTensorContents(
                    bytes_contents=[text.encode() for text in target.texts]
                ),
            )
        ],
    )
    with grpc.insecure_channel(target.grpc) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        response = stub.ModelInfer(request, metadata=list(target.headers.items()), timeout=60)
    return {"id": response.id, "outputs": decoded(triton.InferResult(response))}


def selected(target: Target) -> Any:
    """Some outputs, in another order, and the request's id and version."""
    outputs = [triton.InferRequestedOutput(name) for name in ("label", "probabilities")]
    with connect(target) as client:
        result = infer(
            client, target, target.texts, outputs=outputs, request_id="request-7", model_version="1"
        )
    response = result.get_response(as_json=True)
    return {
        "id": response["id"],
        "model": response["model_name"],
        "version": response["model_version"],
        "names": [output["name"] for output in response["outputs"]],
        "outputs": decoded(result),
    }


def classes(target: Target) -> Any:
    outputs = [triton.InferRequestedOutput("probabilities", class_count=count) for count in (1, 2)]
    with connect(target) as client:
        return [decoded(infer(client, target, target.texts, outputs=[output])) for output in outputs]


def descriptions(target: Target) -> Any:
    """What the client asks about the server and its model."""
    sent: dict[str, Any] = {"headers": target.headers, "as_json": True}
    with connect(target) as client:
        return {
            "live": client.is_server_live(),
            "ready": client.is_server_ready(),
            "model ready": client.is_model_ready(target.model, headers=target.headers),
            "server": client.get_server_metadata(**sent),
            "model": client.get_model_metadata(target.model, **sent),
            "config": client.get_model_config(target.model, **sent),
            "index": client.get_model_repository_index(**sent),
        }


PARTS = {
    "scores": scores,
    "batch": batch,
    "compressed": compressed,
    "callbacks": callbacks,
    "typed": typed,
    "selected": selected,
    "classes": classes,
    "descriptions": descriptions,
}

if __name__ == "__main__":
    run(PARTS)
