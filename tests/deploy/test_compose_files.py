"""The compose files: the specification's schema, what an engine makes of them, how they are hardened."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.resources import files
from pathlib import Path
from typing import Any

import check_jsonschema
import click
import jsonschema_rs
import pytest

from export.repository.versions import KEEP
from gateway.domain.coalescing.coalescer import OVERDUE_TIMEOUT_S
from gateway.settings import Settings
from tests.support.deploy.compose import BASE, CPU, GRPC, ROOT, SECRET, merged, raw
from tools.settings_doc import COMPOSE, env_example
from tritonflare.export import export

ONE_SHOT = ("export", "plans", "loadtest", "loadtest-worker")
LOOPBACK = "127.0.0.1:"


@pytest.fixture(scope="module", params=["gpu", "cpu"])
def configuration(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Both ways to deploy, merged."""
    overrides = [CPU] if request.param == "cpu" else []
    return merged(tmp_path_factory.mktemp("compose"), BASE, *overrides, TRITON_SECRET=SECRET)


def schema() -> Any:
    """The compose specification's schema, as check-jsonschema carries it."""
    path = files(check_jsonschema).joinpath("builtin_schemas/vendor/compose-spec.json")
    return json.loads(path.read_text(encoding="utf-8"))


def problems(document: Any) -> list[str]:
    return [
        f"{error.instance_path}: {error.message}"
        for error in jsonschema_rs.validator_for(schema()).iter_errors(document)
    ]


def _ours(service: dict[str, Any]) -> bool:
    return str(service["image"]).startswith("tritonflare")


def services(configuration: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    yield from configuration["services"].items()


@pytest.mark.parametrize("file", [BASE, CPU, GRPC], ids=lambda file: file.name)
def test_a_compose_file_is_valid(file: Path) -> None:
    assert problems(raw(file)) == []


def test_the_merged_files_are_valid(configuration: dict[str, Any]) -> None:
    assert problems(configuration) == []


def test_the_schema_refuses_what_is_none() -> None:
    assert problems({"services": {"triton": {"imagine": "x"}}})


def test_without_a_secret_nothing_starts(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=re.escape("docs/docker.md")):
        merged(tmp_path, BASE)


def test_no_service_can_do_more_than_it_must(configuration: dict[str, Any]) -> None:
    for name, service in services(configuration):
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert "cap_add" not in service, name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert re.fullmatch(r"[1-9]\d*:\d+", service["user"]), name
        assert not service.get("privileged"), name


def test_images_are_pinned_and_no_foreign_one_of_our_name_is_pulled(configuration: dict[str, Any]) -> None:
    for name, service in services(configuration):
        tag = service["image"].rpartition(":")[2]
        assert re.fullmatch(r"v?\d+\.\d+\.\d+", tag), name
        if "build" in service:
            assert service["pull_policy"] == "build", name
            assert (ROOT / service["build"]["dockerfile"]).is_file(), name
        elif _ours(service):
            assert service["pull_policy"] == "never", name


def test_every_image_of_ours_is_built_by_one_service_that_starts_with_those_that_share_it(
    configuration: dict[str, Any],
) -> None:
    named = configuration["services"]
    builders = {service["image"]: name for name, service in services(configuration) if "build" in service}
    assert len(builders) == sum("build" in service for service in named.values())
    for name, service in services(configuration):
        if _ours(service) and "build" not in service:
            # What depends on the builder cannot be started without it, so the image is there.
            assert builders[service["image"]] in service["depends_on"], name


def test_secrets_of_other_services_do_not_reach_the_gateway(configuration: dict[str, Any]) -> None:
    environment = configuration["services"]["gateway"]["environment"]
    secrets = {name for name in COMPOSE if name.endswith(("_TOKEN", "_SECRET"))}
    assert len(secrets) == 3
    assert {name: environment[name] for name in secrets} == dict.fromkeys(secrets, "")


def test_a_load_test_does_not_wait_for_its_workers_for_ever(configuration: dict[str, Any]) -> None:
    command = configuration["services"]["loadtest"]["command"]
    assert "--expect-workers=2" in command
    assert "--expect-workers-max-wait=120" in command


def test_only_the_gateway_is_published_and_by_default_on_loopback(configuration: dict[str, Any]) -> None:
    published = {name: service["ports"] for name, service in services(configuration) if "ports" in service}
    assert set(published) == {"gateway", "grafana"}
    assert configuration["services"]["grafana"]["profiles"] == ["monitoring"]
    assert all(port.startswith(LOOPBACK) for ports in published.values() for port in ports)


def test_grpc_is_off_and_not_published_unless_its_file_is_named(configuration: dict[str, Any]) -> None:
    gateway = configuration["services"]["gateway"]
    assert "GATEWAY_GRPC_PORT" not in gateway["environment"]
    assert len(gateway["ports"]) == 1


@pytest.mark.parametrize("files", [[BASE], [BASE, CPU]], ids=["gpu", "cpu"])
@pytest.mark.parametrize("variables", [{}, {"PUBLISH_GRPC": "10.0.0.7:9001-9002"}], ids=["default", "chosen"])
def test_the_file_for_grpc_adds_its_port_and_nothing_else(
    tmp_path: Path, files: list[Path], variables: dict[str, str]
) -> None:
    without = merged(tmp_path, *files, TRITON_SECRET=SECRET, **variables)
    added = merged(tmp_path, *files, GRPC, TRITON_SECRET=SECRET, **variables)
    assert problems(added) == []
    gateway = added["services"]["gateway"]
    assert gateway["environment"].pop("GATEWAY_GRPC_PORT") == "8001"
    assert gateway["ports"].pop() == f"{variables.get('PUBLISH_GRPC', '127.0.0.1:8001')}:8001"
    assert added == without


def test_triton_is_reached_by_gateway_and_prometheus_alone(configuration: dict[str, Any]) -> None:
    assert configuration["services"]["triton"]["networks"] == ["inference"]
    # No option beside: see the decision record on containers.
    assert configuration["networks"]["inference"] == {"internal": True}
    on_it = {name for name, service in services(configuration) if "inference" in service.get("networks", [])}
    assert on_it == {"triton", "gateway", "prometheus"}


def test_a_name_leads_to_each_container_by_one_network_only(configuration: dict[str, Any]) -> None:
    # The engine's DNS would otherwise give two addresses of each Triton, and balance between the same two.
    shared = {"gateway": "triton", "prometheus": "triton", "grafana": "prometheus", "loadtest": "gateway"}
    for one, other in shared.items():
        both = set(configuration["services"][one]["networks"]) & set(
            configuration["services"][other]["networks"]
        )
        assert len(both) == 1, (one, other)


def test_only_what_computes_on_a_gpu_asks_for_one_and_nothing_does_on_a_cpu_host(
    configuration: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    asking = {
        name for name, service in services(configuration) if (service.get("deploy") or {}).get("resources")
    }
    on_gpu = "gpu" in request.node.callspec.id
    assert asking == ({"plans", "triton"} if on_gpu else set())
    target = "tensorrt" if on_gpu else "cpu"
    assert f"--target={target}" in configuration["services"]["export"]["command"]


def test_services_start_in_the_order_in_which_they_need_each_other(configuration: dict[str, Any]) -> None:
    needs = {name: dict(service.get("depends_on", {})) for name, service in services(configuration)}
    assert needs["plans"] == {"export": {"condition": "service_completed_successfully"}}
    ended_well = {"condition": "service_completed_successfully"}
    assert needs["triton"] == {"export": ended_well, "plans": ended_well}
    assert set(needs["gateway"]) == {"triton"}


def test_what_runs_for_ever_is_watched_and_started_again(configuration: dict[str, Any]) -> None:
    for name, service in services(configuration):
        if name in ONE_SHOT:
            assert service["restart"] == "no"
        else:
            assert service["restart"] == "unless-stopped"
            assert service["healthcheck"]["test"][0] == "CMD"


class _Ready(BaseHTTPRequestHandler):
    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status if self.path == "/readyz" else 404)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.mark.parametrize(("status", "healthy"), [(200, True), (503, False)])
def test_the_gateway_s_health_check_goes_past_the_proxies_of_its_container(
    configuration: dict[str, Any], status: int, healthy: bool
) -> None:
    check = configuration["services"]["gateway"]["healthcheck"]["test"]
    assert check == ["CMD", "python", "-I", "-S", "/opt/tritonflare/ready.py"]
    handler = type("Handler", (_Ready,), {"status": status})
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        server.timeout = 10  # for a check that asks somebody else
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        done = subprocess.run(
            [sys.executable, "-I", "-S", ROOT / "docker/ready.py"],
            env={
                "http_proxy": "http://127.0.0.1:1",
                "HTTP_PROXY": "http://127.0.0.1:1",
                "GATEWAY_PORT": str(server.server_port),
            },
            capture_output=True,
            check=False,
        )
        thread.join()
    assert (done.returncode == 0) == healthy, done.stderr
    for name in ("prometheus", "grafana"):
        test = configuration["services"][name]["healthcheck"]["test"]
        assert test[1:4] == ["wget", "-Y", "off"]


def test_a_load_test_that_is_stopped_has_time_for_its_report(configuration: dict[str, Any]) -> None:
    for name in ("loadtest", "loadtest-worker"):
        assert int(configuration["services"][name]["stop_grace_period"].removesuffix("s")) >= 10 + 15


def test_triton_has_longer_to_stop_than_it_takes(configuration: dict[str, Any]) -> None:
    triton = configuration["services"]["triton"]
    timeout = next(flag for flag in triton["command"] if flag.startswith("--exit-timeout-secs="))
    assert int(triton["stop_grace_period"].removesuffix("s")) >= int(timeout.partition("=")[2]) + 5


def test_what_triton_does_not_answer_in_time_ends_it_and_a_crowd_does_not(
    configuration: dict[str, Any],
) -> None:
    triton = configuration["services"]["triton"]
    check = triton["healthcheck"]
    options = dict(re.findall(r"--([\w-]+)=(\S+)", " ".join(check["test"])))
    # A call of a gateway keeps its slot no longer than that.
    held_s = Settings.model_fields["request_timeout_s"].default + OVERDUE_TIMEOUT_S
    assert float(options["timeout"]) > held_s
    assert int(check["timeout"].removesuffix("s")) >= float(options["timeout"]) + 5
    assert int(options["end-after"]) == int(COMPOSE["TRITON_END_AFTER"][0]) > check["retries"]
    # The count has to survive from one look to the next, and nothing else can be written.
    mounts = [mount.partition(":")[0] for mount in triton["tmpfs"]]
    assert str(Path(options["state"]).parent) in mounts
    # Ended, not only unhealthy: that is what makes an engine start it again.
    assert triton["restart"] == "unless-stopped"


def test_the_gateway_has_longer_to_stop_than_it_takes(configuration: dict[str, Any]) -> None:
    from gateway.settings import Settings

    fields = Settings.model_fields
    takes = fields["shutdown_delay_s"].default + fields["drain_timeout_s"].default
    assert int(configuration["services"]["gateway"]["stop_grace_period"].removesuffix("s")) >= takes + 5


def test_the_exporter_gets_the_folder_above_the_repository_and_triton_cannot_write_it(
    configuration: dict[str, Any],
) -> None:
    named = configuration["services"]
    (exported,) = (volume for volume in named["export"]["volumes"] if volume.endswith(":/models"))
    assert "--repository=/models/repository" in named["export"]["command"]
    assert "--model-repository=/models/repository" in named["triton"]["command"]
    assert named["triton"]["volumes"] == [f"{exported}:ro"]


@pytest.mark.parametrize("files", [[BASE], [BASE, CPU]], ids=["gpu", "cpu"])
@pytest.mark.parametrize(
    ("options", "meant"),
    [
        ({}, {"allow_poor": False, "labels": (), "keep": KEEP}),
        ({"EXPORT_OPTIONS": ""}, {"allow_poor": False, "labels": (), "keep": KEEP}),
        (
            {"EXPORT_OPTIONS": """--allow-poor --labels '"so, so",good' --min-accuracy=85 --keep 5"""},
            {"allow_poor": True, "labels": ("so, so", "good"), "min_accuracy": 85, "keep": 5},
        ),
    ],
    ids=["unset", "empty", "given"],
)
def test_the_exporter_gets_any_option_from_a_variable_and_none_if_it_is_empty(
    tmp_path: Path, files: list[Path], options: dict[str, str], meant: dict[str, Any]
) -> None:
    command = merged(tmp_path, *files, TRITON_SECRET=SECRET, **options)["services"]["export"]["command"]
    assert command[0] == "export"
    given = export.make_context("export", command[1:]).params
    assert {name: given[name] for name in meant} == meant
    assert (given["source"], str(given["repository"])) == ("checkpoints/minilm-sst2", "/models/repository")
    assert given["if_changed"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--options=--labels 'a"], "cannot be read"),
        (["--options", "--keep 5"], "equals sign"),
        (["--options=--kep 5"], "No such option"),
    ],
)
def test_options_that_cannot_be_read_are_refused(arguments: list[str], said: str) -> None:
    with pytest.raises(click.UsageError, match=said):
        export.make_context("export", arguments)


def test_every_variable_of_the_compose_files_is_in_the_example_and_the_other_way_round() -> None:
    text = BASE.read_text() + CPU.read_text() + GRPC.read_text()
    used = dict(re.findall(r"\$\{(\w+)(?::-([^}]*)|:\?[^}]*)?\}", text))
    passed = set(raw(BASE)["services"]["export"]["environment"])
    assert set(used) | passed | {"COMPOSE_FILE"} == set(COMPOSE)
    assert {name: default for name, default in used.items() if default} == {
        name: COMPOSE[name][0] for name in used if COMPOSE[name][0]
    }
    assert (ROOT / ".env.example").read_text() == env_example()


def test_the_example_with_everything_switched_on_is_a_valid_configuration(tmp_path: Path) -> None:
    lines = [line[1:] for line in env_example().splitlines() if re.match(r"#[A-Z_]+=.", line)]
    values = dict(line.split("=", 1) for line in lines)
    assert problems(merged(tmp_path, BASE, CPU, GRPC, **values, TRITON_SECRET=SECRET)) == []
