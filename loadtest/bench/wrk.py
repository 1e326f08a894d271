"""wrk as the load generator: it leaves more of the shared cores to the server than Python does."""

from __future__ import annotations

import math
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from loadtest.bench.figures import Sample
from loadtest.client import LoadError, NoAnswerError, Target

# Each thread has variables of its own; `setup` runs in the main one, just before the thread's `init`.
_SCRIPT = """
local requests = {
%(requests)s
}
local threads = 0
function setup(thread)
  thread:set("number", threads)
  threads = threads + 1
end
function init(args)
  place = math.floor(number * #requests / %(threads)d)
end
function request()
  place = place %% #requests + 1
  return requests[place]
end
function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format("tritonflare requests=%%d us=%%d status=%%d socket=%%d p50=%%.0f p99=%%.0f\\n",
    summary.requests, summary.duration, errors.status,
    errors.connect + errors.read + errors.write + errors.timeout,
    latency:percentile(50), latency:percentile(99)))
end
"""
_SUMMARY = re.compile(
    r"^tritonflare requests=(\d+) us=(\d+) status=(\d+) socket=(\d+) p50=(\d+) p99=(\d+)$", re.MULTILINE
)
_TIMEOUT_S = 30


def find_wrk() -> str | None:
    """The path of wrk, if it is installed."""
    return shutil.which("wrk")


def wrk_version(program: str) -> str:
    """What wrk calls itself, such as ``4.1.0``."""
    output = subprocess.run([program, "-v"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"\d+(\.\d+)+", output)
    return found[0] if found else "unknown"


class Wrk:
    """A Load; see there. wrk counts whole seconds, so parts of one are rounded up."""

    def __init__(self, program: str) -> None:
        self._program = program

    def __call__(self, target: Target, texts: Sequence[str], connections: int, seconds: float) -> Sample:
        """Run wrk to its end; it walks through the texts on all of its connections together."""
        threads = threads_for(connections, len(os.sched_getaffinity(0)))
        duration = max(1, math.ceil(seconds))
        with tempfile.TemporaryDirectory(prefix="tritonflare_bench_") as folder:
            script = Path(folder) / "walk.lua"
            script.write_bytes(lua_script([target.request(text) for text in texts], threads))
            command = [self._program, f"-t{threads}", f"-c{connections}", f"-d{duration}"]
            command += ["--timeout", f"{_TIMEOUT_S}s", "-s", str(script)]
            finished = subprocess.run(
                [*command, target.url + target.path],
                capture_output=True,
                text=True,
                check=False,
                timeout=duration + 2 * _TIMEOUT_S,
            )
        if finished.returncode != 0:
            raise LoadError(f"wrk failed: {(finished.stderr or finished.stdout).strip()[:200]}")
        return read_summary(finished.stdout)


def threads_for(connections: int, cores: int) -> int:
    """As many as there are cores, if that shares the connections out evenly: wrk drops those left over."""
    return next(count for count in range(min(connections, cores), 0, -1) if connections % count == 0)


def lua_script(requests: Sequence[bytes], threads: int) -> bytes:
    """The script that sends these requests in turn; each thread begins at another place."""
    return (_SCRIPT % {"requests": ",\n".join(map(_lua_string, requests)), "threads": threads}).encode()


def _lua_string(request: bytes) -> str:
    """The same bytes in Lua's notation: special characters as decimal escapes."""
    plain = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 .,:;/{}@_-"
    return '"' + "".join(chr(byte) if byte in plain else f"\\{byte:03d}" for byte in request) + '"'


def read_summary(output: str) -> Sample:
    """The result in our script's last line.

    Raises:
        NoAnswerError: none came in time.
        LoadError: an answer was not 2xx or 3xx, a connection failed, or there is no such line.
    """
    found = _SUMMARY.search(output)
    if found is None:
        raise LoadError("wrk printed no result")
    requests, duration_us, status, socket, p50_us, p99_us = map(int, found.groups())
    if status or socket:
        raise LoadError(f"{status} of {requests} answers were errors, and {socket} connections failed")
    if not requests:
        raise NoAnswerError("no request was answered in time; give --seconds more")
    return {
        "rate": requests / duration_us * 1e6,
        "texts": requests,
        "p50_ms": p50_us / 1000,
        "p99_ms": p99_us / 1000,
    }
