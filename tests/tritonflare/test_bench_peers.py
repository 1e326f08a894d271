"""The option ``--peers`` of ``tritonflare bench``, as far as it needs no server."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from loadtest.bench.peers import servers, ways
from tests.support.servers import finished
from tests.tritonflare.test_makefile import make, stand_in
from tritonflare import bench, bench_peers
from tritonflare.bench_peers import running_peers
from tritonflare.bench_stack import numbers_set


def test_the_command_knows_the_peers_and_their_section() -> None:
    assert bench_peers.NAMES == servers.NAMES
    assert bench.PEERS_SECTION == ways.SECTION
    assert bench.PEERS_SECTION not in bench.SECTIONS


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--peers", "mosec,torchserve"), "torchserve: known are fastapi, mosec"),
        (("--sections", "http,peer"), "peer: known are ceiling"),
        (("--sections", "http,peers"), "--sections peers needs --peers fastapi,mosec"),
        (("--tokens", "200"), "--tokens is for --sections peers alone"),
        (("--tokens", "200", "--sections", "http"), "--tokens is for --sections peers alone"),
        (("--tokens", "9"), "9 is not in the range 10<=x<=512"),
    ],
)
def test_a_wrong_peer_is_a_usage_error(options: tuple[str, str], words: str) -> None:
    status, output = finished("bench", *options, COLUMNS="200")
    assert (status, words in output) == (2, True), output


@pytest.mark.parametrize("command", ["bench", "bench-rerank"])
def test_a_missing_environment_is_named_with_the_target_that_installs_it(
    tmp_path: Path, command: str
) -> None:
    (tmp_path / ".venv-peers" / "fastapi").mkdir(parents=True)
    (tmp_path / ".venv-peers" / "fastapi" / ".installed").touch()
    status, output = finished(command, "--peers", "fastapi,mosec", TRITONFLARE_HOME=str(tmp_path))
    assert status == 1
    assert output == (
        "Error: not installed: mosec; run `make peers-env PEERS=fastapi,mosec`, "
        "or `make bench-peers`, which installs them and measures.\n"
    )


def test_the_document_says_what_the_environment_sets_and_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("GATEWAY_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")
    monkeypatch.setenv("GATEWAY_CALL_SLOTS", "4")
    monkeypatch.setenv("GATEWAY_API_TOKENS", "secret")
    assert numbers_set() == {"GATEWAY_CALL_SLOTS": "4", "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}


def test_without_peers_nothing_is_started(tmp_path: Path) -> None:
    with running_peers((), None, (), tmp_path) as running:  # type: ignore[arg-type]
        assert running is None
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("given", ["fastapi,mosec", "mosec"])
def test_make_installs_the_peers_and_measures_them_in_five_rounds(tmp_path: Path, given: str) -> None:
    stand_in(tmp_path)
    for name in given.split(","):
        (tmp_path / "peers" / name).mkdir(parents=True)
        (tmp_path / "peers" / name / ".installed").touch()
    arguments = [] if given == "fastapi,mosec" else [f"PEERS={given}"]
    done = make(tmp_path, "bench-peers", *arguments, f"PEERS_VENV={tmp_path / 'peers'}", "ARGS=--load own")
    command = done.stdout.partition(" GATEWAY_GRPC_PORT=")[0]
    assert (done.returncode, command, done.stderr) == (
        0,
        f"bench --sections peers --peers {given} --rounds 5 --seconds 2 --load own",
        "",
    )
