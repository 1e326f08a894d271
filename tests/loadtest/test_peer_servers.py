"""How peers start and end: stand-ins, and the real ones where they are installed."""

from __future__ import annotations

import json
import os
import sys
from http.client import HTTPConnection
from pathlib import Path

import psutil
import pytest

from loadtest.bench.peers.agreement import answers
from loadtest.bench.peers.process_group import process_group
from loadtest.bench.peers.servers import (
    NAMES,
    PEERS,
    Peer,
    PeerModel,
    missing,
    package_versions,
    running_peer,
)
from loadtest.bench.processes import ProcessTree
from loadtest.client import LoadError
from loadtest.closed_loop import over_http
from tests.support.bundled import bundled_repository
from tests.support.peers import ENVIRONMENTS, require_peers, stand_in_environment
from tests.support.servers import wait_until

LABELS = ("NEGATIVE", "POSITIVE")
MODEL = PeerModel(None, Path("tokenizer.json"), LABELS, 512)
# A child ignores SIGTERM; the parent ends at once, and leaves it behind.
_LEAVES_A_CHILD = """
import signal, subprocess, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
signal.signal(signal.SIGTERM, signal.SIG_DFL)
print(child.pid, flush=True)
sys.stdin.read()
signal.pause()
"""


def _gone(*pids: int) -> bool:
    """Whether these have ended; what init has not yet waited for counts as ended."""
    running = [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]
    return all(process.status() == psutil.STATUS_ZOMBIE for process in running)


def _peer(pids: Path, port: str = "{port}") -> Peer:
    return Peer("stand-in", "other", "/", ("serve", str(pids), port), {"batch": 64, "group": 16})


def test_the_whole_group_has_ended_with_the_block_whatever_ends_it(tmp_path: Path) -> None:
    log = tmp_path / "log"
    pids: list[int] = []

    def interrupted() -> None:
        command = [sys.executable, "-c", _LEAVES_A_CHILD]
        with process_group(command, tmp_path, dict(os.environ), log) as process:
            assert wait_until(lambda: log.read_text().endswith("\n"), 10)
            pids.extend((process.pid, int(log.read_text())))
            assert {os.getpgid(pid) for pid in pids} == {process.pid} != {os.getpgid(0)}
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert wait_until(lambda: _gone(*pids), 5)


def test_a_peer_gets_its_settings_and_of_our_environment_only_what_it_may(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")
    monkeypatch.setenv("PYTHONPATH", "elsewhere")
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    stand_in_environment(tmp_path, "other")
    pids = tmp_path / "pids"
    seen: list[bytes] = []
    with running_peer(_peer(pids), MODEL, tmp_path, tmp_path / "work") as peer:
        connection = HTTPConnection(peer.target.url.removeprefix("http://"))
        connection.request("POST", peer.target.path, "{}")
        seen.append(connection.getresponse().read())
        connection.close()
        assert str(peer.pid) == pids.read_text().split()[0]
    environment = json.loads(seen[0])
    assert not {"PYTHONPATH", "OMP_NUM_THREADS"} & set(environment)
    assert environment["GLIBC_TUNABLES"] == "glibc.malloc.hugetlb=1"
    assert not Path(environment["TMPDIR"]).exists(), "it ends with the block"
    described = json.loads(environment["PEER"])
    assert (described["model"], described["labels"], described["max_tokens"]) == (None, list(LABELS), 512)
    assert (described["group"], described["batch"]) == (16, 64)
    assert wait_until(lambda: _gone(*map(int, pids.read_text().split())), 5)


def test_a_peer_that_does_not_start_says_why_and_leaves_nothing(tmp_path: Path) -> None:
    stand_in_environment(tmp_path, "other")
    pids = tmp_path / "pids"
    with (
        pytest.raises(LoadError, match=r"stand-in did not start; its last words:\nno model here"),
        running_peer(_peer(pids, "fail"), MODEL, tmp_path, tmp_path / "work"),
    ):
        pass
    assert wait_until(lambda: _gone(*map(int, pids.read_text().split())), 5)


def test_a_damaged_environment_is_a_clear_error(tmp_path: Path) -> None:
    with (
        pytest.raises(LoadError, match="stand-in could not be started: No such file"),
        running_peer(_peer(tmp_path / "pids"), MODEL, tmp_path, tmp_path / "work"),
    ):
        pass


def test_an_error_of_what_is_measured_is_not_the_peers(tmp_path: Path) -> None:
    stand_in_environment(tmp_path, "other")
    pids = tmp_path / "pids"
    with (
        pytest.raises(TimeoutError, match="no answer"),
        running_peer(_peer(pids), MODEL, tmp_path, tmp_path / "work"),
    ):
        raise TimeoutError("no answer")
    assert wait_until(lambda: _gone(*map(int, pids.read_text().split())), 5)


def test_an_environment_counts_once_it_is_complete(tmp_path: Path) -> None:
    stand_in_environment(tmp_path, "mosec")
    assert missing(("fastapi", "mosec"), tmp_path) == ["fastapi", "mosec"]
    (tmp_path / "mosec" / ".installed").touch()
    assert missing(("fastapi", "mosec"), tmp_path) == ["fastapi"]


def test_every_peer_has_a_lock_file_with_the_runtime_and_tokenizer_that_we_serve_with() -> None:
    folder = Path(__file__).parents[2] / "requirements"

    def pins(name: str) -> set[str]:
        lines = (folder / f"{name}.txt").read_text(encoding="utf-8").splitlines()
        found = {line.partition(" ")[0] for line in lines if "==" in line.partition(" ")[0]}
        return {pin for pin in found if pin.partition("==")[0] in ("numpy", "onnxruntime", "tokenizers")}

    assert len(pins("serve")) >= 3
    for name in NAMES:
        assert pins(f"peers-{name}") == pins("serve")


@pytest.mark.alone
@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_a_real_peer_answers_and_ends(peer: Peer, tmp_path: Path) -> None:
    require_peers()
    repository = bundled_repository()
    (onnx,) = repository.glob("*_encoder_int8/1/model.onnx")
    (tokenizer,) = repository.glob("tokenizer_*/1/tokenizer.json")
    texts = ["This pizza is great!", "A dull and endless film.", "Not bad", "word " * 700] * 12
    model = PeerModel(onnx, tokenizer, LABELS, 512)
    with running_peer(peer, model, ENVIRONMENTS, tmp_path / "work") as running:
        family = psutil.Process(running.pid).children(recursive=True)
        found = answers(running.target, texts)
        assert all(list(each) == list(LABELS) for each in found)
        assert found[0]["POSITIVE"] > 0.9 > 0.1 > found[1]["POSITIVE"]
        sample = over_http(running.target, texts, 8, 0.5)
        assert sample["rate"] > 0
        assert ProcessTree(running.pid).cpu_s() > 0
    _, alive = psutil.wait_procs(family, timeout=5)
    assert not alive
    # Its log, and no temporary files.
    assert [file.name for file in (tmp_path / "work").iterdir()] == ["log"]
    assert {"onnxruntime", "tokenizers", peer.environment} <= set(
        package_versions(peer.environment, ENVIRONMENTS)
    )
