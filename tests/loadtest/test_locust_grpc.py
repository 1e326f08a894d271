"""Real runs of locust over gRPC: on a stand-in that lies, stalls or refuses, and on the gateway."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme

from tests.support.bundled import bundled_repository
from tests.support.inference_stand_in import GrpcStandIn, grpc_stand_in
from tests.support.locust_run import TOKEN, Finished, load, require_locust, start_locust
from tests.support.servers import Program, running, wait_until

TEXTS = 32
_SERVING = re.compile(r"serving gRPC on (\S+)")
QUICK = ("--texts", str(TEXTS), "--rate", "50", "--arrivals", "even")
# One that works for nobody: what is sent to this machine must not go there.
PROXIES = dict.fromkeys(("http_proxy", "HTTP_PROXY", "ALL_PROXY", "grpc_proxy"), "http://127.0.0.1:1")
NOBODY = "http://127.0.0.1:9"


@pytest.fixture(scope="module", autouse=True)
def _locust() -> None:
    require_locust()


@pytest.fixture
def server() -> Iterator[GrpcStandIn]:
    with grpc_stand_in() as server:
        yield server


def _load(server: GrpcStandIn, folder: Path, *options: str, **environment: str) -> Finished:
    over_grpc = ("--protocol", "grpc", "--grpc-host", server.address)
    return load(NOBODY, folder, *over_grpc, *options, timeout=60, **environment)


@pytest.fixture(scope="module")
def gateway() -> Iterator[Program]:
    settings = {
        "GATEWAY_API_TOKENS": f"*:{TOKEN}",
        "GATEWAY_GRPC_PORT": "0",
        "GATEWAY_MAX_REQUESTS_IN_FLIGHT": "32",
        "GATEWAY_MAX_BATCH_TEXTS": "32",
    }
    with running("serve", "--port", "0", "--repository", str(bundled_repository()), **settings) as program:
        assert wait_until(lambda: bool(_SERVING.search(program.output)), 10), program.output
        yield program


def _load_gateway(gateway: Program, folder: Path, *options: str, **environment: str) -> Finished:
    found = _SERVING.search(gateway.output)
    assert found is not None
    over_grpc = ("--protocol", "grpc", "--grpc-host", found[1])
    return load(gateway.url, folder, *over_grpc, *options, timeout=60, **environment)


def test_a_good_run_on_the_real_gateway_answers_every_kind(gateway: Program, tmp_path: Path) -> None:
    run = _load_gateway(gateway, tmp_path, "--rate", "40", "--duration", "4s", "--traffic", "mixed")
    assert run.status == 0, run.output
    summary = run.summary
    assert "labels as FP32 PyTorch" in summary["references"]
    assert summary["requests"]["due"] == summary["requests"]["good"] > 100
    assert {"single", "several", "invalid"} <= set(summary["kinds"])


def test_the_gateway_answers_over_grpc_as_over_http(gateway: Program, tmp_path: Path) -> None:
    quick = ("--texts", "32", "--rate", "40", "--duration", "2")
    assert load(gateway.url, tmp_path, *quick).status == 0
    # Asked one at a time, both are the same computation.
    alone = (*quick, "--loop", "closed", "--users", "1", "--tolerance", "1e-12")
    run = _load_gateway(gateway, tmp_path, *alone, "--reference", str(tmp_path / "references.json"))
    assert run.status == 0, run.output


def test_too_much_for_the_real_gateway_fails_with_the_status(gateway: Program, tmp_path: Path) -> None:
    load_options = ("--load", "3", "--calibration", "2", "--calibration-users", "16", "--duration", "3")
    run = _load_gateway(gateway, tmp_path, *load_options)
    assert run.status == 1, run.output
    assert re.search(r"failed: errors: \d+\.\d+% of \d+ requests, .* × RESOURCE_EXHAUSTED", run.output)
    assert set(run.summary["errors"]) == {"RESOURCE_EXHAUSTED"}


def test_a_refused_token_is_a_clear_error(gateway: Program, tmp_path: Path) -> None:
    run = _load_gateway(gateway, tmp_path, TOKEN="unknown-token")
    assert (run.status, "Traceback" in run.output) == (1, False), run.output
    assert "No load: asked for its labels, the server answered UNAUTHENTICATED" in run.output


def test_every_call_carries_token_account_and_texts(server: GrpcStandIn, tmp_path: Path) -> None:
    traffic = ("--traffic", "single,several,long")
    run = _load(server, tmp_path, *QUICK, *traffic, "--duration", "2", "--account", "me", **PROXIES)
    assert run.status == 0, run.output
    for metadata in server.metadata:
        assert metadata["authorization"] == f"Bearer {TOKEN}"
        assert metadata["cf-account-id"] == "me"
    summary = run.summary
    assert set(summary["kinds"]) == {"single", "several", "long"}
    assert summary["requests"] == {"due": 100, "good": 100, "errors": 0}
    assert summary["protocol"] == f"gRPC, {server.address}"
    assert f"| protocol | gRPC, {server.address} |" in (tmp_path / "summary.md").read_text(encoding="utf-8")
    assert summary["texts_per_s"] > summary["good_per_s"]


def test_variables_choose_the_protocol_as_well(server: GrpcStandIn, tmp_path: Path) -> None:
    variables = {"LOADTEST_PROTOCOL": "grpc", "LOADTEST_GRPC_HOST": server.address}
    run = load(NOBODY, tmp_path, *QUICK, "--duration", "1", timeout=60, **variables)
    assert run.status == 0, run.output
    assert server.answers == TEXTS + 50


def test_tls_verifies_the_certificate(tmp_path: Path) -> None:
    authority = trustme.CA()
    pair = authority.issue_cert("127.0.0.1")
    roots = tmp_path / "roots.pem"
    roots.write_bytes(authority.cert_pem.bytes())
    chain = b"".join(part.bytes() for part in pair.cert_chain_pems)
    credentials = grpc.ssl_server_credentials([(pair.private_key_pem.bytes(), chain)])
    with grpc_stand_in(credentials) as server:
        options = (
            "--protocol",
            "grpc",
            "--grpc-host",
            f"https://{server.address}",
            *QUICK,
            "--duration",
            "1",
        )
        trusting = {"GRPC_DEFAULT_SSL_ROOTS_FILE_PATH": str(roots)}
        run = load(NOBODY, tmp_path, *options, timeout=60, **trusting)
        assert run.status == 0, run.output
        run = load(NOBODY, tmp_path, *options)
        assert (run.status, f"No load: no answer from {server.address}" in run.output) == (1, True)


def test_an_answer_that_moves_under_load_is_found(server: GrpcStandIn, tmp_path: Path) -> None:
    server.lie_after = TEXTS + 50
    run = _load(server, tmp_path, *QUICK, "--duration", "2", "--max-error-share", "1")
    assert run.status == 1, run.output
    assert "failed: wrong answers: 50 × wrong score" in run.output
    assert run.summary["requests"] == {"due": 100, "good": 50, "errors": 50}


def test_references_of_an_http_run_hold_grpc_answers_to_the_bit(server: GrpcStandIn, tmp_path: Path) -> None:
    assert _load(server, tmp_path, *QUICK, "--duration", "1").status == 0
    file = tmp_path / "references.json"
    document = json.loads(file.read_text(encoding="utf-8"))
    for answer in document["answers"]:
        answer["scores"] = {"NEGATIVE": 0.25 + 1e-9, "POSITIVE": 0.75 - 1e-9}  # doubles, as HTTP has them
    file.write_text(json.dumps(document), encoding="utf-8")
    exact = ("--reference", str(file), "--tolerance", "1e-15")
    assert _load(server, tmp_path, *QUICK, "--duration", "1", *exact).status == 0
    server.lie_after = 0
    run = _load(server, tmp_path, *QUICK, "--duration", "1", *exact)
    assert (run.status, run.summary["errors"]) == (1, {"wrong score": 50})


def test_statuses_are_counted_by_their_names(server: GrpcStandIn, tmp_path: Path) -> None:
    server.refuse_after = TEXTS + 25
    run = _load(server, tmp_path, *QUICK, "--duration", "1")
    assert run.status == 1, run.output
    assert run.summary["errors"] == {"RESOURCE_EXHAUSTED": 25}
    assert "failed: errors: 50.00% of 50 requests, allowed are 0.00%: 25 × RESOURCE_EXHAUSTED" in run.output


def test_a_stall_shows_in_everything_that_was_due_in_it(server: GrpcStandIn, tmp_path: Path) -> None:
    server.stall_after = TEXTS + 50
    run = _load(server, tmp_path, *QUICK, "--duration", "4")
    assert run.summary["requests"]["due"] == 200
    assert run.summary["latency_ms"]["p90"] > 450
    assert run.summary["latency_ms"]["p50"] < 100
    assert 900 < run.summary["latency_ms"]["max"] < 1300


def test_an_answer_that_takes_too_long_is_a_status_as_well(server: GrpcStandIn, tmp_path: Path) -> None:
    server.stall_after, server.stall_s = TEXTS + 25, 30
    run = _load(server, tmp_path, *QUICK, "--duration", "1", "--timeout", "1")
    assert run.summary["errors"] == {"DEADLINE_EXCEEDED": 26}


def test_a_closed_loop_asks_again_when_answered(server: GrpcStandIn, tmp_path: Path) -> None:
    closed = ("--loop", "closed", "--users", "4", "--duration", "2", "--texts", "32")
    run = _load(server, tmp_path, *closed)
    assert run.status == 0, run.output
    assert run.summary["requests"]["good"] > 50


def test_workers_share_the_rate_and_learn_the_labels_from_the_master(
    server: GrpcStandIn, tmp_path: Path
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    worker = ("-f", "loadtest/locustfile.py", "--worker", "--master-port", port)
    master = ("--master", "--master-bind-host", "127.0.0.1", "--master-bind-port", port)
    workers = [start_locust(*worker) for _ in range(2)]
    try:
        run = _load(server, tmp_path, *master, "--expect-workers", "2", *QUICK, "--duration", "3")
        outputs = [process.communicate(timeout=30)[0] for process in workers]
    finally:
        for process in workers:
            if process.poll() is None:
                process.kill()
                process.communicate()
    assert run.status == 0, (run.output, outputs)
    assert [process.returncode for process in workers] == [0, 0], outputs
    assert run.summary["requests"] == {"due": 150, "good": 150, "errors": 0}
    assert len(server.metadata) - len(server.requests) == 1, "each worker asked for the labels"


@pytest.mark.parametrize(("signals", "errors"), [(1, 0), (2, 10)])
def test_a_signal_waits_for_what_is_under_way_and_a_second_gives_it_up(
    server: GrpcStandIn, tmp_path: Path, signals: int, errors: int
) -> None:
    server.stall_after, server.stall_s = TEXTS + 40, 1.5 if signals == 1 else 30
    over_grpc = ("--protocol", "grpc", "--grpc-host", server.address, "--output", str(tmp_path))
    options = ("--config", "loadtest/locust.conf", "--host", NOBODY, *over_grpc, *QUICK, "--timeout", "14")
    with start_locust(*options, "--duration", "60s") as process:
        try:
            assert wait_until(lambda: process.poll() is not None or server.answers >= TEXTS + 52, 60)
            began = time.monotonic()
            for _ in range(signals):
                process.send_signal(signal.SIGINT)
                time.sleep(0.2)  # two of a kind at once are one signal
            output = process.communicate(timeout=40)[0]
        finally:
            process.kill()
    assert process.returncode == 1, output
    assert time.monotonic() - began < 10
    summary: dict[str, Any] = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))
    assert summary["complaints"][0].startswith("stopped by a signal after ")
    assert summary["requests"]["errors"] >= errors
    assert errors or not summary["requests"]["errors"]


def test_what_cannot_be_asked_is_a_clear_error(server: GrpcStandIn, tmp_path: Path) -> None:
    server.labels = "none"
    run = _load(server, tmp_path, *QUICK)
    assert (run.status, "No load: asked for its labels" in run.output) == (1, True), run.output
    run = load(NOBODY, tmp_path, "--protocol", "grpc", "--grpc-host", "127.0.0.1:9")
    assert (run.status, "No load: no answer from 127.0.0.1:9: UNAVAILABLE" in run.output) == (1, True)
    assert "set GRPC_HOST (--grpc-host) to its address" in run.output
    run = load(NOBODY, tmp_path, "--protocol", "grpc", "--grpc-host", "ftp://h")
    assert (run.status, "No load: ftp://h is not a valid address" in run.output) == (1, True)
    insecure = ("--protocol", "grpc", "--insecure", "--grpc-host", "https://127.0.0.1:9")
    run = load(NOBODY, tmp_path, *insecure)
    assert (run.status, "No load: --insecure is for HTTP only" in run.output) == (1, True)
    run = load(NOBODY, tmp_path, "--protocol", "soap")
    assert (run.status, "Traceback" in run.output) == (2, False)


@pytest.mark.parametrize(
    ("variables", "options"),
    [
        ({"PROTOCOL": "grpc"}, "--protocol grpc "),
        ({"PROTOCOL": "grpc", "GRPC_HOST": "10.0.0.7:1"}, "--protocol grpc --grpc-host 10.0.0.7:1 "),
        ({"GATEWAY_GRPC_PORT": "9001"}, "--grpc-host 127.0.0.1:9001 "),
        ({"GATEWAY_GRPC_PORT": "9001", "GATEWAY_HOST": "::1"}, "--grpc-host [::1]:9001 "),
    ],
)
def test_make_asks_the_port_that_the_settings_of_the_gateway_name(
    variables: dict[str, str], options: str
) -> None:
    command = ["make", "--dry-run", "loadtest", *(f"{name}={value}" for name, value in variables.items())]
    told = subprocess.run(
        [*command, "RATE=7"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert f"{options}--rate 7" in " ".join(told.split())
    assert ("--grpc-host" in told) == ("--grpc-host" in options)
