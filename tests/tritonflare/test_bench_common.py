"""What the bench records of the machine."""

from __future__ import annotations

import importlib.metadata

import pytest

from tritonflare.bench_common import environment


@pytest.mark.parametrize("runtime", ["onnxruntime", "onnxruntime-gpu"])
def test_the_onnxruntime_that_is_installed_is_recorded(monkeypatch: pytest.MonkeyPatch, runtime: str) -> None:
    """Both are the same module, and never installed together."""
    real = importlib.metadata.version

    def version(name: str) -> str:
        if not name.startswith("onnxruntime"):
            return real(name)
        if name != runtime:
            raise importlib.metadata.PackageNotFoundError(name)
        return "1.26.0"

    monkeypatch.setattr(importlib.metadata, "version", version)
    packages = environment()["packages"]
    assert {name: found for name, found in packages.items() if "onnx" in name} == {runtime: "1.26.0"}
    assert packages["grpcio"] == real("grpcio")
