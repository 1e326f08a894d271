"""What ``tritonflare serve`` prints when it is ready."""

from __future__ import annotations

import pytest

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
    assert f"Ready: {url}/client/v4{line}\n" in _greeting(url, grpc, "m", "")
