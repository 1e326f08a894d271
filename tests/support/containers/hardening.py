"""What the engine and the kernel report of a container's rights, files and connections."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from tests.support.containers.engine import Engine

_ASK = """
import concurrent.futures, json, socket, sys
def ask(address):
    host, port = address.rsplit(":", 1)
    try:
        with socket.create_connection((host, int(port)), 2) as connection:
            connection.sendall(b"GET /metrics HTTP/1.1\\r\\nHost: test\\r\\n\\r\\n")
            return connection.recv(4096)[:12].decode("latin-1")
    except OSError:
        return ""
with concurrent.futures.ThreadPoolExecutor(16) as pool:
    print(json.dumps(dict(zip(sys.argv[1:], pool.map(ask, sys.argv[1:])))))
"""
HTTP_OK = "HTTP/1.1 200"
HTTP2_SETTINGS = "\0\0\x18\x04"
"""How a gRPC server of Triton's begins."""


def answers_in(engine: Engine, container: list[str], *addresses: str) -> dict[str, str]:
    """Ask each HOST:PORT for /metrics by HTTP/1.1, from a container.

    Whether a connection can be made says little: a router may accept all of them.

    Args:
        engine: where the container runs.
        container: arguments of docker that end in its name or image, such as ``["exec", NAME]``.
        addresses: HOST:PORT each.

    Returns:
        The first 12 bytes of each answer as Latin-1; empty without an answer within 2 s.
    """
    return dict(json.loads(engine.docker(*container, "python3", "-c", _ASK, *addresses)))


def answers_here(*addresses: str) -> dict[str, str]:
    """The same from this process's network."""
    command = [sys.executable, "-c", _ASK, *addresses]
    return dict(json.loads(subprocess.run(command, capture_output=True, check=True).stdout))


def process_status(engine: Engine, container: str) -> dict[str, str]:
    """/proc/1/status in a running container."""
    lines = engine.docker("exec", container, "cat", "/proc/1/status").splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def users(engine: Engine, container: str) -> set[str]:
    """The numbers of the users that a running container's processes run as."""
    return set(engine.docker("top", container, "-eo", "pid,uid").split()[3::2])


def written_files(engine: Engine, container: str) -> list[str]:
    """What `docker diff` lists: paths outside of tmpfs and volumes, without the engine's own mount points."""
    mounts = {mount["Destination"] for mount in engine.inspect(container)["Mounts"]}
    mounts |= {"/sbin/docker-init", "/usr/sbin/docker-init"}
    made = mounts | {str(parent) for mount in mounts for parent in Path(mount).parents}
    lines = engine.docker("diff", container).splitlines()
    return [line for line in lines if line.partition(" ")[2] not in made]


def texts_in_images(engine: Engine, images: list[str], texts: set[str]) -> set[str]:
    """Those of ``texts`` (shorter than 256 bytes) that stand in a layer, the configuration or the history."""
    return _texts_in(engine.output("save", *images), texts)


def build_context(engine: Engine, folder: Path) -> bytes:
    """The files of ``folder`` that a build gets, as a tar archive."""
    build = ["build", "--file=-", "--output=type=tar,dest=-", str(folder)]
    return b"".join(engine.output(*build, stdin=b"FROM scratch\nCOPY . /\n"))


def _texts_in(pieces: Iterable[bytes], texts: set[str]) -> set[str]:
    found: set[str] = set()
    end = b""
    for piece in pieces:
        both = end + piece
        found |= {text for text in texts if text.encode() in both}
        end = piece[-256:]
    return found
