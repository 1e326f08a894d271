"""``tritonflare serve`` as one program: what it says, what it leaves behind, how it fails."""

from __future__ import annotations

import os
import pty
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from gateway.access.tokens import hash_token
from tests.support.servers import ACCOUNT, assert_nothing_left, finished, running, start, wait_until
from tests.triton.conftest import INT8

pytestmark = pytest.mark.needs_triton


def ask(url: str, token: str) -> httpx.Response:
    return httpx.post(
        f"{url}/client/v4/accounts/{ACCOUNT}/ai/run/{INT8}",
        headers={"Authorization": f"Bearer {token}"},
        json={"text": "This pizza is great!"},
        timeout=30,
    )


def processes_with(tag: str) -> list[list[str]]:
    """Command lines of the processes that name ``tag``."""
    lines = [process.info["cmdline"] or [] for process in psutil.process_iter(["cmdline"])]
    return [line for line in lines if any(tag in word for word in line)]


@pytest.fixture
def home(tmp_path: Path, int8_repository: Path) -> Path:
    """A working folder whose ``model_repository`` is the exported one."""
    (tmp_path / "model_repository").symlink_to(int8_repository)
    return tmp_path


def test_a_newcomer_gets_a_token_once_and_a_curl_and_nothing_is_left_behind(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home)
    with running("serve", "--port", "0") as program:
        assert wait_until(lambda: "great!" in program.output, 5)
        token = re.search(r"export TOKEN=(\S+)", program.output)
        assert token is not None
        assert ask(program.url, token[1]).status_code == 200
        assert ask(program.url, "another").status_code == 401
        known_from_now_on_are_what_another_terminal_makes_and_revokes(home, program.url, token[1])
        kept = home / ".state" / "tokens"
        assert token[1] not in kept.read_text()
        assert stat.S_IMODE(kept.stat().st_mode) == 0o600
        assert len(program.children()) >= 3  # tritonserver and three stubs
        assert program.stop() == 0
    with running("serve", "--port", "0") as again:
        assert wait_until(lambda: "great!" in again.output, 5)
        assert "export TOKEN" not in again.output
        assert "token create`, run in this folder, creates another; this server accepts it" in again.output
        assert ask(again.url, token[1]).status_code == 200
        assert again.stop(signal.SIGINT) == 0


def known_from_now_on_are_what_another_terminal_makes_and_revokes(home: Path, url: str, first: str) -> None:
    status, output = finished("token", "create", cwd=home)
    second = output.splitlines()[0]
    assert status == 0
    assert wait_until(lambda: ask(url, second).status_code == 200, 5)
    assert ask(url, first).status_code == 200
    status, _ = finished("token", "revoke", hash_token(second)[:12], cwd=home)
    assert status == 0
    assert wait_until(lambda: ask(url, second).status_code == 401, 5)
    # The very first one too, which is put back for what follows.
    kept = home / ".state" / "tokens"
    before = kept.read_text()
    assert finished("token", "revoke", hash_token(first)[:12], cwd=home)[0] == 0
    assert wait_until(lambda: ask(url, first).status_code == 401, 5)
    kept.write_text(before)


def test_a_token_that_cannot_be_kept_is_reported_as_good_for_this_run_only(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home)
    (home / ".state").touch()
    with running("serve", "--port", "0") as program:
        assert wait_until(lambda: "great!" in program.output, 5)
        token = re.search(r"export TOKEN=(\S+)", program.output)
        assert token is not None
        assert "its hash is stored" not in program.output
        assert "The token is not stored: .state/tokens cannot be written (File exists)." in program.output
        assert ask(program.url, token[1]).status_code == 200
        time.sleep(1.5)  # two looks at the file
        assert ask(program.url, token[1]).status_code == 200


@pytest.mark.parametrize("moment", [0.1, 0.3, 0.6, 1.2])
def test_what_a_supervisor_killed_while_starting_leaves_is_swept_by_the_next(
    home: Path, moment: float
) -> None:
    with started(home, GATEWAY_API_TOKENS="*:x") as process:
        time.sleep(moment)
        process.kill()
    tag = f"tritonflare_{process.pid}_"
    with running(
        "serve", "--port", "0", "--repository", str(home / "model_repository"), GATEWAY_API_TOKENS="*:x"
    ):
        assert wait_until(lambda: not processes_with(tag), 20), processes_with(tag)
        assert_nothing_left(process.pid, [], "")


def test_triton_ends_with_a_supervisor_that_is_killed(home: Path) -> None:
    with running(
        "serve", "--port", "0", "--repository", str(home / "model_repository"), GATEWAY_API_TOKENS="*:x"
    ) as p:
        children = p.children()
        assert len(children) >= 3
        p.process.kill()
        p.process.wait(10)
        assert wait_until(lambda: not any(child.is_running() for child in children), 20)


def started(home: Path, **settings: str) -> subprocess.Popen[str]:
    """``tritonflare serve`` at the moment when it begins to start Triton."""
    process = start("serve", "--port", "0", cwd=home, **settings)
    assert process.stdout is not None
    assert any("starting Triton" in line for line in process.stdout)
    return process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("moment", [0, 0.3, 0.6])
def test_signals_while_starting_leave_nothing_and_lose_no_token(
    home: Path, number: int, moment: float
) -> None:
    with started(home) as process:
        time.sleep(moment)
        children = psutil.Process(process.pid).children(recursive=True)
        for each in (number, signal.SIGTERM):
            with suppress(ProcessLookupError):
                os.kill(process.pid, each)
        output, _ = process.communicate(timeout=60)
    assert "Traceback" not in output
    assert_nothing_left(process.pid, children, "")
    # On a fast machine it may have been ready; then, and only then, the token was shown and counts.
    assert (home / ".state").exists() == ("export TOKEN" in output)
    # Where the gateway runs already, but has not been ready, it stops in order too.
    assert process.returncode != 0 or "Ready" in output or "tritonflare.serve: stopped" in output


def test_a_second_signal_does_not_interrupt_the_clean_up(home: Path) -> None:
    with running(
        "serve", "--port", "0", "--repository", str(home / "model_repository"), GATEWAY_API_TOKENS="*:x"
    ) as p:
        children = p.children()
        p.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        p.process.send_signal(signal.SIGTERM)
        assert p.process.wait(30) == 0
        assert_nothing_left(p.process.pid, children, p.url)


_OWN_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, "-m", "tritonflare", "serve", "--port", "0"])
"""


def test_a_terminal_that_is_closed_stops_it_in_order(home: Path) -> None:
    terminal, inside = pty.openpty()
    environment = {**os.environ, "GATEWAY_API_TOKENS": "*:x", "TRITONFLARE_HOME": str(home)}
    with subprocess.Popen(
        [sys.executable, "-c", _OWN_TERMINAL],
        stdin=inside, stdout=inside, stderr=inside, cwd=home, env=environment, start_new_session=True,
    ) as process:  # fmt: skip
        os.close(inside)
        shown = b""
        while b"Ready" not in shown:
            shown += os.read(terminal, 4096)
        children = psutil.Process(process.pid).children(recursive=True)
        assert len(children) >= 3
        os.close(terminal)
        assert process.wait(30) == 0
    assert_nothing_left(process.pid, children, "")


def test_a_path_with_a_space_and_quotes_is_served(tmp_path: Path, int8_repository: Path) -> None:
    odd = tmp_path / 'my "odd" models; $HOME'
    shutil.copytree(int8_repository, odd)
    with running("serve", "--port", "0", "--repository", str(odd), GATEWAY_API_TOKENS="*:x") as program:
        assert ask(program.url, "x").status_code == 200


@pytest.mark.parametrize(
    ("setting", "value"),
    [("GATEWAY_TRITON_URL", "secret:8001"), ("GATEWAY_TRITON_METADATA_KEY", "name=secret")],
)
def test_settings_about_another_triton_are_refused(home: Path, setting: str, value: str) -> None:
    settings: dict[str, Any] = {setting: value}
    status, output = finished("serve", "--port", "0", cwd=home, **settings)
    assert status == 2
    assert f"{setting} is for a Triton that runs elsewhere" in output
    assert "secret" not in output


def test_a_busy_port_is_reported_before_triton_is_started(home: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        status, output = finished("serve", "--port", port, cwd=home)
    assert status == 2
    assert output.strip().count("\n") == 0
    assert f"port {port}" in output
    assert "in use" in output


def test_a_busy_triton_port_names_the_option(home: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        status, output = finished(
            "serve", "--port", "0", "--triton-port", port, cwd=home, GATEWAY_API_TOKENS="*:x"
        )
    assert status == 2
    assert "--triton-port" in output


def test_weights_that_are_not_the_published_ones_are_not_served(
    tmp_path: Path, int8_repository: Path
) -> None:
    copy = tmp_path / "models"
    shutil.copytree(int8_repository, copy)
    file = next(copy.glob("*_encoder_int8/1/model.onnx"))
    with file.open("r+b") as weights:
        weights.seek(-1000, os.SEEK_END)
        weights.write(b"\x00" * 8 + b"\x01" * 8)
    status, output = finished("serve", "--port", "0", "--repository", str(copy), GATEWAY_API_TOKENS="*:x")
    assert status == 2
    assert "is not the file that was published" in output
    assert "Traceback" not in output


def test_an_empty_repository_names_the_command_to_run(tmp_path: Path) -> None:
    status, output = finished("serve", "--port", "0", cwd=tmp_path)
    assert status == 2
    assert "tritonflare export`" in output
    assert not (tmp_path / ".state").exists()  # the token was not shown, so it must not count as made


def test_doctor_finds_this_machine_fit(home: Path) -> None:
    status, output = finished("doctor", cwd=home, GATEWAY_PORT="0")
    assert status == 0, output
    assert INT8 in output


@pytest.fixture
def clone(tmp_path: Path, int8_repository: Path) -> Path:
    """What `make doctor` looks at, with the bundled model exported."""
    (tmp_path / "Makefile").touch()
    (tmp_path / "checkpoints/minilm-sst2").mkdir(parents=True)
    shutil.copytree(int8_repository, tmp_path / "model_repository")
    return tmp_path


def test_doctor_of_a_fresh_clone_leaves_the_first_export_to_make_serve(clone: Path) -> None:
    for folder in (clone / "model_repository").iterdir():
        shutil.rmtree(folder)
    status, output = finished("doctor", cwd=clone, GATEWAY_PORT="0")
    assert status == 0, output
    assert "nothing exported yet; `make serve` will export the bundled model" in output
    assert "REMEDY" not in output


def test_doctor_does_not_promise_what_make_serve_would_not_export(clone: Path) -> None:
    next((clone / "model_repository").glob("tokenizer_*/1/tokenizer.json")).unlink()
    status, output = finished("doctor", cwd=clone, GATEWAY_PORT="0")
    assert status == 1
    assert "has no tokenizer.json yet; run `" in output


def test_doctor_names_the_remedy(tmp_path: Path) -> None:
    status, output = finished("doctor", cwd=tmp_path)
    assert status == 1
    assert "tritonflare export`" in output


def test_a_token_is_printed_once_and_kept_as_a_hash(tmp_path: Path) -> None:
    status, output = finished("token", "create", "--account", ACCOUNT, cwd=tmp_path)
    token = output.strip()
    assert status == 0
    kept = (tmp_path / ".state" / "tokens").read_text()
    assert re.fullmatch(rf"{ACCOUNT}:[0-9a-f]{{64}}\n", kept)
    assert token not in kept
