"""tritonclient.grpc's stream: answers and errors come to a callback."""

from __future__ import annotations

import queue
from typing import Any

import tritonclient.grpc as triton

from tests.clients.programs.common import Target, run
from tests.clients.programs.triton_grpc import decoded, text_input


def scores(target: Target) -> Any:
    """Each text in a message of one stream; answers by the ids of the requests."""
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    found: dict[int, Any] = {}
    with triton.InferenceServerClient(target.grpc) as client:
        client.start_stream(lambda result, error: answers.put((result, error)), headers=target.headers)
        for place, text in enumerate(target.texts):
            client.async_stream_infer(target.model, [text_input([text])], request_id=str(place))
        for _ in target.texts:
            result, error = answers.get(timeout=60)
            if error is not None:
                raise error
            found[int(result.get_response().id)] = decoded(result)
        client.stop_stream()
    return [found[place] for place in range(len(target.texts))]


def error_in_between(target: Target) -> Any:
    """One message that is refused between two that are answered."""
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    with triton.InferenceServerClient(target.grpc) as client:
        client.start_stream(lambda result, error: answers.put((result, error)), headers=target.headers)
        outcomes = []
        for name in (target.model, "no-such-model", target.model):
            client.async_stream_infer(name, [text_input(target.texts[:1])], request_id=name)
            result, error = answers.get(timeout=60)
            outcomes.append(str(error) if error is not None else result.get_response().id)
        client.stop_stream()
    return outcomes


def until_final(target: Target) -> Any:
    """Read as for a model with several responses: until one is marked as the last."""
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    found = []
    with triton.InferenceServerClient(target.grpc) as client:
        client.start_stream(lambda result, error: answers.put((result, error)), headers=target.headers)
        client.async_stream_infer(
            target.model, [text_input(target.texts[:1])], enable_empty_final_response=True
        )
        final = False
        while not final:
            result, error = answers.get(timeout=10)
            if error is not None:
                raise error
            found.append(decoded(result))
            final = result.get_response().parameters["triton_final_response"].bool_param
        client.stop_stream()
    return found


if __name__ == "__main__":
    run({"scores": scores, "error in between": error_in_between, "until final": until_final})
