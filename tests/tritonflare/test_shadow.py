"""``tritonflare shadow``: the numbers of the report are those of the metrics."""

from __future__ import annotations

import http.server
import math
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from click.testing import CliRunner, Result
from prometheus_client import CollectorRegistry, generate_latest

from gateway.domain.catalogue import Model
from gateway.domain.scores import ProblemType
from gateway.shadow.comparison import Comparison
from gateway.telemetry.counters import ShadowCounters
from tritonflare.main import cli
from tritonflare.shadow import Pair


def model(name: str, version_id: str) -> Model:
    return Model(name, "e", ("a", "b"), 512, ProblemType.SINGLE_LABEL, version_id=version_id)


FIRST, SECOND = model("@cf/a/first", "1-00000000"), model("@cf/a/second", "2-11111111")


@contextmanager
def serving(page: bytes) -> Iterator[str]:
    """A server whose /metrics is this page."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/metrics" else 404)
            self.send_header("content-length", str(len(page)))
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def ask(url: str) -> Result:
    return CliRunner().invoke(cli, ["shadow", "--url", url], env={"COLUMNS": "120"})


def test_the_report_has_the_counts_the_agreement_and_the_shifts() -> None:
    registry = CollectorRegistry()
    counters = ShadowCounters(registry)
    for shift in (0.0004, -0.003, 0.03, -0.6):
        counters.compared(FIRST, SECOND, Comparison(shift > -0.5, shift))
    counters.compared(FIRST, SECOND, Comparison(False, None))
    counters.failed(FIRST, SECOND)
    for reason in ("busy", "busy", "full"):
        counters.dropped(FIRST.name, SECOND.name, reason)
    with serving(generate_latest(registry)) as url:
        found = ask(url)
    assert found.exit_code == 0
    text = found.output
    assert "@cf/a/first 1-00000000 → @cf/a/second 2-11111111" in text
    rows = {
        cells[0]: cells[1]
        for line in text.splitlines()
        if len(cells := [cell.strip() for cell in re.split("[│┃]", line)[1:-1]]) == 3
    }
    assert rows["texts compared"] == "5"
    assert rows["failed"] == "1"
    assert rows["same best label"] == "60.00 %"
    assert rows["mean |Δ| of its score"] == f"{(0.0004 + 0.003 + 0.03 + 0.6) / 4:.4f}"
    assert rows["mean Δ"] == f"{(0.0004 - 0.003 + 0.03 - 0.6) / 4:+.4f}"
    assert {name: rows[f"|Δ| {name}"] for name in ("to 0.001", "to 0.002", "to 0.005", "to 0.05")} == {
        "to 0.001": "1", "to 0.002": "0", "to 0.005": "1", "to 0.05": "1",
    }  # fmt: skip
    assert rows["|Δ| above 0.5"] == "1"
    assert "Not sent from @cf/a/first to @cf/a/second: busy 2, full 1" in text


@pytest.mark.parametrize(("agrees", "differs"), [(970, 30), (1, 0), (0, 7)])
def test_the_interval_is_wilsons(agrees: int, differs: int) -> None:
    share, low, high = Pair(agrees=agrees, differs=differs).agreement()
    count = agrees + differs
    assert share == agrees / count
    assert 0 <= low <= share <= high <= 1
    # Its ends are the shares from which the one that was found is 1.96 standard deviations away.
    for end in (low, high):
        assert abs(share - end) == pytest.approx(1.959964 * math.sqrt(end * (1 - end) / count), abs=1e-7)


def test_what_is_wrong_is_said_in_one_sentence() -> None:
    with serving(b"") as url:
        found = ask(url)
    assert (found.exit_code, "set GATEWAY_SHADOW" in found.output) == (1, True)
    found = ask(url)
    assert (found.exit_code, "does not answer" in found.output) == (1, True)
    assert ask("file:///etc/passwd").exit_code == 2


def test_a_server_that_has_compared_nothing_says_so() -> None:
    registry = CollectorRegistry()
    ShadowCounters(registry)
    with serving(generate_latest(registry)) as url:
        assert "No text was compared yet" in ask(url).output
