"""The profiles of docker-compose.yml: a load test with its report, and Prometheus with an alert.

Grafana's image cannot be made from Debian's packages, so it is not started.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.containers import hardening
from tests.support.containers.deployment import Deployment
from tests.support.containers.images import prometheus_image
from tests.support.servers import wait_until

# The speed of a shared machine is not what is tested.
LIMITS = """\
services:
  loadtest: {environment: {LOADTEST_MAX_P95_MS: "20000", LOADTEST_MAX_P99_MS: "20000"}}
"""
REPORTS = ["report.html", "locust_stats.csv", "locust_stats_history.csv", "summary.json", "summary.md"]


@pytest.mark.long
def test_the_load_test_passes_and_leaves_its_report_in_the_volume(deployment: Deployment) -> None:
    (deployment.folder / "limits.yml").write_text(LIMITS, encoding="utf-8")
    files = re.findall(r"^COMPOSE_FILE=(.*)$", (deployment.folder / ".env").read_text(), re.MULTILINE)[-1]
    variables = {"LOADTEST_DURATION": "4s", "LOADTEST_LOAD": "0.2", "COMPOSE_FILE": f"{files}:limits.yml"}
    up = ["compose", f"--project-name={deployment.name}", "--profile=loadtest", "up"]
    up += ["--exit-code-from=loadtest", "loadtest", "loadtest-worker"]
    began = time.monotonic()
    done = deployment.engine.run(*up, env=variables, cwd=deployment.folder, timeout=600)
    print(f"load test: {time.monotonic() - began:.0f} s")
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]
    names = [*deployment.containers("loadtest"), *deployment.containers("loadtest-worker")]
    assert [deployment.inspect(name)["State"]["ExitCode"] for name in names] == [0, 0, 0]
    # A worker that ends makes Compose stop the master, which is writing its report.
    log = deployment.engine.run("logs", names[0])
    assert (log.stdout + log.stderr).count("report in /reports") == 1
    assert [hardening.written_files(deployment.engine, name) for name in names] == [[], [], []]

    # As documented.
    deployment.compose("--profile=loadtest", "cp", "loadtest:/reports", "reports")
    folder = deployment.folder / "reports"
    assert [name for name in REPORTS if not (folder / name).stat().st_size] == []
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["passed"] is True


@pytest.fixture(scope="module")
def prometheus(deployment: Deployment, base_image: str) -> Iterator[str]:
    """The container, which looks every second and waits a second where the rules wait a minute."""
    began = time.monotonic()
    folder = deployment.folder / "docker/monitoring/prometheus"
    for name in ("prometheus.yml", "rules.yml"):
        text = (folder / name).read_text()
        (folder / name).write_text(re.sub(r"(interval|for): (15s|1m)\b", r"\1: 1s", text))
    with prometheus_image(deployment.engine, base_image):
        print(f"image of Prometheus: {time.monotonic() - began:.0f} s")
        deployment.compose("--profile=monitoring", "up", "--detach", "--no-deps", "prometheus")
        (name,) = deployment.containers("prometheus")
        assert wait_until(lambda: deployment.health(name) == "healthy", 60)
        print(f"Prometheus healthy: {time.monotonic() - began:.0f} s")
        yield name
        deployment.compose("--profile=monitoring", "rm", "--stop", "--force", "prometheus")


def api(deployment: Deployment, prometheus: str, path: str) -> Any:
    url = f"http://127.0.0.1:9090/api/v1/{path}"
    return json.loads(deployment.engine.docker("exec", prometheus, "wget", "-Y", "off", "-qO-", url))["data"]


def test_prometheus_reads_all_gateways_and_tritons(deployment: Deployment, prometheus: str) -> None:
    expected = {job: len(deployment.containers(job)) for job in ("gateway", "triton")}

    def up() -> dict[str, int]:
        targets = api(deployment, prometheus, "targets?state=active")["activeTargets"]
        jobs = [target["labels"]["job"] for target in targets if target["health"] == "up"]
        return {job: jobs.count(job) for job in expected}

    assert wait_until(lambda: up() == expected, 30)
    rules = [rule for group in api(deployment, prometheus, "rules")["groups"] for rule in group["rules"]]
    assert wait_until(
        lambda: bool(api(deployment, prometheus, "query?query=tritonflare_ready==1")["result"]), 30
    )
    assert {rule["type"] for rule in rules} == {"alerting", "recording"}
    assert [rule["name"] for rule in rules if rule["health"] == "err"] == []


def test_prometheus_runs_without_rights(deployment: Deployment, prometheus: str) -> None:
    status = hardening.process_status(deployment.engine, prometheus)
    assert (status["Uid"].split()[0], int(status["CapEff"], 16), status["NoNewPrivs"]) == ("65534", 0, "1")
    assert hardening.written_files(deployment.engine, prometheus) == []


def test_alerts_fire_while_triton_is_stopped(deployment: Deployment, prometheus: str) -> None:
    def firing() -> set[str]:
        alerts = api(deployment, prometheus, "alerts")["alerts"]
        return {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}

    expected = {"TritonflareTritonDown", "TritonflareNotReady"}
    assert not firing() & expected
    tritons = deployment.containers("triton")
    deployment.engine.docker("stop", *tritons)
    try:
        began = time.monotonic()
        assert wait_until(lambda: firing() >= expected, 60)
        print(f"alerts after {time.monotonic() - began:.0f} s")
    finally:
        deployment.engine.docker("start", *tritons)
    assert wait_until(lambda: not firing() & expected, 120)
    assert wait_until(lambda: {deployment.health(name) for name in tritons} == {"healthy"}, 60)
