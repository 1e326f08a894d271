"""What ``tritonflare serve`` prints when it is ready."""

from __future__ import annotations

import json
import os
import re

import pytest

from embedded.repository import RepositoryModel
from tritonflare.serve import _greeting


@pytest.mark.parametrize(
    ("url", "grpc", "line"),
    [
        ("http://127.0.0.1:1", "127.0.0.1:2", "\ngRPC:  127.0.0.1:2 (docs/clients.md)\n"),
        ("https://127.0.0.1:1", "127.0.0.1:2", "\ngRPC:  127.0.0.1:2 with TLS (docs/clients.md)\n"),
        ("https://127.0.0.1:1", None, "\n"),
    ],
)
def test_the_line_of_grpc(url: str, grpc: str | None, line: str) -> None:
    assert f"Ready: {url}/client/v4{line}\n" in _greeting(url, grpc, RepositoryModel("m", "m"), "")


@pytest.mark.parametrize(
    ("inputs", "keys"), [(("TEXT",), {"text"}), (("QUERY", "TEXT"), {"query", "contexts"})]
)
def test_the_example_is_what_the_model_reads(inputs: tuple[str, ...], keys: set[str]) -> None:
    greeting = _greeting("http://127.0.0.1:1", None, RepositoryModel("m", "@cf/a/m", inputs=inputs), "")
    assert "/ai/run/@cf/a/m \\\n" in greeting
    (body,) = re.findall(r"-d '(.*)'", greeting)
    assert json.loads(body).keys() == keys


def test_batches_are_kept_beside_the_tokens_unless_told_otherwise(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from gateway.settings import Settings
    from tritonflare.paths import BATCHES
    from tritonflare.serve import _with_batches

    for name in [name for name in os.environ if name.startswith("GATEWAY_")]:
        monkeypatch.delenv(name)
    assert _with_batches(Settings()).batch_folder == BATCHES
    given = Settings(batch_redis_url="redis://127.0.0.1:1/0")
    assert _with_batches(given) is given
    elsewhere = Settings(batch_folder="/somewhere/else")
    assert _with_batches(elsewhere) is elsewhere
    assert _with_batches(Settings(max_buffered_bytes=8 * 1024 * 1024)).batch_folder is None
    assert "queueRequest is answered at once: max_buffered_bytes must exceed" in caplog.text
    caplog.clear()
    # A read-only root, as in a container.
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert _with_batches(Settings()).batch_folder is None
    assert "queueRequest is answered at once" in caplog.text


def test_reports_are_read_where_the_exporter_leaves_them_unless_told_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from gateway.settings import Settings
    from tritonflare.paths import ARTEFACTS
    from tritonflare.serve import _with_reports

    for name in [name for name in os.environ if name.startswith("GATEWAY_")]:
        monkeypatch.delenv(name)
    assert _with_reports(Settings()).reports_folder == ARTEFACTS
    elsewhere = Settings(reports_folder="/somewhere/else")
    assert _with_reports(elsewhere) is elsewhere
