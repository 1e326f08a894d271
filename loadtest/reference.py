"""The server's own answers to each text, asked alone before any load.

Only the served model can give its answers to a thousandth: INT8, FP16 and
FP32 of the same weights differ by more. So each run first asks one text after the other, and holds
every answer under load against these; a file of an earlier run holds two servers against each other.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests

from loadtest.checks import Scores, read_scores

FORMAT = 1
IS_RERANKER = (
    "the model is a reranker, and the load test asks classifiers; set MODEL (--model) to one, or measure "
    "rerankers with `tritonflare bench-rerank`"
)
_RERANKER_WANTS = "'query,contexts'"
"""In the error of a reranker that was given a text alone."""


class NoReferenceError(Exception):
    """The server or the file has no usable answer; the message names the text or code."""


def check_host(host: str) -> None:
    """Check what was given as ``--host``.

    Raises:
        NoReferenceError: it is missing, or not an http or https URL with a host.
    """
    if not host:
        raise NoReferenceError("--host is missing")
    try:
        parts = urlsplit(host)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid:
        raise NoReferenceError(
            f"{host} is not a valid URL; set HOST=http://ADDRESS:PORT, or GATEWAY_HOST to a name or an IP "
            "address"
        )


def past_proxies(url: str) -> dict[str, str]:
    """What `requests` takes as ``proxies``: those of the environment get nothing sent to this machine.

    Everything else that it reads there, as REQUESTS_CA_BUNDLE, still counts.
    """
    host = urlsplit(url).hostname or ""
    try:
        here = ip_address(host).is_loopback
    except ValueError:
        here = host == "localhost"
    return {"no_proxy": host} if here else {}


def classify_sequentially(
    url: str, token: str, texts: Sequence[str], timeout_s: float, verify: bool
) -> dict[str, Scores]:
    """Ask ``texts`` one after the other on one connection.

    Raises:
        NoReferenceError: the server does not answer, or an answer is not a classification.
    """
    found: dict[str, Scores] = {}
    with requests.Session() as session:
        session.headers["Authorization"] = f"Bearer {token}"
        session.verify = verify
        for text in texts:
            try:
                answer = session.post(url, json={"text": text}, timeout=timeout_s, proxies=past_proxies(url))
            except requests.RequestException as exc:
                raise NoReferenceError(f"no answer from {url}: {type(exc).__name__}") from exc
            found[text] = _scores(answer)
    return found


def _scores(answer: requests.Response) -> Scores:
    try:
        document = answer.json()
        if answer.status_code == 200:
            return read_scores(document["result"])
        error = document["errors"][0]
        if _RERANKER_WANTS in error["message"]:
            raise NoReferenceError(IS_RERANKER)
        found = f"{error['code']}: {error['message']}"
    except (ValueError, LookupError, TypeError, AttributeError):
        found = "which is no answer of a text classification"
    raise NoReferenceError(f"asked alone, the server answered {answer.status_code}, {found}")


def write_references(references: dict[str, Scores], model: str, file: Path) -> None:
    """Write the answers as JSON."""
    answers = [{"text": text, "scores": scores} for text, scores in references.items()]
    document = {"format": FORMAT, "model": model, "answers": answers}
    file.write_text(json.dumps(document, ensure_ascii=False, indent=0) + "\n", encoding="utf-8")


def read_references(file: Path, texts: Sequence[str]) -> dict[str, Scores]:
    """Read the answers to ``texts``, as ``write_references`` wrote them.

    Raises:
        NoReferenceError: the file cannot be read, or lacks a text.
    """
    try:
        document: Any = json.loads(file.read_text(encoding="utf-8"))
        if document["format"] != FORMAT:
            raise NoReferenceError(f"{file} is not of format {FORMAT}")
        found: dict[str, Scores] = {one["text"]: one["scores"] for one in document["answers"]}
    except (OSError, ValueError, LookupError, TypeError) as exc:
        raise NoReferenceError(f"{file} holds no references: {exc}") from exc
    missing = sum(text not in found for text in texts)
    if missing:
        raise NoReferenceError(
            f"{file} lacks {missing} of {len(texts)} texts; it was made with other --texts"
        )
    return found
