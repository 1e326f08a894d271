"""A server that is wrong from the beginning is no reference."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from loadtest.golden import compare, is_bundled, read_golden
from loadtest.reference import NoReferenceError, classify_sequentially, past_proxies
from tests.support.locust_run import stand_in

MODEL = "@cf/acme/mood"


def shifted(by: float) -> dict[str, dict[str, float]]:
    return {
        text: {"NEGATIVE": scores[0] + by, "POSITIVE": scores[1] - by}
        for text, scores in read_golden().items()
    }


def test_the_golden_file_holds_scores() -> None:
    golden = read_golden()
    assert len(golden) > 200
    assert all(abs(sum(scores) - 1) < 1e-9 for scores in golden.values())
    assert golden["This pizza is great!"][1] > 0.98


def test_answers_like_those_of_int8_agree() -> None:
    assert compare(read_golden(), shifted(0.005)).endswith("scores 0.005 apart on average")


@pytest.mark.parametrize("wrong", ["shifted", "swapped", "constant"])
def test_other_weights_labels_in_another_order_and_a_constant_do_not_agree(wrong: str) -> None:
    answers = shifted(0.05 if wrong == "shifted" else 0)
    for scores in answers.values():
        if wrong == "swapped":
            scores["NEGATIVE"], scores["POSITIVE"] = scores["POSITIVE"], scores["NEGATIVE"]
        if wrong == "constant":
            scores["NEGATIVE"], scores["POSITIVE"] = 0.25, 0.75
    with pytest.raises(NoReferenceError, match="does not answer as the bundled checkpoint"):
        compare(read_golden(), answers)


def test_other_labels_do_not_agree() -> None:
    with pytest.raises(NoReferenceError, match="gave 3 labels"):
        compare(read_golden(), {text: {"a": 0.2, "b": 0.3, "c": 0.5} for text in read_golden()})


def test_a_file_that_holds_no_logits_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text('{"text": "x"}\n')
    with pytest.raises(NoReferenceError, match="holds no logits"):
        read_golden(tmp_path / "file")


class Catalogue(HTTPServer):
    body: Any = None


class _Handler(BaseHTTPRequestHandler):
    server: Catalogue

    def do_GET(self) -> None:
        known = self.path.startswith("/client/v4/accounts/me/ai/models/search?search=")
        self.send_response(200 if known else 404)
        self.end_headers()
        self.wfile.write(json.dumps(self.server.body).encode())

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def catalogue() -> Iterator[Catalogue]:
    with Catalogue(("127.0.0.1", 0), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("entries", "bundled"),
    [
        ([("info", "minilm-sst2")], True),
        ([("info", "checkpoints/minilm-sst2"), ("precision", "int8")], True),
        ([("info", "org/other")], False),
        ([("precision", "int8")], False),
    ],
)
def test_the_catalogue_shows_whether_the_model_is_the_bundled_one(
    catalogue: Catalogue, entries: list[tuple[str, str]], bundled: bool
) -> None:
    properties = [{"property_id": name, "value": value} for name, value in entries]
    catalogue.body = {"result": [{"name": MODEL, "properties": properties}]}
    host = f"http://127.0.0.1:{catalogue.server_address[1]}"
    assert is_bundled(host, "me", MODEL, "t", 5, True) is bundled
    assert not is_bundled(host, "me", "@cf/acme/other", "t", 5, True)


@pytest.mark.parametrize("body", [None, [], {"result": None}, {"result": [{"name": MODEL}]}])
def test_what_is_no_catalogue_names_nothing(catalogue: Catalogue, body: Any) -> None:
    catalogue.body = body
    host = f"http://127.0.0.1:{catalogue.server_address[1]}"
    assert not is_bundled(host, "me", MODEL, "t", 5, True)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://127.0.0.1:8787/x", {"no_proxy": "127.0.0.1"}),
        ("https://localhost/x", {"no_proxy": "localhost"}),
        ("http://[::1]:8787/x", {"no_proxy": "::1"}),
        ("https://api.example.org/x", {}),
    ],
)
def test_only_what_is_sent_to_this_machine_goes_past_the_proxies(url: str, expected: dict[str, str]) -> None:
    assert past_proxies(url) == expected


def test_a_proxy_of_the_environment_sees_nothing_sent_to_this_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with stand_in() as server:
        found = classify_sequentially(f"{server.url}/x", "t", ["a", "b"], 5, verify=True)
    assert list(found) == ["a", "b"]
