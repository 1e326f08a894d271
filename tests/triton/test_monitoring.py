"""What is asked of Triton exists: on the real tritonserver, with its metrics port open."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from embedded import wheel
from embedded.server import RESTRICTED_KEY, TritonServer
from tests.support.monitoring import (
    DOCUMENT,
    DOCUMENTED_GPU,
    Page,
    expressions,
    names_in,
    read_page,
    wrong_in,
)
from tests.support.servers import ACCOUNT, TOKEN, running, wait_until
from tests.triton.conftest import INT8

pytestmark = pytest.mark.needs_triton

READ, COMPUTED = "tritonflare_encoder_tokens_total", "tritonflare_encoder_computed_tokens_total"


class Measured(TritonServer):
    """A Triton whose metrics port is open, as in the container."""

    def __init__(self, repository: Path) -> None:
        super().__init__(repository)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.metrics_port = probe.getsockname()[1]

    def command(self, scratch: Path) -> list[str]:
        switches = [switch for switch in super().command(scratch) if "allow-metrics" not in switch]
        return [*switches, "--metrics-address=127.0.0.1", f"--metrics-port={self.metrics_port}"]

    def page(self) -> Page:
        return read_page(self.text())

    def text(self) -> str:
        return httpx.get(f"http://127.0.0.1:{self.metrics_port}/metrics").text

    def tokens(self, name: str) -> float:
        lines = [line for line in self.text().splitlines() if line.startswith(f"{name}{{")]
        return sum(float(line.rpartition(" ")[2]) for line in lines)


@pytest.fixture(scope="module")
def measured(int8_repository: Path) -> Iterator[Measured]:
    server = Measured(int8_repository)
    with server:
        yield server


def test_queries_ask_triton_for_what_it_exports(measured: Measured) -> None:
    known = measured.page().samples
    asked = 0
    for place, query in expressions():
        names = names_in(query)
        if names & set(DOCUMENTED_GPU) or not any(
            name.startswith("nv_") or "_encoder_" in name for name in names
        ):
            continue
        assert wrong_in(query, known) == [], place
        asked += 1
    assert asked >= 8


def test_every_gpu_metric_is_documented_and_shown_and_one_of_the_program() -> None:
    # There is no GPU whose metrics could be read, but their names are in the program. The compiler keeps the
    # first 16 characters of a longer name in one piece.
    (library,) = (wheel.folder().parents[1] / "nvidia_pytriton.libs").glob("libtritonserver-*.so")
    program = library.read_bytes()
    panels = {name for place, query in expressions() if place.startswith("panel") for name in names_in(query)}
    documented = set(re.findall(r"^\| `(nv_\w+)` \|", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE))
    assert documented == set(DOCUMENTED_GPU)
    for name, labels in DOCUMENTED_GPU.items():
        assert name in panels
        assert name[:16].encode() in program, name
        assert all(label.encode() in program for label in labels)
    assert b"nv_gpu_powerful_" not in program, "the test would notice a wrong name"


def test_the_encoder_counts_what_it_computes_beside_what_it_reads(measured: Measured) -> None:
    read, computed = measured.tokens(READ), measured.tokens(COMPUTED)
    texts = ["great", "a quite long and winding sentence about a film that nobody liked", "so so"]
    settings = {
        "GATEWAY_API_TOKENS": f"{ACCOUNT}:{TOKEN}",
        "GATEWAY_TRITON_METADATA_KEY": f"{RESTRICTED_KEY}={measured.secret}",
        "GATEWAY_REFRESH_INTERVAL_S": "1",
    }
    with running("gateway", "--port", "0", "--triton-url", measured.address, **settings) as program:
        answer = httpx.post(
            f"{program.url}/client/v4/accounts/{ACCOUNT}/ai/run/{INT8}",
            headers={"Authorization": f"Bearer {TOKEN}"},
            json={"requests": [{"text": text} for text in texts]},
            timeout=30,
        )
        tokens = answer.json()["result"]["usage"]["prompt_tokens"]
        # Canaries go on, and tell what was counted before them.
        assert wait_until(lambda: measured.tokens(READ) >= read + tokens, 10)
    more_read, more_computed = measured.tokens(READ) - read, measured.tokens(COMPUTED) - computed
    assert more_read <= more_computed < 2 * more_read
