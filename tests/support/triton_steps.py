"""Runs the program of a step outside Triton, with a stand-in for Triton's module."""

from __future__ import annotations

import importlib
import json
import shutil
import sys
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from queue import Queue
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from export.repository.write import MODEL_SOURCES

_numbers = count(1)


class FakeTritonError(Exception):
    INVALID_ARG = 3


def fake_pb_utils() -> Any:
    module: Any = ModuleType("triton_python_backend_utils")
    module.Tensor = lambda name, value: SimpleNamespace(name=name, as_numpy=lambda: value)
    module.InferenceResponse = lambda output_tensors=(), error=None: SimpleNamespace(
        tensors={t.name: t.as_numpy() for t in output_tensors}, error=error
    )
    module.get_input_tensor_by_name = lambda request, name: SimpleNamespace(as_numpy=lambda: request[name])
    module.TritonError = lambda *arguments: FakeTritonError(*arguments)
    module.TritonError.INVALID_ARG = 3
    module.TRITONSERVER_RESPONSE_COMPLETE_FINAL = "final"
    module.warnings = []
    module.Logger = SimpleNamespace(log_warn=module.warnings.append)
    return module


def copy_step(sources: Mapping[str, str], folder: Path) -> None:
    """Make a folder with the files that a step is served from, and no others."""
    folder.mkdir(parents=True)
    for name, source in sources.items():
        shutil.copyfile(MODEL_SOURCES / source, folder / name)


def load_step(sources: Mapping[str, str], folder: Path, config: Mapping[str, Any]) -> Any:
    """Import a step as Triton does, as ``model`` of a package that holds its files alone, and initialize it.

    Args:
        sources: of the exporter; a file that it forgets is missing here too.
        folder: holds ``tokenizer.json`` or ``model.onnx`` or both.
        config: the model's configuration, as Triton hands it over.
    """
    package = ModuleType(f"step_{next(_numbers)}")
    version = folder / package.__name__
    copy_step(sources, version)
    for file in (folder / "tokenizer.json", folder / "model.onnx"):
        if file.exists():
            shutil.copyfile(file, version / file.name)
    package.__path__ = [str(version)]
    sys.modules[package.__name__] = package
    try:
        model = importlib.import_module(f"{package.__name__}.model").TritonPythonModel()
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == package.__name__]:
            del sys.modules[name]
    model.initialize({"model_config": json.dumps(config), "model_name": "step"})
    return model


class FakeRequest(dict[str, Any]):
    """The tensors of a request, whose answer may come later and from another thread."""

    def __init__(self, values: Mapping[str, Any], parameters: Mapping[str, Any] | None = None) -> None:
        super().__init__(values)
        self._parameters = json.dumps(dict(parameters or {}))
        self.answers: Queue[Any] = Queue()

    def parameters(self) -> str:
        return self._parameters

    def get_response_sender(self) -> Any:
        return SimpleNamespace(send=lambda response, flags: self.answers.put((response, flags)))


def strings(values: Mapping[str, str]) -> dict[str, Any]:
    """Parameters, as a configuration has them."""
    return {key: {"string_value": text} for key, text in values.items()}


def tensors(*names: str, dims: int = -1) -> list[dict[str, Any]]:
    """Inputs or outputs, as a configuration has them."""
    return [{"name": name, "dims": [dims]} for name in names]


def texts(*values: str) -> FakeRequest:
    return FakeRequest({"TEXT": np.array([[value.encode()] for value in values], dtype=object)})


def pairs(*values: tuple[str, str]) -> FakeRequest:
    columns = zip(("QUERY", "TEXT"), zip(*values, strict=True), strict=True)
    return FakeRequest(
        {name: np.array([[text.encode()] for text in column], dtype=object) for name, column in columns}
    )


def answers(model: Any, *requests: Mapping[str, Any]) -> list[Any]:
    """Execute, and wait for all answers; each request gets one, returned or sent as its last."""
    asked = [FakeRequest(request) for request in requests]
    returned = model.execute(asked) or [None] * len(asked)
    found = []
    for request, response in zip(asked, returned, strict=True):
        if response is None:
            sent, flags = request.answers.get(timeout=30)
            assert flags == "final"
        assert request.answers.empty()
        found.append(response or sent)
    return found
