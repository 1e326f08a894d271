"""What one manifest says of another, of the gateway, of the exporter and of Triton."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import build_plans
import pytest

from gateway.composition import build_app
from gateway.inference_protocol.grpc.health import LIVENESS
from gateway.settings import Settings, load_settings
from gateway.triton.failover_channel import RESOLVE_S
from tests.support.deploy.manifests import (
    KUBERNETES,
    ROOT,
    VARIANTS,
    Manifest,
    matches,
    named,
    of_kind,
    option,
    pod,
    pods,
    render,
)
from tritonflare.export import export

CHECKPOINT_IMAGE = KUBERNETES / "checkpoint.Dockerfile"
DNS_S = 30
"""CoreDNS may keep an answer for that long."""
WITHOUT_GRPC = "cpu without gRPC"
every_variant = pytest.mark.parametrize("variant", VARIANTS)


def gateway_environment(manifests: Sequence[Manifest]) -> dict[str, str]:
    """The variables of the gateway, but those from the Secret."""
    gateway = pod(manifests, "gateway")
    (source,) = gateway.main["envFrom"]
    return dict(named(manifests, "ConfigMap", source["configMapRef"]["name"])["data"]) | gateway.variables()


def gateway_settings(manifests: Sequence[Manifest], monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name, value in gateway_environment(manifests).items():
        monkeypatch.setenv(name, value)
    return load_settings()


@every_variant
def test_workloads_and_services_select_the_pods_that_they_mean(variant: str) -> None:
    manifests = render(variant)
    for deployment in of_kind(manifests, "Deployment"):
        assert matches(deployment["spec"]["selector"], pod(manifests, deployment["metadata"]["name"]).labels)
    meant = {"tritonflare": "gateway", "tritonflare-headless": "gateway", "triton-headless": "triton"}
    for service in of_kind(manifests, "Service"):
        selected = [
            one
            for one in pods(manifests)
            if matches({"matchLabels": service["spec"]["selector"]}, one.labels)
        ]
        assert [one.name for one in selected] == [meant[service["metadata"]["name"]]]
        for port in service["spec"]["ports"]:
            ports = selected[0].ports()
            assert port["targetPort"] in {*ports, *ports.values()}


@every_variant
def test_pods_are_spread_and_disrupted_as_the_selectors_say(variant: str) -> None:
    manifests = render(variant)
    for budget in of_kind(manifests, "PodDisruptionBudget"):
        assert matches(budget["spec"]["selector"], pod(manifests, budget["metadata"]["name"]).labels)
    for deployment in of_kind(manifests, "Deployment"):
        one = pod(manifests, deployment["metadata"]["name"])
        assert one.spec["topologySpreadConstraints"]
        for constraint in one.spec["topologySpreadConstraints"]:
            assert matches(constraint["labelSelector"], one.labels)


@every_variant
def test_autoscalers_own_the_replicas_of_deployments_that_exist(variant: str) -> None:
    manifests = render(variant)
    scaled = {
        scaler["spec"]["scaleTargetRef"]["name"] for scaler in of_kind(manifests, "HorizontalPodAutoscaler")
    }
    deployments = of_kind(manifests, "Deployment")
    assert scaled == {deployment["metadata"]["name"] for deployment in deployments}
    for deployment in deployments:
        assert "replicas" not in deployment["spec"]
    for scaler in of_kind(manifests, "HorizontalPodAutoscaler"):
        # One at most is away at a time, so one is left.
        assert scaler["spec"]["minReplicas"] >= 2


@every_variant
def test_a_rolling_restart_never_serves_with_fewer_pods(variant: str) -> None:
    for deployment in of_kind(render(variant), "Deployment"):
        assert deployment["spec"]["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}


@every_variant
def test_probes_ask_what_is_there(variant: str) -> None:
    manifests = render(variant)
    gateway, triton = pod(manifests, "gateway"), pod(manifests, "triton")
    routes = build_app(Settings(api_tokens="a:b")).routes
    paths = {route.template for route in routes}
    asked = {}
    for kind in ("livenessProbe", "readinessProbe"):
        request = gateway.main[kind]["httpGet"]
        assert request["path"] in paths
        assert request["port"] in gateway.ports()
        asked[kind] = request["path"]
    assert asked == {"livenessProbe": "/livez", "readinessProbe": "/readyz"}
    over_http = {"httpGet": gateway.main["livenessProbe"]["httpGet"]}
    over_grpc = {"grpc": {"port": gateway.ports()["grpc"], "service": LIVENESS}}
    startup = gateway.main["startupProbe"]
    handlers = {name: startup[name] for name in ("grpc", "httpGet") if name in startup}
    assert handlers == (over_http if variant == WITHOUT_GRPC else over_grpc)
    assert triton.main["readinessProbe"]["grpc"]["port"] in triton.ports().values()


@every_variant
def test_triton_lives_while_it_classifies(variant: str) -> None:
    triton = pod(render(variant), "triton").main
    for kind in ("startupProbe", "livenessProbe"):
        probe = triton[kind]
        interpreter, script, *arguments = probe["exec"]["command"]
        assert interpreter == "python3"
        # KServe's runtime listens for HTTP on 8080; nothing but the pod itself may ask it.
        port = 8080 if variant == "kserve" else int(option(triton["args"], "--http-port"))
        assert option(arguments, "--url") == f"http://127.0.0.1:{port}"
        assert option(triton["args"], "--http-address") == "127.0.0.1"
        assert option(triton["args"], "--metrics-address") == "0.0.0.0"
        # The script says what was wrong before the kubelet ends it.
        assert probe["timeoutSeconds"] > float(option(arguments, "--timeout"))
        # The kubelet restarts what fails, so the script only looks. What it remembers has to be writable.
        assert not any(argument.startswith("--end-after") for argument in arguments)
        assert Path(option(arguments, "--state")).parent == Path("/tmp")
        assert {"name": "tmp", "mountPath": "/tmp"} in triton["volumeMounts"]
        in_image(script, "triton" if "gpu" in variant else "cpu")
    # A pod that does not classify is not kept for the whole of preStop.
    assert triton["livenessProbe"]["terminationGracePeriodSeconds"] < 30


def in_image(script: str, image: str) -> None:
    """Both images with a Triton have files of docker/triton in /opt/tritonflare."""
    folder, _, name = script.rpartition("/")
    assert folder == "/opt/tritonflare"
    assert (ROOT / "docker" / "triton" / name).is_file()
    assert f"docker/triton/{name}" in (ROOT / "docker" / image / "Dockerfile").read_text()


@every_variant
def test_what_prometheus_scrapes_is_a_port_with_metrics(variant: str) -> None:
    manifests = render(variant)
    templates = [deployment["spec"]["template"] for deployment in of_kind(manifests, "Deployment")]
    annotations = {
        one["metadata"]["labels"]["app.kubernetes.io/name"]: one["metadata"]["annotations"]
        for one in templates
    }
    for service in of_kind(manifests, "InferenceService"):
        annotations["triton"] = service["spec"]["predictor"]["annotations"]
    assert int(annotations["gateway"]["prometheus.io/port"]) == pod(manifests, "gateway").ports()["http"]
    assert annotations["triton"]["prometheus.io/port"] == option(
        pod(manifests, "triton").main["args"], "--metrics-port"
    )
    for one in annotations.values():
        assert one["prometheus.io/scrape"] == "true"
        assert one["prometheus.io/path"] == "/metrics"


@every_variant
def test_the_gateway_starts_with_these_settings(variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    manifests = render(variant)
    known = {f"GATEWAY_{name}".upper() for name in Settings.model_fields}
    given = {
        *gateway_environment(manifests),
        *(entry["name"] for entry in pod(manifests, "gateway").main["env"]),
    }
    assert given <= known
    settings = gateway_settings(manifests, monkeypatch)
    gateway = pod(manifests, "gateway")
    assert settings.port == gateway.ports()["http"]
    assert settings.grpc_port == (None if variant == WITHOUT_GRPC else gateway.ports()["grpc"])
    (tokens,) = [one for one in gateway.main["volumeMounts"] if one["name"] == "tokens"]
    (volume,) = [one for one in gateway.spec["volumes"] if one["name"] == "tokens"]
    (item,) = volume["secret"]["items"]
    assert str(settings.tokens_file) == f"{tokens['mountPath']}/{item['path']}"


@every_variant
def test_the_gateway_balances_over_the_addresses_of_all_tritons(
    variant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifests = render(variant)
    service = named(manifests, "Service", "triton-headless")
    assert service["spec"]["clusterIP"] == "None"
    (port,) = service["spec"]["ports"]
    settings = gateway_settings(manifests, monkeypatch)
    assert settings.triton_url == f"dns:///triton-headless:{port['port']}"
    # A headless Service translates no ports: what is asked for is what the pod listens on.
    triton = pod(manifests, "triton")
    target = port["targetPort"]
    assert triton.ports().get(target, target) == port["port"]


@every_variant
def test_a_gateway_is_not_killed_while_it_drains(variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    manifests = render(variant)
    settings = gateway_settings(manifests, monkeypatch)
    # Workers that do not end are killed 5 s later.
    needed = settings.shutdown_delay_s + settings.drain_timeout_s + 5
    gateway = pod(manifests, "gateway")
    assert gateway.spec["terminationGracePeriodSeconds"] > needed
    readiness = gateway.main["readinessProbe"]
    assert settings.shutdown_delay_s > readiness["periodSeconds"] * readiness["failureThreshold"]
    # A request that was accepted may take that long.
    assert settings.drain_timeout_s >= settings.request_timeout_s


@every_variant
def test_gateways_have_left_a_triton_before_it_stops(variant: str) -> None:
    triton = pod(render(variant), "triton")
    leaving_s = RESOLVE_S + DNS_S
    sleep_s = triton.main["lifecycle"]["preStop"]["sleep"]["seconds"]
    exit_s = int(option(triton.main["args"], "--exit-timeout-secs"))
    assert sleep_s > leaving_s
    assert triton.spec["terminationGracePeriodSeconds"] > sleep_s + exit_s


@pytest.mark.parametrize("variant", [variant for variant in VARIANTS if variant != "kserve"])
def test_a_new_triton_gets_calls_before_an_old_one_leaves(variant: str) -> None:
    manifests = render(variant)
    assert named(manifests, "Deployment", "triton")["spec"]["minReadySeconds"] >= RESOLVE_S + DNS_S


@every_variant
def test_both_ends_of_triton_share_the_key(variant: str) -> None:
    manifests = render(variant)
    sources = {}
    for name in ("gateway", "triton"):
        for entry in pod(manifests, name).main["env"]:
            if "valueFrom" in entry:
                sources[entry["name"]] = entry["valueFrom"]["secretKeyRef"]
    same = {"name": "tritonflare", "key": "triton-key"}
    assert sources == {"GATEWAY_TRITON_METADATA_KEY": same, "TRITON_KEY": same}
    protocols, _, key = option(pod(manifests, "triton").main["args"], "--grpc-restricted-protocol").partition(
        ":"
    )
    assert key == "$(TRITON_KEY)"
    # The kubelet has no key.
    assert "health" not in protocols.split(",")


@every_variant
def test_secrets_are_named_and_never_written(variant: str) -> None:
    manifests = render(variant)
    assert not of_kind(manifests, "Secret")
    page = (ROOT / "docs" / "kubernetes.md").read_text()
    assert "create secret generic tritonflare" in page
    for key in ("tokens", "triton-key"):
        assert re.search(rf"--from-(file|literal)={key}=", page)


@every_variant
def test_every_mount_has_its_volume_and_every_map_exists(variant: str) -> None:
    manifests = render(variant)
    maps = {one["metadata"]["name"] for one in of_kind(manifests, "ConfigMap")}
    claims = {one["metadata"]["name"] for one in of_kind(manifests, "PersistentVolumeClaim")}
    used = set()
    for one in pods(manifests):
        volumes = {volume["name"]: volume for volume in one.spec["volumes"]}
        mounted = {mount["name"] for container in one.containers for mount in container["volumeMounts"]}
        assert mounted == set(volumes), one.name
        for volume in volumes.values():
            assert len(volume) == 2, volume  # the name and one source
            if "persistentVolumeClaim" in volume:
                used.add(volume["persistentVolumeClaim"]["claimName"])
        for container in one.containers:
            for source in container.get("envFrom", ()):
                assert source["configMapRef"]["name"] in maps
    for service in of_kind(manifests, "InferenceService"):
        used.add(service["spec"]["predictor"]["model"]["storageUri"].split("/")[2])
    assert used == claims


@every_variant
def test_triton_serves_what_the_export_writes(variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    manifests = render(variant)
    every = [container for one in pods(manifests) for container in one.containers]
    (container,) = [one for one in every if one.get("name") == "export"]
    (source,) = container["envFrom"]
    data = named(manifests, "ConfigMap", source["configMapRef"]["name"])["data"]
    release = {f"$({name})": value for name, value in data.items()}
    program, subcommand, *arguments = container["command"]
    assert (program, subcommand) == ("tritonflare", "export")
    arguments = [release.get(word, word) for word in arguments]
    # The image's, not this machine's.
    monkeypatch.setattr("click.Path.convert", lambda path, value, *_: Path(value))
    with export.make_context(subcommand, arguments) as context:
        wanted = "cpu" if "gpu" not in variant else "tensorrt" if "TensorRT" in variant else "onnxruntime"
        assert context.params["target"] == wanted
        repository = str(context.params["repository"])
        assert context.params["source"] in CHECKPOINT_IMAGE.read_text()
    served = pod(manifests, "triton").main
    if "storageUri" in served:
        for name, value in release.items():
            repository = repository.replace(name, value)
        assert served["storageUri"] == repository.replace("/models", "pvc://tritonflare-models")
    else:
        assert option(served["args"], "--model-repository") == repository


@every_variant
def test_an_export_has_room_for_what_it_computes_and_fetches(variant: str) -> None:
    (one,) = [one for one in pods(render(variant)) for each in one.containers if each.get("name") == "export"]
    (container,) = [each for each in one.containers if each.get("name") == "export"]
    (mount,) = [mount for mount in container["volumeMounts"] if mount["mountPath"] == "/tmp"]
    (volume,) = [volume for volume in one.spec["volumes"] if volume["name"] == mount["name"]]
    assert volume["emptyDir"]["sizeLimit"] == "8Gi"
    assert container["resources"]["limits"]["memory"] == "4Gi"
    # Or the pod of Triton is not one that gets cores of its own.
    assert container["resources"]["limits"] == container["resources"]["requests"]


def test_kserves_models_are_exported_before_its_predictor_mounts_them() -> None:
    label = "app.kubernetes.io/component=models"
    key, _, value = label.partition("=")
    manifests = render("kserve")
    first = [one for one in manifests if one["metadata"].get("labels", {}).get(key) == value]
    assert sorted(one["kind"] for one in first) == ["ConfigMap", "Job", "PersistentVolumeClaim"]
    # With these alone the Job can run.
    (export_,) = pods(first)
    (container,) = export_.containers
    assert (
        container["envFrom"][0]["configMapRef"]["name"] == of_kind(first, "ConfigMap")[0]["metadata"]["name"]
    )
    assert f"--selector {label}" in (ROOT / "docs" / "kubernetes.md").read_text()


def test_a_plan_is_built_after_the_export_and_where_triton_runs() -> None:
    triton = pod(render("gpu with TensorRT"), "triton")
    export_, plans = triton.spec["initContainers"]
    assert (export_["name"], plans["name"]) == ("export", "plans")
    assert plans["image"] == triton.main["image"]
    assert plans["resources"]["limits"]["nvidia.com/gpu"] == "1"
    interpreter, script, *arguments = plans["command"]
    assert interpreter == "python3"
    options = build_plans._options(arguments)
    assert str(options.repository) == option(triton.main["args"], "--model-repository")
    assert str(options.kits) == option(export_["command"], "--artefacts")
    in_image(script, "triton")


@every_variant
def test_triton_gets_whole_cores_and_a_gpu_where_it_is_meant_to(variant: str) -> None:
    resources = pod(render(variant), "triton").main["resources"]
    # Equal, or the kubelet gives a pod no cores of its own.
    assert resources["requests"] == resources["limits"]
    assert resources["limits"]["cpu"].isdecimal()
    assert resources["limits"].get("nvidia.com/gpu") == ("1" if "gpu" in variant else None)


def test_the_checkpoint_gets_into_its_image() -> None:
    (copied,) = re.findall(r"^COPY (\S+) ", CHECKPOINT_IMAGE.read_text(), re.MULTILINE)
    assert (ROOT / copied / "config.json").is_file()
    kept = CHECKPOINT_IMAGE.with_name("checkpoint.Dockerfile.dockerignore").read_text().splitlines()
    assert f"!{copied}/" in kept


def test_every_file_of_the_folder_is_looked_at() -> None:
    read_by_us = {"prometheus/adapter.yaml", "checkpoint.Dockerfile"}
    read_by_us |= {
        "checkpoint.Dockerfile.dockerignore",
        "examples/ingress.yaml",
        "examples/ingress-grpc.yaml",
    }
    rendered = {"base", "components", "overlays"}
    read_by_us |= {f"examples/without-grpc/{name}.yaml" for name in ("kustomization", "startup-probe")}
    for file in KUBERNETES.rglob("*"):
        if file.is_file():
            path = file.relative_to(KUBERNETES)
            assert str(path) in read_by_us or path.parts[0] in rendered, path
