"""Server and models in the protocol's JSON."""

from __future__ import annotations

from gateway.inference_protocol.models import (
    EXTENSIONS,
    PLATFORM,
    SERVER_NAME,
    SERVER_VERSION,
    ModelDescription,
    TensorDescription,
)


def server_metadata() -> dict[str, object]:
    """Describe the server."""
    return {"name": SERVER_NAME, "version": SERVER_VERSION, "extensions": EXTENSIONS}


def model_metadata(model: ModelDescription) -> dict[str, object]:
    """Describe a model."""
    return {
        "name": model.name,
        "versions": [model.version],
        "platform": PLATFORM,
        "inputs": [_metadata(tensor) for tensor in model.inputs],
        "outputs": [_metadata(tensor) for tensor in model.outputs],
        "parameters": model.parameters,
    }


def _metadata(tensor: TensorDescription) -> dict[str, object]:
    return {"name": tensor.name, "datatype": tensor.datatype, "shape": tensor.shape}


def model_config(model: ModelDescription) -> dict[str, object]:
    """Describe a model in the JSON form of Triton's ModelConfig, as far as clients need it."""
    return {
        "name": model.name,
        "platform": PLATFORM,
        "max_batch_size": model.max_batch_size,
        "input": [_config(tensor) for tensor in model.inputs],
        "output": [_config(tensor) for tensor in model.outputs],
        "parameters": {key: {"string_value": value} for key, value in model.parameters.items()},
    }


def _config(tensor: TensorDescription) -> dict[str, object]:
    # ModelConfig leaves out the dimension of the batch.
    return {"name": tensor.name, "data_type": tensor.config_datatype, "dims": tensor.shape[1:]}
