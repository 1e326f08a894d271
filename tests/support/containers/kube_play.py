"""What podman 4.3 can run of the manifests, and everything that has to be changed for it."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from typing import Any

from tests.support.containers.podman import Podman
from tests.support.deploy.manifests import Manifest, named

CHANGES: Mapping[str, str] = {
    r"restartPolicy": "podman starts init containers that have ended again, too, if it is Always",
    r".*\.image": "the images are built here and have another prefix",
    r".*\.(command|args)\.\d+": "podman does not expand $(NAME)",
    r".*\.secretKeyRef\.name": "podman reads a Secret in one format for variables and in another for volumes",
    r"volumes\.\d+\.secret\.optional": "podman crashes without it",
    r"(volumes|.*\.volumeMounts)\.\d+\.name": "podman names volumes after emptyDirs: pods would share them",
    r".*\.ports": "podman publishes the ports of containers on all addresses of the host",
    r".*\.livenessProbe": "podman asks over HTTP with curl inside the container; no image has it",
}
"""Paths below a pod's spec, as regular expressions, and why what is there differs for podman."""

DROPPED: Mapping[str, str] = {
    "Namespace": "podman has none",
    "Job": "podman 4.3 has none",
    "InferenceService": "it is KServe's",
    "Service": "podman has none; the network's DNS gives the addresses of all pods under the alias of `play`",
    "HorizontalPodAutoscaler": "podman has no metrics",
    "PodDisruptionBudget": "podman has no nodes to drain",
    "NetworkPolicy": "podman filters nothing inside a network",
}
"""Kinds that cannot be played."""


def playable(
    manifests: Sequence[Manifest], name: str, variables: Mapping[str, str], prefix: str
) -> list[Manifest]:
    """One Deployment with its ConfigMaps, with the `CHANGES` that podman needs.

    Args:
        manifests: as rendered; they stay as they are.
        name: of the Deployment.
        variables: values for ``$(NAME)``, beside those of the ConfigMaps.
        prefix: for the names of images.
    """
    deployment = deepcopy(named(manifests, "Deployment", name))
    spec = deployment["spec"]["template"]["spec"]
    spec["restartPolicy"] = "Never"
    maps = [manifest for manifest in manifests if manifest["kind"] == "ConfigMap"]
    known = {key: value for one in maps for key, value in one["data"].items()} | dict(variables)
    for volume in spec["volumes"]:
        volume["name"] = f"{name}-{volume['name']}"
        if "secret" in volume:
            volume["secret"]["optional"] = False
    for container in [*spec.get("initContainers", ()), *spec["containers"]]:
        _change_container(container, name, known, prefix)
    return [*maps, deployment]


def _change_container(container: Any, name: str, known: Mapping[str, str], prefix: str) -> None:
    container["image"] = f"localhost/{prefix}{container['image']}"
    container.pop("ports", None)
    if "httpGet" in container.get("livenessProbe", ()):
        del container["livenessProbe"]
    for mount in container["volumeMounts"]:
        mount["name"] = f"{name}-{mount['name']}"
    for key in {"command", "args"} & container.keys():
        container[key] = [expand(word, known) for word in container[key]]
    for entry in container.get("env", ()):
        if "valueFrom" in entry:
            entry["valueFrom"]["secretKeyRef"]["name"] += "-env"


def expand(word: str, variables: Mapping[str, str]) -> str:
    """Replace ``$(NAME)`` as Kubernetes does."""
    return re.sub(r"\$\((\w+)\)", lambda found: variables.get(found[1], found[0]), word)


def differences(one: Any, other: Any, path: str = "") -> Iterator[str]:
    """The paths, such as ``containers.0.image``, at which two documents differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in sorted({*one, *other}):
            yield from differences(one.get(key), other.get(key), f"{path}.{key}".lstrip("."))
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for number, (left, right) in enumerate(zip(one, other, strict=True)):
            yield from differences(left, right, f"{path}.{number}")
    elif one != other:
        yield path


def create_secret(podman: Podman, name: str, values: Mapping[str, str]) -> None:
    """Store a Secret: as ``name`` for volumes, with plain values, and as ``name-env`` for variables."""
    podman.podman("secret", "create", name, "-", stdin=json.dumps({"data": values}))
    encoded = {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
    podman.podman("secret", "create", f"{name}-env", "-", stdin=json.dumps(encoded))
