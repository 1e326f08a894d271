"""``python -m tests.bulk.file_check``: what is promised of ``tritonflare classify``, on this machine.

rows     a CSV in cp1252 and one in UTF-8 with emoji: rows in and out, order, cells
kill     the same, killed at random moments and continued: the bytes of an undisturbed run, no row asked twice
memory   peak resident memory for 10 and for 100 MB, before a server that answers at once
rate     texts a second beside `tritonflare bench` at 128 connections, in alternating rounds

``rows`` and ``kill`` ask a Triton of their own, or with ``--fake`` a server that answers at once.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from loadtest.bench.sentences import read_sentences
from tests.support.fake_api import ACCOUNT, TOKEN, FakeApi, serving
from tests.support.files_of_texts import read_csv, write_awkward_csv
from tests.support.texts import CHECKPOINT

_ADDED = 4
_NUMBERS = re.compile(rb"\[(\d+),\[")


def main() -> None:
    """Run the checks that are named, and exit with 1 if one does not hold."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checks", nargs="+", choices=("rows", "kill", "memory", "rate"))
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--fake", action="store_true")
    options = parser.parse_args()
    os.environ["TOKEN"] = TOKEN  # for the commands that ask the fake server
    failed = False
    with tempfile.TemporaryDirectory(prefix="tritonflare_files_") as folder:
        for check in options.checks:
            held = globals()[f"check_{check}"](Path(folder), options)
            print(f"{check}: {'holds' if held else 'DOES NOT HOLD'}", flush=True)
            failed |= not held
    sys.exit(failed)


def check_rows(folder: Path, options: argparse.Namespace) -> bool:
    """Whether every row comes out once, in its place, with its cells, and with a label if it has a text."""
    held = True
    for encoding in ("cp1252", "utf-8"):
        path = folder / f"rows-{encoding}.csv"
        empty = write_awkward_csv(path, options.rows, encoding)
        with _server(options.fake) as server:
            status, seconds = _classify(path, server)
        before = read_csv(path, encoding)
        after = read_csv(path.with_suffix(".classified.csv"), encoding)
        same = [row[:-_ADDED] for row in after] == before
        labels = sum(row[-_ADDED] in ("NEGATIVE", "POSITIVE") for row in after)
        rate = options.rows / seconds
        print(
            f"{encoding}: {len(before) - 1} rows in, {len(after) - 1} out, cells and order the same: {same}, "
            f"{labels} labels, {empty} without text, exit {status}, {rate:.0f} rows/s"
        )
        held &= same and labels == options.rows - empty and status == 1
    return held


def check_kill(folder: Path, options: argparse.Namespace) -> bool:
    """Whether a run that is killed again and again ends with the bytes of one that is not."""
    path, chance = folder / "kill.csv", random.Random(options.seed)
    write_awkward_csv(path, options.rows, "cp1252")
    output = path.with_suffix(".classified.csv")
    journal = Path(f"{output}.journal")
    with _server(options.fake) as server:
        begun = time.monotonic()
        _classify(path, server)
        undisturbed_s = time.monotonic() - begun
        expected = hashlib.sha256(output.read_bytes()).hexdigest()
        same = [row[:-_ADDED] for row in read_csv(output, "cp1252")] == read_csv(path, "cp1252")
        print(f"undisturbed: {undisturbed_s:.0f} s, cells and order the same: {same}", flush=True)
        output.unlink()
        noted: list[int] = []
        for _ in range(options.kills):
            process = subprocess.Popen(_command(path, server), stderr=subprocess.DEVNULL)
            _wait_for_growth(journal)
            time.sleep(chance.random() * undisturbed_s / (options.kills + 1))
            process.send_signal(signal.SIGKILL)
            process.wait()
            numbers = journal_numbers(journal)
            noted.append(len(numbers))
            print(f"killed with {noted[-1]} rows in the journal", flush=True)
            if len(numbers) != len(set(numbers)):
                print("a row is in the journal twice: it was asked twice")
                return False
        status, _ = _classify(path, server)
    found = hashlib.sha256(output.read_bytes()).hexdigest()
    print(
        f"killed with {noted} rows in the journal; exit {status}; the same bytes: {found == expected}; "
        f"journal left: {journal.exists()}"
    )
    return same and found == expected and not journal.exists()


def check_memory(folder: Path, options: argparse.Namespace) -> bool:
    """Whether the peak for 100 MB is that for 10 MB, give or take a tenth."""
    peaks = []
    for megabytes in (10, 100):
        path = folder / f"{megabytes}.csv"
        write_awkward_csv(path, megabytes * 7400, "utf-8")
        with serving(FakeApi()) as api:
            process = subprocess.Popen(_command(path, api), stderr=subprocess.DEVNULL)
            peaks.append(_peak_mb(process))
        print(f"{path.stat().st_size / 1e6:.0f} MB: peak {peaks[-1]:.1f} MB resident", flush=True)
        path.unlink()
        path.with_suffix(".classified.csv").unlink()
    return abs(peaks[1] / peaks[0] - 1) <= 0.1


def _peak_mb(process: subprocess.Popen[bytes]) -> float:
    """Return the peak of a program's resident memory, in MB, at its end.

    What the kernel tells whoever waits for it begins with the memory of the program that started it.
    """
    peak = 0
    while process.poll() is None:
        status = Path(f"/proc/{process.pid}/status").read_text()
        if (found := re.search(r"VmHWM:\s+(\d+) kB", status)) is not None:  # none in its last moment
            peak = int(found[1])
        time.sleep(0.02)
    return peak / 1024


def check_rate(folder: Path, options: argparse.Namespace) -> bool:
    """Whether a file gets at least 0.9 of what the bench measures at 128 connections."""
    write_sentences(folder / "rate.jsonl", options.rows)
    ratios = []
    for number in range(options.rounds):
        rates = {}
        for way in ("bench", "classify")[:: 1 if number % 2 == 0 else -1]:
            rates[way] = _bench(folder) if way == "bench" else _classified(folder / "rate.jsonl")
        bench, classify = rates["bench"], rates["classify"]
        ratios.append(classify / bench)
        print(f"bench {bench:.0f}/s, classify {classify:.0f}/s: {ratios[-1]:.2f}", flush=True)
    print(f"median {statistics.median(ratios):.2f}")
    return statistics.median(ratios) >= 0.9


def write_sentences(path: Path, rows: int) -> None:
    """Write the bench's sentences as JSON Lines."""
    sentences = read_sentences(CHECKPOINT / "heldout.tsv")
    lines = [json.dumps({"text": sentences[number % len(sentences)]}) for number in range(rows)]
    path.write_text("\n".join(lines))


def journal_numbers(journal: Path) -> list[int]:
    """Return the numbers of the rows in a journal; whole lines alone count."""
    numbers: list[int] = []
    if not journal.exists():
        return numbers
    for line in journal.read_bytes().splitlines(keepends=True)[1:]:
        if line.endswith(b"\n") and line[:9] == b"%08x " % zlib.crc32(line[9:-1]):
            numbers += [int(number) for number in _NUMBERS.findall(line)]
    return numbers


def _wait_for_growth(journal: Path) -> None:
    """Wait until answers are noted, because starting takes long on a busy machine."""
    size = journal.stat().st_size if journal.exists() else 1000
    end = time.monotonic() + 120
    while time.monotonic() < end and (not journal.exists() or journal.stat().st_size <= size):
        time.sleep(0.01)


def _bench(folder: Path) -> float:
    """Return texts a second."""
    command = [sys.executable, "-m", "tritonflare", "bench", "--sections", "http", "--connections", "128"]
    command += ["--rounds", "1", "--seconds", "6", "--output", str(folder / "bench")]
    subprocess.run(command, check=True, capture_output=True)
    document = json.loads((folder / "bench" / "bench.json").read_text())
    return float(next(row["medians"]["rate"] for row in document["ways"] if row["section"] == "http"))


def _classified(path: Path) -> float:
    """Return rows a second, as the command tells them: its own start is left out."""
    done = subprocess.run([*_command(path, None), "--overwrite"], capture_output=True, text=True, check=True)
    found = re.search(r"\(([\d,]+)/s\)", done.stderr)
    return float(found[1].replace(",", "")) if found else 0.0


@contextmanager
def _server(fake: bool) -> Iterator[FakeApi | None]:
    if not fake:
        yield None
        return
    with serving(FakeApi()) as api:
        yield api


def _command(path: Path, server: FakeApi | None) -> list[str]:
    command = [sys.executable, "-m", "tritonflare", "classify", str(path)]
    if server is not None:
        command += ["--url", server.url, "--account", ACCOUNT]
    return command


def _classify(path: Path, server: FakeApi | None, more: Sequence[str] = ()) -> tuple[int, float]:
    begun = time.monotonic()
    finished = subprocess.run([*_command(path, server), *more], capture_output=True, text=True, check=False)
    if finished.returncode not in (0, 1):
        print(finished.stderr[-2000:])
    return finished.returncode, time.monotonic() - begun


if __name__ == "__main__":
    main()
