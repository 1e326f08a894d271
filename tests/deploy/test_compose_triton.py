"""What the compose files start, started here: Triton and gateway with their health checks, export, plans."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from health import Unhealthy, check

from embedded import wheel
from tests.support.deploy.compose import BASE, CPU, ROOT, SECRET, interpolated, raw, triton_command
from tests.support.deploy.compose_triton import ServingImage, free_port
from tests.support.servers import TOKEN, finished, listens, running, wait_until
from tests.support.texts import CHECKPOINT

pytestmark = pytest.mark.needs_triton

END_AFTER = 3
MODEL = "@cf/huggingface/distilbert-sst-2-int8"


@pytest.fixture(scope="module")
def triton() -> Iterator[ServingImage]:
    with ServingImage() as serving:
        yield serving


def service(name: str, file: Path = BASE) -> dict[str, Any]:
    found: dict[str, Any] = raw(file)["services"][name]
    return found


def test_triton_2_51_knows_every_flag() -> None:
    program = wheel.folder() / "bin" / "tritonserver"
    found = subprocess.run(
        [program, "--help"], env=wheel.environment(), capture_output=True, text=True, check=False
    )
    known = set(re.findall(r"--[a-z0-9-]+", found.stdout + found.stderr))
    assert {flag.partition("=")[0] for flag in triton_command()[1:]} <= known


def look(triton: ServingImage, state: Path, *more: str) -> tuple[int, str]:
    """Run the compose file's health check once with another port and another file to remember in."""
    program, script, *options = interpolated(
        service("triton")["healthcheck"]["test"][1:], {"TRITON_END_AFTER": str(END_AFTER)}
    )
    assert (program, Path(script).parent) == ("python3", Path("/opt/tritonflare"))
    command = [sys.executable, "-I", str(ROOT / "docker/triton" / Path(script).name), *options]
    here = [f"--url=http://127.0.0.1:{triton.http}", f"--state={state}", *more]
    found = subprocess.run([*command, *here], capture_output=True, text=True, check=False)
    assert found.stderr == ""
    return found.returncode, found.stdout


def test_the_health_check_of_triton_classifies_and_leaves_it_alone(
    triton: ServingImage, tmp_path: Path
) -> None:
    for _ in range(2 * END_AFTER):
        assert look(triton, tmp_path / "state") == (0, "healthy: 1 ensembles answered\n")


@pytest.mark.parametrize("fault", [signal.SIGKILL, signal.SIGSTOP], ids=["dead", "stuck"])
def test_the_health_check_ends_a_triton_whose_model_is_dead_or_stuck(
    tmp_path: Path, fault: signal.Signals
) -> None:
    state = tmp_path / "state"
    with ServingImage() as serving:
        assert wait_until(lambda: look(serving, state)[0] == 0, 10)
        stubs = psutil.Process(serving.pid).children()
        next(stub for stub in stubs if "encoder" in stub.cmdline()[1]).send_signal(fault)
        for number in range(1, END_AFTER):
            status, said = look(serving, state)
            assert status == 1
            assert "end" not in said
            assert json.loads(state.read_text())["failures"] == number
        assert "told to end after 3 failed looks" in look(serving, state)[1]
        # In order it would take until Triton's exit timeout: a dead model is waited for.
        assert wait_until(lambda: "killed" in look(serving, state, "--kill-after=1")[1], 10)
        assert serving.ended(5) == -signal.SIGKILL
        assert "told to end after 3 failed looks" in serving.log()
        serving.kill()
        # What comes back is another process: nothing of the old one counts.
        serving.start()
        assert wait_until(lambda: look(serving, state)[0] == 0, 10)
        assert json.loads(state.read_text())["failures"] == 0


def test_the_health_check_fails_without_a_listener() -> None:
    command = [sys.executable, str(ROOT / "docker/triton/health.py"), f"--url=http://127.0.0.1:{free_port()}"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 1
    assert found.stdout.startswith("unhealthy: ")
    assert "Traceback" not in found.stderr


def test_a_server_without_models_is_not_healthy(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    with ServingImage(repository=tmp_path / "models") as empty, pytest.raises(Unhealthy, match="no ensemble"):
        _until_http(empty)


def _until_http(serving: ServingImage) -> None:
    """Check until there is an answer: HTTP listens a little after gRPC."""
    assert wait_until(lambda: listens(serving.http), 10)
    check(f"http://127.0.0.1:{serving.http}", 3)


def test_metrics_are_where_prometheus_looks(triton: ServingImage) -> None:
    assert "--metrics-port=8002" in triton_command()
    with urllib.request.urlopen(f"http://127.0.0.1:{triton.metrics}/metrics", timeout=5) as metrics:
        assert b"nv_inference_request_success" in metrics.read()


def test_the_gateway_of_the_compose_file_serves_before_this_triton(triton: ServingImage) -> None:
    described = service("gateway")
    settings = described["environment"]
    assert settings["GATEWAY_TRITON_URL"] == "dns:///triton:8001"
    settings |= {
        "GATEWAY_HOST": "127.0.0.1",
        "GATEWAY_PORT": "0",
        # The same resolver and balancer; the name is one that every host has.
        "GATEWAY_TRITON_URL": f"dns:///localhost:{triton.grpc}",
        "GATEWAY_API_TOKENS": f"*:{TOKEN}",
    }
    values = interpolated(list(settings.values()), {"TRITON_SECRET": SECRET})
    with running(*described["command"], **dict(zip(settings, values, strict=True))) as gateway:
        program, *arguments = described["healthcheck"]["test"][1:]
        *options, script = arguments
        probe = [sys.executable, *options, str(ROOT / "docker" / Path(script).name)]
        port = {"GATEWAY_PORT": gateway.url.rpartition(":")[2]}
        assert program == "python"
        assert subprocess.run(probe, env=port, check=False).returncode == 0
        url = f"{gateway.url}/client/v4/accounts/me/ai/run/{MODEL}"
        request = urllib.request.Request(url, b'{"text":"good"}', {"Authorization": f"Bearer {TOKEN}"})
        with urllib.request.urlopen(request, timeout=10) as answer:
            assert answer.status == 200
    failed = subprocess.run(probe, env=port, capture_output=True, check=False)
    assert failed.returncode == 1


@pytest.mark.parametrize("file", [BASE, CPU], ids=["gpu", "cpu"])
def test_export_and_plans_leave_a_repository_that_triton_can_read(tmp_path: Path, file: Path) -> None:
    models, plans = tmp_path / "models", tmp_path / "plans"
    models.mkdir()
    plans.mkdir()
    export = command_of_export(file, models, with_few_examples(tmp_path / "checkpoint"))
    status, output = finished(*export, cwd=ROOT, timeout=300)
    assert status == 0, output
    program, script, *options = service("plans")["command"]
    assert (program, Path(script).name) == ("python3", "build_plans.py")
    options = [text.replace("/models", str(models)).replace("/plans", str(plans)) for text in options]
    command = [sys.executable, str(ROOT / "docker/triton" / Path(script).name), *options]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr
    assert "No TensorRT plan is built" in found.stdout
    assert (plans / "summary.json").is_file()
    backends = {config.read_text().rpartition('backend: "')[2][:6] for config in models.rglob("config.pbtxt")}
    assert ("onnxru" in backends) == (file == BASE)
    # The same again is skipped, as `docker compose up` does it each time.
    before = sorted(path.relative_to(models) for path in (models / "repository").rglob("*"))
    status, output = finished(*export, cwd=ROOT, timeout=300)
    assert status == 0
    assert output.startswith("unchanged: ")
    if file == BASE:
        return
    # Done again, it changes nothing either.
    export.remove("--if-changed")
    assert finished(*export, cwd=ROOT, timeout=300)[0] == 0
    assert sorted(path.relative_to(models) for path in (models / "repository").rglob("*")) == before


def with_few_examples(folder: Path) -> Path:
    """The bundled checkpoint with some of its examples: the gate, tested elsewhere, need not ask all."""
    shutil.copytree(CHECKPOINT, folder)
    examples = folder / "heldout.tsv"
    lines = examples.read_text(encoding="utf-8").splitlines(keepends=True)
    examples.write_text("".join(lines[:301]), encoding="utf-8")
    return folder


def command_of_export(file: Path, models: Path, checkpoint: Path) -> list[str]:
    """The export's command line with ``models`` as its volume."""
    variables = {
        "EXPORT_SOURCE": str(checkpoint),
        "EXPORT_NAME": "",
        "EXPORT_TARGET": "tensorrt",
        "EXPORT_OPTIONS": "",
    }
    command = interpolated(service("export", file)["command"], variables)
    return [argument.replace("/models", str(models)) for argument in command]
