"""Hub ids, against a hub of our own on a loopback port, and with none at all."""

from __future__ import annotations

import http.server
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from export.checkpoint import load_checkpoint, resolve_source
from export.errors import CheckpointError
from tests.support.small_checkpoints import write_checkpoint

ROOT = Path(__file__).parents[2]
COMMIT = "0123456789abcdef0123456789abcdef01234567"
SECRET = "hf_secretsecretsecret"


class Hub:
    """As much of the hub's interface as a download needs."""

    def __init__(self, root: Path) -> None:
        self.requests: list[str] = []
        self.tokens: set[str | None] = set()
        hub = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self.answer(body=False)

            def do_GET(self) -> None:
                self.answer(body=True)

            def answer(self, *, body: bool) -> None:
                hub.requests.append(self.path)
                hub.tokens.add(self.headers.get("Authorization"))
                status, code, content = hub.look_up(root, self.path.split("?")[0])
                self.send_response(status)
                self.send_header("X-Repo-Commit", COMMIT)
                self.send_header("ETag", f'"{len(content)}"')
                self.send_header("Content-Length", str(len(content)))
                if code:
                    self.send_header("X-Error-Code", code)
                self.end_headers()
                if body:
                    self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    @staticmethod
    def look_up(root: Path, path: str) -> tuple[int, str, bytes]:
        """Status, the hub's error code, content."""
        parts = path.strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            name, revision = "/".join(parts[2:4]), parts[5] if parts[4:5] == ["revision"] else "main"
            if name == "acme/gated":
                return 403, "GatedRepo", b"{}"
            if name == "acme/broken":
                return 418, "", b"{}"
            if not (root / name).is_dir():
                return 401, "RepoNotFound", b"{}"
            if revision not in ("main", COMMIT):
                return 404, "RevisionNotFound", b"{}"
            files = sorted(file.name for file in (root / name).iterdir())
            if parts[4:5] == ["tree"]:
                tree = [
                    {"type": "file", "path": f, "size": (root / name / f).stat().st_size, "oid": f}
                    for f in files
                ]
                return 200, "", json.dumps(tree).encode()
            info = {"id": name, "sha": COMMIT, "siblings": [{"rfilename": file} for file in files]}
            return 200, "", json.dumps(info).encode()
        file = root / "/".join(parts[:2]) / parts[-1]
        return (200, "", file.read_bytes()) if file.is_file() else (404, "EntryNotFound", b"")


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    running = Hub(tmp_path / "hub")
    yield running
    running.server.shutdown()
    running.server.server_close()
    running.thread.join()


def resolve(
    tmp_path: Path, endpoint: str, *arguments: object, function: str = "resolve_source"
) -> tuple[int, str, float]:
    """Exit code, output and seconds of a function; the hub's library reads its settings at import."""
    code = (
        "import sys\nfrom export.checkpoint import source\nfrom export.errors import ExportError\n"
        f"try:\n    print(source.{function}(*{arguments!r}))\n"
        "except ExportError as error:\n    print(error)\n    sys.exit(error.exit_code)\n"
    )
    environment = {
        **os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "home"), "HF_TOKEN": SECRET,
        "PYTHONPATH": str(ROOT), "NO_PROXY": "127.0.0.1",
    }  # fmt: skip
    environment.pop("HF_HUB_OFFLINE", None)
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode in (0, 2), done.stderr
    assert SECRET not in done.stdout + done.stderr
    assert "http" not in done.stdout + done.stderr
    return done.returncode, done.stdout.strip(), time.monotonic() - started


def test_a_folder_is_itself(tmp_path: Path) -> None:
    assert resolve_source(str(tmp_path)) == tmp_path


@pytest.mark.parametrize("source", ["no-such-folder", "/no/such/folder", "./a/b", "a/b/c", "../a", "~/x"])
def test_what_is_neither_folder_nor_hub_id_is_refused(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path / "sub")
    with pytest.raises(CheckpointError, match="there is no folder"):
        resolve_source(source)


def test_a_file_is_not_a_folder(tmp_path: Path) -> None:
    (tmp_path / "config.json").touch()
    with pytest.raises(CheckpointError, match="is a file"):
        resolve_source(str(tmp_path / "config.json"))


def test_a_hub_id_is_downloaded_without_its_pickles_and_then_works_offline(hub: Hub, tmp_path: Path) -> None:
    source = write_checkpoint(tmp_path / "hub" / "acme" / "mood", labels=3)
    (source / "pytorch_model.bin").write_bytes(b"pickle")
    (source / "modeling_mood.py").write_text("raise SystemExit")
    status, output, _ = resolve(tmp_path, hub.address, "acme/mood")
    assert status == 0, output
    folder = Path(output.splitlines()[-1])
    checkpoint = load_checkpoint(folder)
    assert (checkpoint.name, len(checkpoint.labels)) == ("acme/mood", 3)
    assert sorted(file.name for file in folder.iterdir()) == [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    ]
    assert not [path for path in hub.requests if "pytorch_model" in path or ".py" in path]
    assert f"Bearer {SECRET}" in hub.tokens
    assert resolve(tmp_path, "http://127.0.0.1:9", "acme/mood")[1] == output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("acme/nothing",), "neither a folder here nor a model"),
        (("acme/gated",), "accept its terms on the hub and set HF_TOKEN"),
        (("acme/broken",), "HTTP 418"),
        (("acme/mood", "v9"), "no revision 'v9'"),
        (("acme/pickled",), "no safetensors weights"),
    ],
)
def test_what_the_hub_refuses_is_one_sentence(
    hub: Hub, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    write_checkpoint(tmp_path / "hub" / "acme" / "mood")
    pickled = write_checkpoint(tmp_path / "hub" / "acme" / "pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    status, output, _ = resolve(tmp_path, hub.address, *arguments)
    assert status == 2
    assert message in output
    assert output.count("\n") == 0


def test_the_commit_of_a_hub_id_is_known_without_a_download(hub: Hub, tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "hub" / "acme" / "mood")
    assert resolve(tmp_path, hub.address, "acme/mood", function="hub_commit")[1] == COMMIT
    assert not [path for path in hub.requests if "/resolve/" in path]
    assert not (tmp_path / "home" / "hub").exists()
    assert resolve(tmp_path, hub.address, "acme/gated", function="hub_commit")[0] == 2
    nowhere = "http://127.0.0.1:9"
    assert resolve(tmp_path, nowhere, "acme/mood", function="hub_commit")[:2] == (0, "None")
    # A whole commit says which files it means.
    assert resolve(tmp_path, nowhere, "acme/mood", COMMIT, function="hub_commit")[1] == COMMIT


@pytest.mark.parametrize("listening", [False, True])
def test_without_a_hub_it_gives_up_soon(tmp_path: Path, listening: bool) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        if listening:  # takes connections, and never says a word
            listener.listen()
        endpoint = f"http://127.0.0.1:{listener.getsockname()[1]}"
        status, output, seconds = resolve(tmp_path, endpoint, "acme/mood")
    assert status == 2
    assert "cannot be reached" in output
    assert seconds < 30
