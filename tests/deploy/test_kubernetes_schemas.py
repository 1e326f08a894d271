"""Every manifest against the schemas of Kubernetes and KServe, in which unknown fields are errors."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest

from tests.support.deploy.manifests import VARIANTS, Manifest, named, of_kind, read, render

OLDEST, NEWEST = "1.30", "1.37"
"""`preStop.sleep` is on by default since 1.30."""
EXTENSIONS = ("InferenceService",)


def validate(manifest: Manifest, version: str) -> None:
    if manifest["kind"] in EXTENSIONS:
        jsonschema.Draft202012Validator(kserve_schema()).validate(manifest)
    else:
        kubernetes_validate.validate(manifest, version, strict=True)


def kserve_schema() -> dict[str, Any]:
    """KServe's fields, beside the types of Kubernetes that they are made of."""
    folder = (
        Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema" / f"v{NEWEST}.0-local-strict"
    )
    definitions = json.loads((folder / "_definitions.json").read_text())["$defs"]
    own = json.loads(Path(__file__).with_name("kserve.json").read_text())["$defs"]
    return {"$ref": "#/$defs/V1beta1InferenceService", "$defs": {**definitions, **own}}


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_manifest_is_valid(variant: str, version: str) -> None:
    manifests = render(variant)
    assert len(manifests) > 10
    for manifest in manifests:
        validate(manifest, version)


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@pytest.mark.parametrize("name", ["ingress", "ingress-grpc"])
def test_the_ingress_examples_are_valid(name: str, version: str) -> None:
    validate(read(f"examples/{name}.yaml"), version)


def test_a_misspelt_field_is_refused() -> None:
    deployment = deepcopy(named(render("cpu"), "Deployment", "gateway"))
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    container["livenessprobe"] = container.pop("livenessProbe")
    with pytest.raises(kubernetes_validate.ValidationError, match="livenessprobe"):
        validate(deployment, NEWEST)


def test_a_misspelt_field_of_kserve_is_refused() -> None:
    (service,) = of_kind(render("kserve"), "InferenceService")
    for change in ("storageURI", "probe"):
        wrong = deepcopy(service)
        model = wrong["spec"]["predictor"]["model"]
        if change == "probe":
            model["readinessProbe"]["grpc"]["portnumber"] = 1
        else:
            model[change] = model.pop("storageUri")
        with pytest.raises(jsonschema.ValidationError, match="unexpected"):
            validate(wrong, NEWEST)
