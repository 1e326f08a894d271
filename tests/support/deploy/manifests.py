"""The Kubernetes manifests as `kubectl kustomize` renders them, and the pods of each workload."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from tests.support.programs import required

ROOT = Path(__file__).parents[3]
KUBERNETES = ROOT / "deploy" / "kubernetes"
Manifest = dict[str, Any]

VARIANTS: Mapping[str, tuple[str, Sequence[str]]] = {
    "cpu": ("overlays/cpu", ()),
    "cpu without gRPC": ("overlays/cpu", ("examples/without-grpc",)),
    "cpu with shared models": ("overlays/cpu", ("components/shared-models",)),
    "gpu": ("overlays/gpu", ()),
    "gpu with shared models": ("overlays/gpu", ("components/shared-models",)),
    "gpu with TensorRT": ("overlays/gpu-tensorrt", ()),
    "kserve": ("overlays/kserve", ()),
}
"""What people apply: an overlay, and the components that they add to it."""


@cache
def render(variant: str) -> Sequence[Manifest]:
    """All manifests of a variant; do not change them."""
    overlay, components = VARIANTS[variant]
    if not components:
        return _kustomize(KUBERNETES / overlay)
    with TemporaryDirectory() as folder:
        # Kustomize wants relative paths.
        kustomization = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "namespace": "tritonflare",
            "resources": [os.path.relpath(KUBERNETES / overlay, folder)],
            "components": [os.path.relpath(KUBERNETES / component, folder) for component in components],
        }
        Path(folder, "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
        return _kustomize(Path(folder))


def _kustomize(folder: Path) -> Sequence[Manifest]:
    required("kubectl", "kubectl is not installed, and nothing else here renders the manifests")
    done = subprocess.run(
        ["kubectl", "kustomize", str(folder)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def read(path: str) -> Any:
    """A YAML file of deploy/kubernetes that is not rendered."""
    return yaml.safe_load((KUBERNETES / path).read_text())


def of_kind(manifests: Sequence[Manifest], kind: str) -> list[Manifest]:
    return [manifest for manifest in manifests if manifest["kind"] == kind]


def named(manifests: Sequence[Manifest], kind: str, name: str) -> Manifest:
    (found,) = [manifest for manifest in of_kind(manifests, kind) if manifest["metadata"]["name"] == name]
    return found


@dataclass(frozen=True)
class Pod:
    """What the pods of one workload look like."""

    name: str
    labels: Mapping[str, str]
    spec: Mapping[str, Any]

    @property
    def containers(self) -> list[Any]:
        return [*self.spec.get("initContainers", ()), *self.spec["containers"]]

    @property
    def main(self) -> Any:
        (container,) = self.spec["containers"]
        return container

    def ports(self) -> dict[str, int]:
        return {port["name"]: port["containerPort"] for port in self.main.get("ports", ())}

    def variables(self) -> dict[str, str]:
        """Those that stand in the manifest itself."""
        return {entry["name"]: entry["value"] for entry in self.main.get("env", ()) if "value" in entry}


def pods(manifests: Sequence[Manifest]) -> list[Pod]:
    """One for each Deployment, Job and InferenceService."""
    return list(_pods(manifests))


def pod(manifests: Sequence[Manifest], name: str) -> Pod:
    (found,) = [one for one in pods(manifests) if one.name == name]
    return found


def _pods(manifests: Sequence[Manifest]) -> Iterator[Pod]:
    for manifest in manifests:
        name = manifest["metadata"]["name"]
        if manifest["kind"] in ("Deployment", "Job"):
            template = manifest["spec"]["template"]
            yield Pod(name, template["metadata"]["labels"], template["spec"])
        elif manifest["kind"] == "InferenceService":
            predictor = manifest["spec"]["predictor"]
            # KServe makes a Deployment of it, with the model's container in its pods.
            yield Pod(name, predictor["labels"], {**predictor, "containers": [predictor["model"]]})


def matches(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Whether a selector with matchLabels alone, which is all that we use, selects these labels."""
    assert set(selector) <= {"matchLabels"}, selector
    wanted: Mapping[str, str] = selector.get("matchLabels", {})
    return wanted.items() <= labels.items()


def option(command: Sequence[str], name: str) -> str:
    """What ``name=value`` or ``name value`` says in a command line."""
    for at, word in enumerate(command):
        if word == name:
            return command[at + 1]
        if word.startswith(name + "="):
            return word.removeprefix(name + "=")
    raise AssertionError(f"{name} is not in {command}")
