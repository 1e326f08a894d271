"""Writes kserve.json from the wheel of the PyPI package `kserve`.

    python -m tests.deploy.kserve_schema kserve-0.21.0-py3-none-any.whl

The package itself would bring Ray's, FastAPI's and a dozen more packages into the environment of the tests.
Its classes are generated from the Go types of the custom resource: we take names and types of the fields.
"""

from __future__ import annotations

import ast
import json
import re
import sys
from pathlib import Path
from typing import Any
from zipfile import ZipFile

TARGET = Path(__file__).with_name("kserve.json")
MODULES = {
    "V1beta1InferenceService": "inference_service",
    "V1beta1InferenceServiceSpec": "inference_service_spec",
    "V1beta1PredictorSpec": "predictor_spec",
    "V1beta1ModelSpec": "model_spec",
    "V1beta1ModelFormat": "model_format",
}
REQUIRED = {
    "V1beta1InferenceService": ["apiVersion", "kind", "metadata", "spec"],
    "V1beta1InferenceServiceSpec": ["predictor"],
    "V1beta1ModelSpec": ["modelFormat"],
    "V1beta1ModelFormat": ["name"],
}
"""The package's classes give the zero value to what is required and a string."""
_PLAIN = {"str": "string", "int": "integer", "bool": "boolean", "float": "number"}
_OTHER = {
    "V1ObjectMeta": "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta",
    "K8sIoApiAppsV1DeploymentStrategy": "io.k8s.api.apps.v1.DeploymentStrategy",
}


def schema_of(wheel: Path) -> dict[str, Any]:
    """``$defs`` of an InferenceService; Kubernetes' own types are references to its own ``$defs``."""
    with ZipFile(wheel) as archive:
        definitions = {
            name: _definition(name, archive.read(f"kserve/models/v1beta1_{module}.py").decode())
            for name, module in MODULES.items()
        }
    return {"$comment": f"Made by kserve_schema.py from {wheel.name} (Apache-2.0).", "$defs": definitions}


def _definition(name: str, source: str) -> dict[str, Any]:
    types, names = (_literal(source, key) for key in ("openapi_types", "attribute_map"))
    properties = {names[field]: found for field, kind in types.items() if (found := _type(kind)) is not None}
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
        "required": REQUIRED.get(name, []),
    }


def _literal(source: str, name: str) -> dict[str, str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            return dict(ast.literal_eval(node.value))
    raise ValueError(f"no {name}")


def _type(kind: str) -> dict[str, Any] | None:
    """None for types of KServe that are not in MODULES: a manifest that uses one is refused."""
    if match := re.fullmatch(r"list\[(.+)\]", kind):
        items = _type(match[1])
        return None if items is None else {"type": "array", "items": items}
    if match := re.fullmatch(r"dict\(str, (.+)\)", kind):
        values = _type(match[1])
        return None if values is None else {"type": "object", "additionalProperties": values}
    if kind in _PLAIN:
        return {"type": _PLAIN[kind]}
    if kind in MODULES:
        return {"$ref": f"#/$defs/{kind}"}
    if kind.startswith(("V1beta1", "V1alpha1")):
        return None
    return {"$ref": "#/$defs/" + _OTHER.get(kind, f"io.k8s.api.core.v1.{kind.removeprefix('V1')}")}


if __name__ == "__main__":
    TARGET.write_text(json.dumps(schema_of(Path(sys.argv[1])), indent=1, sort_keys=True) + "\n")
