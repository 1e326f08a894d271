"""Run programs of the Open Inference Protocol's clients with what `make clients` installs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from tests.support.clients.checks import MODEL
from tests.support.servers import ACCOUNT, TOKEN, Program, wait_until

ROOT = Path(__file__).parents[3]
ENVIRONMENT = ROOT / ".venv-clients"
PYTHON = ENVIRONMENT / "bin" / "python"
PERF_ANALYZER = ENVIRONMENT / "perf-analyzer" / "bin" / "perf_analyzer"
ENSEMBLE = "cf-huggingface-distilbert-sst-2-int8"
PATH_SAFE = "@cf--huggingface--distilbert-sst-2-int8"
PROGRAM_S = 90
"""Longest time that a program may take; importing kserve on a busy machine is most of it."""


def require_clients() -> None:
    """Skip where the clients' environment is missing; where it must be there, fail."""
    if (ENVIRONMENT / ".clients").exists():
        return
    reason = "the clients of the Open Inference Protocol are not installed: make clients"
    if "CI" in os.environ:
        pytest.fail(reason)
    pytest.skip(reason)


@dataclass(frozen=True)
class Target:
    """What a program is asked to call; see tests/clients/programs/common.py."""

    grpc: str
    http: str
    texts: Sequence[str]
    model: str = MODEL
    token: str = TOKEN
    authority: str = ""

    def calling(self, model: str) -> Target:
        """The same under another name of the model."""
        return replace(self, model=model)


class ClientProgram:
    """A program of tests/clients/programs in a process of its own, started at once."""

    def __init__(self, name: str, target: Target, *parts: str) -> None:
        require_clients()
        inherited = {key: value for key, value in os.environ.items() if "proxy" not in key.lower()}
        inherited["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # or it asks the internet for prices
        with tempfile.TemporaryFile("w+", encoding="utf-8") as given:
            json.dump(asdict(target), given)
            given.seek(0)
            self._process = subprocess.Popen(
                [str(PYTHON), "-m", f"tests.clients.programs.{name}", *parts],
                cwd=ROOT,
                env=inherited,
                stdin=given,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )

    def __enter__(self) -> ClientProgram:
        return self

    def __exit__(self, *error: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()

    def results(self) -> dict[str, Any]:
        """Wait for its end; what it printed."""
        output, errors = self._process.communicate(timeout=PROGRAM_S)
        assert self._process.returncode == 0, errors
        found: dict[str, Any] = json.loads(output)
        return found


def results_of(name: str, target: Target, *parts: str) -> dict[str, Any]:
    """Run a program to its end, all parts unless some are named."""
    with ClientProgram(name, target, *parts) as program:
        return program.results()


def grpc_address(gateway: Program) -> str:
    """Where a gateway listens for gRPC, as ``host:port``."""
    pattern = re.compile(r"serving gRPC on (\S+)")
    assert wait_until(lambda: pattern.search(gateway.output) is not None, 10), gateway.output
    (address,) = pattern.findall(gateway.output)
    return str(address)


def scores_of_the_http_api(url: str, texts: Sequence[str]) -> list[list[float]]:
    """What the Workers AI API answers for each text: scores in the labels' order, rounded to FP32."""
    path = f"{url}/client/v4/accounts/{ACCOUNT}/ai/run/{MODEL}"
    scores: list[list[float]] = []
    with httpx.Client(headers={"Authorization": f"Bearer {TOKEN}"}, timeout=60) as client:
        for text in texts:
            answer = client.post(path, json={"text": text}).raise_for_status().json()
            scores.append(np.array([entry["score"] for entry in answer["result"]], np.float32).tolist())
    return scores


def check_outputs(outputs: dict[str, Any], scores: Sequence[Sequence[float]]) -> None:
    """All outputs of one response, for the texts that have these scores."""
    rows = len(scores)
    probabilities, logits = (np.array(outputs[name]["values"]) for name in ("probabilities", "logits"))
    assert outputs["probabilities"]["dtype"] == outputs["logits"]["dtype"] == "float32"
    assert outputs["probabilities"]["shape"] == outputs["logits"]["shape"] == [rows, 2]
    assert outputs["probabilities"]["values"] == [value for row in scores for value in row]
    weights = np.exp(logits.reshape(rows, 2))
    expected = (weights / weights.sum(axis=1, keepdims=True)).ravel()
    assert np.allclose(probabilities, expected, atol=1e-6)
    assert outputs["label"]["values"] == [label_of(row) for row in scores]
    assert outputs["label"]["shape"] == outputs["token_count"]["shape"] == [rows, 1]
    assert outputs["token_count"]["dtype"] == "int32"
    assert min(outputs["token_count"]["values"]) > 2


def label_of(row: Sequence[float]) -> str:
    return "POSITIVE" if row[1] > row[0] else "NEGATIVE"


def check_selected(answer: dict[str, Any], model: str, scores: Sequence[Sequence[float]]) -> None:
    """Check the answer to request-7, which asks for labels and probabilities in this order."""
    assert (answer["id"], answer["model"], answer["version"]) == ("request-7", model, "1")
    assert answer["names"] == ["label", "probabilities"]
    assert answer["outputs"]["probabilities"]["values"] == [value for row in scores for value in row]


def check_classes(output: dict[str, Any], scores: Sequence[Sequence[float]], count: int) -> None:
    """``value:index:label`` of the best classes of each text, best first."""
    assert output["shape"] == [len(scores), count]
    expected = []
    for row in scores:
        best = sorted(enumerate(row), key=lambda entry: -entry[1])[:count]
        expected += [f"{value:f}:{index}:{('NEGATIVE', 'POSITIVE')[index]}" for index, value in best]
    assert output["values"] == expected


def check_each(answers: Sequence[dict[str, Any]], scores: Sequence[Sequence[float]]) -> None:
    """One response for each text."""
    assert len(answers) == len(scores)
    for outputs, row in zip(answers, scores, strict=True):
        check_outputs(outputs, [row])
