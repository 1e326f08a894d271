"""Every file of examples/, unmodified, with three environment variables set."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.clients.checks import MODEL, TEXT, check_scores
from tests.support.clients.inference_clients import PYTHON, Target, require_clients, results_of
from tests.support.clients.node import JS, environment, require_node
from tests.support.servers import ACCOUNT, TOKEN, Program

WITHOUT_NODE = True
"""Those that need it ask for it."""

EXAMPLES = Path(__file__).parents[2] / "examples"
README = EXAMPLES.parent / "README.md"
COMMANDS = {".sh": "sh", ".py": sys.executable, ".mjs": "node"}
INFERENCE_PROTOCOL = ["grpc_aio.py", "grpc_client.py", "http_v2.py"]
"""These take TOKEN and an address; the others take the variables of Cloudflare's tools."""
SAMPLES = sorted(
    path.name
    for path in EXAMPLES.iterdir()
    if path.suffix in COMMANDS and path.name not in INFERENCE_PROTOCOL
)
CLASSIFIERS = [name for name in SAMPLES if name not in ("batch.py", "curl.sh")]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the folder, because node looks for packages beside the program."""
    copy = tmp_path / "examples"
    shutil.copytree(EXAMPLES, copy, ignore=shutil.ignore_patterns("node_modules", "worker", ".venv"))
    (copy / "node_modules").symlink_to(JS / "node_modules")
    return copy


def run(
    folder: Path, url: str, name: str, *texts: str, token: str = TOKEN, account: str = ACCOUNT
) -> subprocess.CompletedProcess[str]:
    """Run one example to its end."""
    if name.endswith(".mjs"):
        require_node()
    elif name.endswith(".sh") and shutil.which("curl") is None:
        assert "CI" not in os.environ, "CI must have curl"
        pytest.skip("curl is not installed")
    env = environment(
        folder,
        CLOUDFLARE_BASE_URL=f"{url}/client/v4",
        CLOUDFLARE_API_TOKEN=token,
        CLOUDFLARE_ACCOUNT_ID=account,
    )
    return subprocess.run(
        [COMMANDS[Path(name).suffix], name, *texts],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def printed(folder: Path, gateway: Program, name: str, *texts: str) -> list[tuple[float, str]]:
    """The scores and texts that an example prints."""
    done = run(folder, gateway.url, name, *texts)
    assert (done.returncode, done.stderr) == (0, "")
    matches = [re.fullmatch(r"(\d\.\d{4}) {2}(.*)", line) for line in done.stdout.splitlines()]
    assert all(matches), done.stdout
    return [(float(match[1]), match[2]) for match in matches if match]


def test_curl_prints_the_answer_of_the_api(folder: Path, gateway: Program) -> None:
    done = run(folder, gateway.url, "curl.sh")
    assert (done.returncode, done.stderr) == (0, "")
    answer = json.loads(done.stdout)
    assert list(answer) == ["result", "success", "errors", "messages"]
    check_scores(answer["result"])


def test_curl_fails_with_the_error_of_the_api(folder: Path, gateway: Program) -> None:
    done = run(folder, gateway.url, "curl.sh", token="wrong")
    assert done.returncode == 22
    assert json.loads(done.stdout)["errors"][0]["code"] == 10000


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_the_example_prints_a_score_for_each_text(folder: Path, gateway: Program, name: str) -> None:
    ((score, text),) = printed(folder, gateway, name)
    assert text == TEXT
    assert score > 0.9
    good, bad = printed(folder, gateway, name, TEXT, "The waiter was rude, and “awful” 🍕.")
    assert good == (score, TEXT)
    assert bad[0] < 0.5
    assert bad[1] == "The waiter was rude, and “awful” 🍕."


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_the_example_shows_the_api_s_errors(folder: Path, gateway: Program, name: str) -> None:
    done = run(folder, gateway.url, name, "")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("5006: AiError: Bad input: Error: Length of '/text' must be >= 1 not met (")
    done = run(folder, gateway.url, name, token="wrong")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "10000: Authentication error\n")


@pytest.mark.parametrize("kind", ["gateway", "queueing_gateway"])
def test_the_batch_gives_each_text_its_own_result_or_error(
    folder: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    gateway: Program = request.getfixturevalue(kind)
    done = run(folder, gateway.url, "batch.py", TEXT, "The waiter was rude.", "")
    assert (done.returncode, done.stderr) == (1, "")
    good, bad, empty = done.stdout.splitlines()
    ((score, _),) = printed(folder, gateway, "python_requests.py")
    assert good == f"{score:.4f}  {TEXT}"
    assert bad.endswith("  The waiter was rude.")
    assert empty.startswith("failed  '': AiError: Bad input: ")
    assert printed(folder, gateway, "batch.py")[0] == (score, TEXT)
    done = run(folder, gateway.url, "batch.py", token="wrong")
    assert (done.returncode, done.stderr) == (1, "10000: Authentication error\n")


@pytest.mark.parametrize("name", SAMPLES)
def test_without_a_token_or_an_account_the_example_names_the_variable(
    folder: Path, gateway: Program, name: str
) -> None:
    for token, account, variable in (("", ACCOUNT, "API_TOKEN"), (TOKEN, "", "ACCOUNT_ID")):
        done = run(folder, gateway.url, name, token=token, account=account)
        assert done.returncode in (1, 2)
        assert done.stdout == ""
        assert re.fullmatch(rf".*CLOUDFLARE_{variable}.*: see README\.md in this folder\.?\n", done.stderr)


@pytest.mark.parametrize("name", [name for name in SAMPLES if name != "curl.sh"])
def test_without_a_server_the_example_names_the_address_and_how_to_start_one(folder: Path, name: str) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # and does not listen
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        done = run(folder, url, name)
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(
        rf"No answer from {url}/client/v4/?\. Is the server running\? `make serve` starts one\.\n",
        done.stderr,
    )


def run_inference(
    folder: Path, name: str, *texts: str, grpc: str, http: str, token: str = TOKEN
) -> subprocess.CompletedProcess[str]:
    """Run one example of the Open Inference Protocol to its end, in the environment of those clients."""
    require_clients()
    return subprocess.run(
        [str(PYTHON), name, *texts],
        cwd=folder,
        env=environment(folder, GRPC_ADDRESS=grpc, HTTP_URL=http, TOKEN=token),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("name", INFERENCE_PROTOCOL)
def test_the_inference_protocol_s_examples_print_a_score_for_each_text(
    folder: Path, inference_target: Target, http_scores: list[list[float]], name: str
) -> None:
    server = {"grpc": inference_target.grpc, "http": f"http://{inference_target.http}"}
    texts = inference_target.texts
    done = run_inference(folder, name, *texts, **server)
    assert (done.returncode, done.stderr) == (0, "")
    expected = [f"{row[1]:.4f}  {text}" for row, text in zip(http_scores, texts, strict=True)]
    assert done.stdout.splitlines() == expected
    assert run_inference(folder, name, **server).stdout.splitlines() == expected[:1]


@pytest.mark.parametrize(
    ("name", "refusal", "bad_text"),
    [
        ("grpc_aio.py", "StatusCode.UNAUTHENTICATED: ", "StatusCode.INVALID_ARGUMENT: "),
        ("grpc_client.py", "StatusCode.UNAUTHENTICATED: ", "StatusCode.INVALID_ARGUMENT: "),
        ("http_v2.py", "401: ", "400: "),
    ],
)
def test_the_inference_protocol_s_examples_show_errors(
    folder: Path, inference_target: Target, name: str, refusal: str, bad_text: str
) -> None:
    server = {"grpc": inference_target.grpc, "http": f"http://{inference_target.http}"}
    for done, start in (
        (run_inference(folder, name, token="wrong", **server), refusal),
        (run_inference(folder, name, "", **server), bad_text),
        (run_inference(folder, name, token="", **server), "Set TOKEN: see README.md"),
    ):
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith(start)
        assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("name", INFERENCE_PROTOCOL)
def test_without_a_server_the_inference_protocol_s_examples_name_the_address(folder: Path, name: str) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # and does not listen
        address = f"127.0.0.1:{closed.getsockname()[1]}"
        done = run_inference(folder, name, grpc=address, http=f"http://{address}")
    assert (done.returncode, done.stdout) == (1, "")
    assert address in done.stderr
    assert "`make serve` starts one" in done.stderr


def test_the_request_for_grpcurl_in_the_examples_readme_is_answered(inference_target: Target) -> None:
    readme = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    (request,) = re.findall(r"^grpcurl [^']*'(\{.*\})'", readme, re.M)
    (answer,) = results_of("reflection", replace(inference_target, texts=[request]), "requests")["requests"]
    assert answer["modelName"] == MODEL
    assert [output["name"] for output in answer["outputs"]] == ["label"]
    assert answer["rawOutputContents"] == ["CAAAAFBPU0lUSVZF"]
    assert "`CAAAAFBPU0lUSVZF`" in readme


@pytest.mark.parametrize(("language", "name"), [("python", "readme.py"), ("js", "readme.mjs")])
def test_the_sdk_s_snippet_in_the_readme_runs_as_it_stands(
    folder: Path, gateway: Program, language: str, name: str
) -> None:
    blocks = re.findall(rf"```{language}\n(.*?)```", README.read_text(encoding="utf-8"), re.S)
    (snippet,) = (block for block in blocks if "client.ai.run(" in block)
    (folder / name).write_text(snippet, encoding="utf-8")
    done = run(folder, gateway.url, name)
    assert done.returncode == 0, done.stderr
    assert re.search(r"label.*NEGATIVE.*label.*POSITIVE", done.stdout, re.S), done.stdout


def test_no_example_is_left_out() -> None:
    files = {path.name for path in EXAMPLES.iterdir() if path.is_file()}
    assert {*CLASSIFIERS, *INFERENCE_PROTOCOL, "batch.py", "curl.sh", "README.md"} == files
    names = [*SAMPLES, *INFERENCE_PROTOCOL]
    assert all(MODEL in (EXAMPLES / name).read_text(encoding="utf-8") for name in names)
