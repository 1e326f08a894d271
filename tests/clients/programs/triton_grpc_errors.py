"""tritonclient.grpc: what is refused, as the client reports it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from tests.clients.programs.common import Target, run
from tests.clients.programs.triton_grpc import text_input

Call = Callable[[Any], Any]


def tensor(shape: tuple[int, ...], datatype: str = "BYTES", name: str = "TEXT", text: str = "good") -> Any:
    array = np.full(shape, 1, np.float32) if datatype == "FP32" else np.full(shape, text.encode(), np.object_)
    made = triton.InferInput(name, shape, datatype)
    made.set_data_from_numpy(array)
    return made


def outcome(client: Any, call: Call) -> list[str]:
    """Code and message of the error that a call ends with."""
    try:
        call(client)
    except InferenceServerException as error:
        return [str(error.status()).removeprefix("StatusCode."), error.message()]
    return ["OK", ""]


def refused(target: Target) -> Any:
    headers = target.headers
    model = target.model
    good = [text_input(["good"])]

    def infer(*inputs: Any, **options: Any) -> Call:
        return lambda client: client.infer(model, list(inputs), headers=headers, **options)

    shared = triton.InferInput("TEXT", (1, 1), "BYTES")
    shared.set_shared_memory("region", 8)
    calls: dict[str, Call] = {
        "no token": lambda client: client.infer(model, good),
        "wrong token": lambda client: client.infer(model, good, headers={"authorization": "Bearer wrong"}),
        "metadata without a token": lambda client: client.get_model_metadata(model),
        "unknown model": lambda client: client.infer("no-such-model", good, headers=headers),
        "metadata of an unknown model": lambda client: client.get_model_metadata("none", headers=headers),
        "config of an unknown model": lambda client: client.get_model_config("none", headers=headers),
        "unknown version": infer(*good, model_version="99"),
        "unknown input": infer(tensor((1, 1), name="OTHER")),
        "unknown output": infer(*good, outputs=[triton.InferRequestedOutput("other")]),
        "two inputs": infer(tensor((1, 1)), tensor((1, 1), name="OTHER")),
        "two columns": infer(tensor((1, 2))),
        "three dimensions": infer(tensor((1, 1, 1))),
        "numbers": infer(tensor((1, 1), "FP32")),
        "empty text": infer(tensor((1, 1), text="")),
        "input in shared memory": infer(shared),
        "system shared memory": lambda client: client.register_system_shared_memory(
            "region", "/region", 64, headers=headers
        ),
        "status of shared memory": lambda client: client.get_system_shared_memory_status(headers=headers),
        "CUDA shared memory": lambda client: client.register_cuda_shared_memory(
            "region", b"", 0, 64, headers=headers
        ),
        "load": lambda client: client.load_model(model, headers=headers),
        "unload": lambda client: client.unload_model(model, headers=headers),
        "statistics": lambda client: client.get_inference_statistics(model, headers=headers),
        "trace settings": lambda client: client.get_trace_settings(headers=headers),
        "log settings": lambda client: client.update_log_settings({"log_info": False}, headers=headers),
    }
    with triton.InferenceServerClient(target.grpc) as client:
        return {name: outcome(client, call) for name, call in calls.items()}


if __name__ == "__main__":
    run({"refused": refused})
