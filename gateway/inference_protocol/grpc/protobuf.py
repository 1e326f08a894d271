"""Protobuf messages of ``inference.GRPCInferenceService`` to and from the transport-free ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from google.protobuf.message import DecodeError
from tritonclient.grpc import model_config_pb2, service_pb2

from gateway.domain.errors import BadInput, MalformedBody, TritonflareError
from gateway.inference_protocol.messages import InferRequest, InferResponse
from gateway.inference_protocol.models import (
    EXTENSIONS,
    PLATFORM,
    SERVER_NAME,
    SERVER_VERSION,
    IndexEntry,
    ModelDescription,
    TensorDescription,
)
from gateway.inference_protocol.parameters import SUPPORTED, check_counts, check_parameters, class_count
from gateway.inference_protocol.tensors import InputTensor, RequestedOutput, bytes_elements

# The messages are generated without types, so they are Any here and nowhere else.
Message = Any
_MOST_DIMENSIONS = 8
"""More than any tensor has; what a client sends beyond is not read."""


def parsed(deserialize: Callable[[bytes], Message], raw: bytes) -> Message:
    """Parse a message.

    Raises:
        MalformedBody: it is not of this type.
    """
    try:
        return deserialize(raw)
    except DecodeError:
        raise MalformedBody("the message is not of the method's type") from None


def infer_request(message: Message) -> InferRequest:
    """Read a ModelInferRequest.

    Raises:
        BadInput: too many inputs or outputs, a parameter that is not supported, raw contents for another
            number of inputs, raw and typed contents mixed, or raw contents that end inside an element.
    """
    check_counts(len(message.inputs), len(message.outputs))
    check_parameters(_parameters(message.parameters))
    raw = message.raw_input_contents
    if raw and len(raw) != len(message.inputs):
        raise BadInput(f"there are {len(raw)} raw contents for {len(message.inputs)} inputs")
    return InferRequest(
        model=message.model_name,
        version=message.model_version,
        id=message.id,
        inputs=[_input(tensor, raw[place] if raw else None) for place, tensor in enumerate(message.inputs)],
        outputs=[_output(output) for output in message.outputs],
    )


def _input(tensor: Message, raw: bytes | None) -> InputTensor:
    check_parameters(_parameters(tensor.parameters))
    elements: Sequence[object] = tensor.contents.bytes_contents
    if raw is not None:
        if tensor.HasField("contents"):
            raise BadInput(f"input '{tensor.name[:100]}' has both raw and typed contents")
        # Other datatypes are refused later, by the name of the input or its datatype.
        elements = bytes_elements(tensor.name[:100], raw) if tensor.datatype == "BYTES" else ()
    return InputTensor(tensor.name, tensor.datatype, tuple(tensor.shape[:_MOST_DIMENSIONS]), elements)


def _output(output: Message) -> RequestedOutput:
    parameters = _parameters(output.parameters)
    check_parameters(parameters)
    return RequestedOutput(output.name, class_count(output.name, parameters))


def _parameters(given: Message) -> dict[str, object]:
    # The others are not looked at: there may be as many as fit into a message.
    return {name: _value(given[name]) for name in SUPPORTED if name in given}


def _value(parameter: Message) -> object:
    kind = parameter.WhichOneof("parameter_choice")
    return None if kind is None else getattr(parameter, kind)


def infer_response(response: InferResponse) -> Message:
    """Make a ModelInferResponse with raw contents."""
    message = service_pb2.ModelInferResponse(
        model_name=response.model, model_version=response.version, id=response.id
    )
    for output in response.outputs:
        message.outputs.add(name=output.name, datatype=output.datatype, shape=output.shape)
        message.raw_output_contents.append(output.raw())
    return message


def server_metadata() -> Message:
    """Make a ServerMetadataResponse."""
    return service_pb2.ServerMetadataResponse(name=SERVER_NAME, version=SERVER_VERSION, extensions=EXTENSIONS)


def model_metadata(model: ModelDescription) -> Message:
    """Make a ModelMetadataResponse."""
    tensor = service_pb2.ModelMetadataResponse.TensorMetadata
    return service_pb2.ModelMetadataResponse(
        name=model.name,
        versions=[model.version],
        platform=PLATFORM,
        inputs=[tensor(name=each.name, datatype=each.datatype, shape=each.shape) for each in model.inputs],
        outputs=[tensor(name=each.name, datatype=each.datatype, shape=each.shape) for each in model.outputs],
    )


def model_config(model: ModelDescription) -> Message:
    """Make a ModelConfigResponse with what a client needs, and nothing of how the model is served."""
    config = model_config_pb2.ModelConfig(
        name=model.name,
        platform=PLATFORM,
        max_batch_size=model.max_batch_size,
        input=[model_config_pb2.ModelInput(**_config(each)) for each in model.inputs],
        output=[model_config_pb2.ModelOutput(**_config(each)) for each in model.outputs],
    )
    for name, value in model.parameters.items():
        config.parameters[name].string_value = value
    return service_pb2.ModelConfigResponse(config=config)


def _config(tensor: TensorDescription) -> dict[str, Any]:
    return {"name": tensor.name, "data_type": tensor.config_datatype, "dims": tensor.shape[1:]}


def repository_index(entries: Iterable[IndexEntry]) -> Message:
    """Make a RepositoryIndexResponse."""
    message = service_pb2.RepositoryIndexResponse()
    for entry in entries:
        message.models.add(name=entry.name, version=entry.version, state=entry.state, reason=entry.reason)
    return message


def stream_response(response: Message) -> Message:
    """Make a ModelStreamInferResponse, which is the only one to its request."""
    # As Triton marks it: clients written for models with several responses read until they find this.
    response.parameters["triton_final_response"].bool_param = True
    return service_pb2.ModelStreamInferResponse(infer_response=response)


def stream_failure(request: Message | None, error: TritonflareError) -> Message:
    """Make the response to a request of a stream that failed; it names the request, if that could be read."""
    response = service_pb2.ModelStreamInferResponse(error_message=error.message)
    if request is not None:
        response.infer_response.model_name = request.model_name
        response.infer_response.id = request.id
    return response
