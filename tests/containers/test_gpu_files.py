"""The files for a GPU on a host without one: all but devices, on a stand-in for NVIDIA's serving image."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.containers.deployment import IMAGE_PREFIX, MODEL, Deployment, new_deployment
from tests.support.containers.engine import Engine

pytestmark = pytest.mark.long

STANDIN = "tritonflare-test/tritonserver:wheel"
# NVIDIA's image is root's, and leaves the choice of the program to its caller too.
_DOCKERFILE = f"FROM {IMAGE_PREFIX}tritonflare:0.1.0\nUSER 0:0\n"


@pytest.fixture(scope="module")
def gpu_deployment(
    deployment: Deployment, engine: Engine, base_image: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployment]:
    """The files for a GPU, with the exporter's target for a CPU; the other deployment has built its base."""
    folder = tmp_path_factory.mktemp("gpu")
    found = new_deployment(engine, folder, f"tritonflare-test-gpu-{os.getpid()}", base_image, gpu=True)
    found.configure(TRITON_IMAGE=STANDIN, EXPORT_TARGET="cpu")
    try:
        deployment.compose("stop")
        engine.docker("build", f"--tag={STANDIN}", "-", input=_DOCKERFILE)
        print(f"first up: {found.up():.0f} s")
        yield found
    finally:
        found.compose("down", "--volumes", "--timeout=5")
        deployment.up()


def test_plans_are_left_out_and_a_text_is_answered(gpu_deployment: Deployment) -> None:
    (plans,) = gpu_deployment.containers("plans")
    assert gpu_deployment.inspect(plans)["State"]["ExitCode"] == 0
    assert "No TensorRT plan is built" in gpu_deployment.compose("logs", "plans")
    url = f"{gpu_deployment.gateway_url()}/client/v4/accounts/me/ai/run/{MODEL}"
    command = ["curl", "--silent", url, "-H", f"Authorization: Bearer {gpu_deployment.token}"]
    done = subprocess.run([*command, "-d", '{"text":"What a lovely day"}'], capture_output=True, check=True)
    positive = json.loads(done.stdout)["result"][1]
    assert positive["label"] == "POSITIVE"
    assert positive["score"] > 0.9


def test_an_engine_without_a_gpu_refuses_the_devices_in_words(
    gpu_deployment: Deployment, tmp_path: Path
) -> None:
    if "nvidia" in gpu_deployment.engine.docker("info", "--format={{json .Runtimes}}"):
        pytest.skip("this engine has NVIDIA's runtime")
    with_devices = gpu_deployment.engine.run(
        "compose",
        f"--project-name={gpu_deployment.name}",
        "--file=docker-compose.yml",
        "up",
        "--no-build",
        "plans",
        cwd=gpu_deployment.folder,
    )
    assert with_devices.returncode != 0
    assert "could not select device driver" in with_devices.stderr
