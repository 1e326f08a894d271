"""Real clients of rerankers, unmodified, before the real gateway and a fake reranker."""

from __future__ import annotations

import json
import math
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.clients.inference_clients import Target, require_clients, results_of
from tests.support.fake_triton import RERANKER, FakeEnsemble, FakeTriton, reranker
from tests.support.gateway_process import gateway_process, triton_in_a_thread
from tests.support.harness import TOKEN

WITHOUT_NODE = True
PAGE = (Path(__file__).parents[2] / "docs" / "reranking.md").read_text(encoding="utf-8")
QUERY = "red wine of the south"
DOCUMENTS = ["white wine", "a red wine of the south", "beer", "red or white"]
RANKS = [[1, 1 / (1 + math.exp(-4))], [0, 0.5], [3, 0.5], [2, 1 / (1 + math.e)]]
"""The fake counts the words that query and text share, minus one; the sigmoid is applied once."""
BY_RANK = [DOCUMENTS[index] for index in (1, 0, 3, 2)]


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    require_clients()
    fake = FakeTriton()
    fake.ensembles = [FakeEnsemble(), reranker()]
    log = tmp_path_factory.mktemp("gateway") / "log"
    with triton_in_a_thread(fake), gateway_process(log, GATEWAY_TRITON_URL=fake.url) as found:
        yield found


@pytest.fixture(scope="module")
def found(port: int) -> dict[str, Any]:
    """What all clients got."""
    return results_of("rerankers", Target("", f"127.0.0.1:{port}", [QUERY, *DOCUMENTS], RERANKER, TOKEN))


def check(ranks: Any, expected: list[list[float]] = RANKS) -> None:
    """Places in order, and scores."""
    assert [place for place, _ in ranks] == [place for place, _ in expected]
    assert [score for _, score in ranks] == pytest.approx([score for _, score in expected])


def test_cohere_s_sdk(found: dict[str, Any]) -> None:
    check(found["cohere v2"]["ranks"], RANKS[:2])
    assert found["cohere v2"]["tokens"] == 4 * (5 + 3) + 12
    check(found["cohere v1"]["ranks"])
    assert found["cohere v1"]["texts"] == BY_RANK
    assert found["cohere refused"] == {
        "wrong token": ["UnauthorizedError", 401, "The token is unknown or has expired"],
        "unknown model": ["NotFoundError", 404, "No such model rerank-v3.5 or task"],
        "empty query": ["BadRequestError", 400, "'query' must not be empty"],
    }


def test_langchain_s_reranker_for_workers_ai(found: dict[str, Any]) -> None:
    check(found["cloudflare"]["all"])
    check(found["cloudflare"]["best"], RANKS[:1])
    assert found["cloudflare"]["texts"] == BY_RANK


def test_llama_index_for_tei_and_jina(found: dict[str, Any]) -> None:
    check(found["llama_index tei"], RANKS[:2])
    check(found["llama_index jina"], RANKS[:2])
    assert found["llama_index jina refused"] == "No such model jina-reranker-v1-base-en or task"


@pytest.mark.parametrize("provider", ["cohere", "jina_ai", "huggingface", "hosted_vllm", "infinity"])
def test_litellm_by_each_provider(found: dict[str, Any], provider: str) -> None:
    check(found["litellm"][provider])
    assert (f"{provider} texts" in found["litellm"]) == (provider != "infinity")
    assert found["litellm"].get(f"{provider} texts", BY_RANK) == BY_RANK


def test_litellm_cuts_and_shows_what_is_refused(found: dict[str, Any]) -> None:
    assert found["litellm best"] == [1]
    assert found["litellm refused"] == ["NotFoundError", 404, True]


def test_the_programs_of_the_page_print_the_best_texts(found: dict[str, Any]) -> None:
    ranked = "1 0.982 a red wine of the south\n0 0.5 white wine\n"
    assert found["page"].pop("huggingface_hub") == "POSITIVE\n"
    assert len(found["page"]) == 6
    assert set(found["page"].values()) == {ranked}


def curl_commands() -> list[str]:
    consoles = re.findall(r"^```console\n(.*?)^```", PAGE, re.S | re.M)
    commands = [command for console in consoles for command in re.split(r"^\$ ", console, flags=re.M)]
    return [command for command in commands if command.startswith("curl ")]


@pytest.mark.parametrize("command", curl_commands(), ids=lambda command: command.split()[1][21:])
def test_the_curl_commands_of_the_page_get_the_best_text_first(port: int, command: str) -> None:
    done = subprocess.run(
        ["bash", "-euc", command.replace("127.0.0.1:8787", f"127.0.0.1:{port}")],
        env={"PATH": "/usr/bin:/bin", "TOKEN": TOKEN},
        capture_output=True,
        check=True,
    )
    answer = json.loads(done.stdout)
    if isinstance(answer, dict):
        answer = answer.get("results") or answer["result"]["response"]
    best = answer[0]
    assert best.get("index", best.get("id")) == 1 or best["label"] == "POSITIVE"


def test_the_page_has_a_curl_command_for_each_form() -> None:
    assert len(curl_commands()) == 4
