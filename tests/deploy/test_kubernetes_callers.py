"""How callers outside of the pods reach the gateways: Services and the examples of an Ingress."""

from __future__ import annotations

import pytest
from tritonclient.grpc.service_pb2 import DESCRIPTOR

from gateway.composition import build_app
from gateway.settings import Settings
from tests.support.deploy.manifests import VARIANTS, named, pod, read, render


@pytest.mark.parametrize("variant", VARIANTS)
def test_grpc_clients_find_one_address_or_those_of_all_gateways(variant: str) -> None:
    manifests = render(variant)
    gateway = pod(manifests, "gateway")
    # A headless Service translates no ports, so both have that of the pod.
    same = {"name": "grpc", "port": 8001, "targetPort": "grpc", "appProtocol": "kubernetes.io/h2c"}
    assert gateway.ports()["grpc"] == same["port"]
    assert same in named(manifests, "Service", "tritonflare")["spec"]["ports"]
    headless = named(manifests, "Service", "tritonflare-headless")["spec"]
    assert (headless["clusterIP"], headless["ports"]) == ("None", [same])


def test_the_ingress_shows_the_api_alone() -> None:
    ingress = read("examples/ingress.yaml")
    (rule,) = ingress["spec"]["rules"]
    shown = [path["path"] for path in rule["http"]["paths"]]
    for route in build_app(Settings(api_tokens="a:b")).routes:
        if not route.api:
            assert not any(route.template.startswith(path) for path in shown), route.template
    assert {"/client/v4", "/v1", "/v2/models"} == set(shown)
    service = named(render("cpu"), "Service", "tritonflare")
    for path in rule["http"]["paths"]:
        backend = path["backend"]["service"]
        assert backend["name"] == service["metadata"]["name"]
        assert backend["port"]["name"] in {port["name"] for port in service["spec"]["ports"]}
    annotations = ingress["metadata"]["annotations"]
    timeout = int(annotations["nginx.ingress.kubernetes.io/proxy-read-timeout"])
    assert timeout > Settings().request_timeout_s
    assert annotations["nginx.ingress.kubernetes.io/proxy-body-size"] == "1m"
    assert Settings().max_body_bytes == 1024 * 1024


def test_the_ingress_for_grpc_shows_inference_alone() -> None:
    ingress = read("examples/ingress-grpc.yaml")
    (rule,) = ingress["spec"]["rules"]
    (path,) = rule["http"]["paths"]
    service = DESCRIPTOR.services_by_name["GRPCInferenceService"]
    assert path["path"] == f"/{service.full_name}"
    backend = path["backend"]["service"]
    ports = named(render("cpu"), "Service", backend["name"])["spec"]["ports"]
    assert backend["port"]["name"] in {port["name"] for port in ports}
    assert ingress["metadata"]["annotations"]["nginx.ingress.kubernetes.io/backend-protocol"] == "GRPC"
