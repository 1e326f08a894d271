"""Everything that can go wrong, at random, for as long as you like: ``make soak MINUTES=15 SEED=1``.

A real ``tritonflare serve`` is asked all the time; one fault follows the other, chosen by the seed, while
every answer is compared with that to its text on an undisturbed server. It ends with a report, and with
status 1 if an answer was wrong, a request hung or was dropped, serving did not come back or something leaked.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import click
import psutil

from gateway.access.tokens import hash_token
from loadtest.checks import Scores
from loadtest.closed_loop import over_http
from tests.faults.conftest import Served, serving
from tests.support.bundled import bundled_repository
from tests.support.hostile_callers import GONE, IDLE, SLOW, unwanted
from tests.support.load import HUNG, NO_ANSWER, Book, Connections, Target, load, reference
from tests.support.releases import publish_second_version
from tests.support.servers import TOKEN
from tests.support.texts import sentences

BACK_WITHIN_S = 15.0
"""From a fault to the next right answer. That of the test of a single fault is 5 s; here the one before
may have left its traces, such as the pause before another restart."""
WARM_S = 60.0
GROWTH = 1.25
"""Memory at the end may be so many times that after WARM_S."""
SHARE = 0.3
"""Of the capacity, between the faults."""


@dataclass
class Soak:
    """A server under faults, and what was seen of it."""

    served: Served
    rng: random.Random
    answers: dict[str, Scores]
    per_s: float
    published: Path
    releases: tuple[Path, Path]
    tokens: Path
    recoveries: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    problems: list[str] = field(default_factory=list)
    sizes: list[Size] = field(default_factory=list)
    """After WARM_S and at the end."""
    rotations: int = 0
    turns: int = 0

    @property
    def port(self) -> int:
        """Where the gateway listens."""
        return int(self.served.target.url.rpartition(":")[2])

    def faults(self) -> dict[str, Callable[[], Awaitable[None]]]:
        """What can happen, by name."""
        return {
            "kill tritonserver": self.kill_triton,
            "kill a stub": self.kill_stub,
            "stop tritonserver for a while": self.stop_triton,
            "publish a version": self.publish,
            "rotate a token": self.rotate,
            "slow callers": lambda: self.visit(SLOW, 300),
            "callers that hang up": lambda: self.visit(GONE, 100),
            "idle callers": lambda: self.visit(IDLE, 2000),
            "overload": self.overload,
        }

    async def kill_triton(self) -> None:
        """SIGKILL to Triton."""
        self.served.triton().kill()

    async def kill_stub(self) -> None:
        """SIGKILL to one of its python processes."""
        stubs = list(self.served.stubs().values())
        if stubs:
            self.rng.choice(stubs).kill()

    async def stop_triton(self) -> None:
        """SIGSTOP to Triton, and SIGCONT if it is still there afterwards."""
        triton = self.served.triton()
        triton.suspend()
        await asyncio.sleep(self.rng.uniform(0.5, 6))
        with suppress(psutil.NoSuchProcess):
            triton.resume()

    async def publish(self) -> None:
        """Exchange the repository for the other version, which is noticed by itself."""
        self.turns += 1
        link = self.published.with_name("next")
        link.symlink_to(self.releases[self.turns % 2])
        link.replace(self.published)
        await asyncio.sleep(8)

    async def rotate(self) -> None:
        """Exchange a token: the new one must be good soon, and the old one no longer."""
        old, new = f"rotating-{self.rotations}", f"rotating-{self.rotations + 1}"
        self.rotations += 1
        fresh = self.tokens.with_name("fresh")
        fresh.write_text(f"*:{hash_token(new)}\n", encoding="utf-8")
        fresh.replace(self.tokens)
        await asyncio.sleep(3)
        for token, refused in ((old, True), (new, False)):
            with suppress(OSError):
                if (await self.status(token) == 401) is not refused:
                    self.problems.append(f"rotation {self.rotations}: the token is {'not ' * refused}refused")

    async def status(self, token: str) -> int:
        """Of a request with a token."""
        target = Target(self.served.target.url, token, self.served.target.path)
        connections = Connections(target)
        try:
            return (await connections.exchange(target.request(next(iter(self.answers)))))[0]
        finally:
            connections.close()

    async def visit(self, kind: str, count: int) -> None:
        """Let unwanted callers in for a while."""

        def stay() -> None:
            with unwanted(kind, self.port, count, TOKEN):
                time.sleep(5)

        await asyncio.to_thread(stay)

    async def overload(self) -> None:
        """Four times the capacity for a while; these answers are compared too."""
        async with load(self.served.target, self.answers, 4 * self.per_s / SHARE, *self.others) as book:
            await asyncio.sleep(4)
        self.look_at(book, "overload")

    others: tuple[dict[str, Scores], ...] = ()
    """What is right as well: the answers of the other version."""

    def look_at(self, book: Book, what: str) -> None:
        """Find the wrong answers, hung requests and dropped ones of a load."""
        for outcome in book.wrong():
            kind = {HUNG: "hung", NO_ANSWER: "got no answer"}.get(outcome.status, "got a wrong answer")
            self.problems.append(
                f"{what}: a request at {outcome.at_s:.1f} s {kind} (status {outcome.status})"
            )

    async def run(self, seconds: float) -> Book:
        """One fault after the other."""
        names = list(self.faults())
        async with load(self.served.target, self.answers, self.per_s, *self.others) as book:
            while book.now_s() < seconds:
                await asyncio.sleep(self.rng.uniform(2, 6))
                name = self.rng.choice(names)
                click.echo(f"{book.now_s():7.1f} s  {name}")
                with suppress(StopIteration, psutil.NoSuchProcess):  # just being started anew
                    await self.faults()[name]()
                await self.recover(name, book)
        self.look_at(book, "base load")
        return book

    async def recover(self, name: str, book: Book) -> None:
        """Wait for the next right answer."""
        after_s = book.now_s()
        while book.good_again_s(after_s) > book.now_s():
            if book.now_s() > after_s + BACK_WITHIN_S:
                self.problems.append(f"{name} at {after_s:.1f} s: no right answer for {BACK_WITHIN_S:.0f} s")
                return
            await asyncio.sleep(0.1)
        self.recoveries[name].append(book.good_again_s(after_s) - after_s)


@dataclass(frozen=True)
class Size:
    """What a server has in hand."""

    memory: float
    """Resident megabytes of the gateway."""
    files: int
    processes: int

    @classmethod
    def of(cls, served: Served) -> Size:
        """Read it now."""
        own = psutil.Process(served.program.process.pid)
        family = [own, *(child for child in served.program.children() if "python" in child.name())]
        gateway = [process for process in family if not process.name().startswith("triton")]
        memory = sum(process.memory_info().rss for process in gateway) / 1e6
        return cls(memory, sum(process.num_fds() for process in gateway), len(served.program.children()))


def leaks(early: Size, late: Size) -> list[str]:
    """What has grown and should not have."""
    found = []
    if late.memory > GROWTH * early.memory:
        found.append(f"memory grew from {early.memory:.0f} to {late.memory:.0f} MB")
    if late.files > early.files + 20:
        found.append(f"open files grew from {early.files} to {late.files}")
    if late.processes != early.processes:
        found.append(f"processes went from {early.processes} to {late.processes}")
    return found


async def soak(served: Served, made: Soak, seconds: float) -> Book:
    """Run, and look for leaks once everything has come to rest."""
    processes = Size.of(served).processes
    warm = asyncio.create_task(measured(served, min(WARM_S, seconds / 3), processes))
    book = await made.run(seconds)
    await asyncio.sleep(10)
    late = Size.of(served)
    made.sizes = [await warm, late]
    made.problems += leaks(*made.sizes)
    page = served.get("/metrics").text
    in_flight = next(line for line in page.splitlines() if line.startswith("tritonflare_requests_in_flight "))
    if not in_flight.endswith(" 0.0"):
        made.problems.append(f"still counted at the end: {in_flight}")
    return book


async def measured(served: Served, after_s: float, processes: int) -> Size:
    """The size after a while, at a moment at which all processes are there: readiness lags behind."""
    await asyncio.sleep(after_s)
    while True:
        with suppress(psutil.NoSuchProcess):
            size = Size.of(served)
            if size.processes == processes and served.get("/readyz").status_code == 200:
                return size
        await asyncio.sleep(1)


def report(made: Soak, book: Book, seed: int) -> str:
    """What a reader wants to know."""
    lines = [
        f"seed {seed}: {len(book.outcomes)} requests beside the faults, {len(book.good())} right, "
        f"{len(book.refused())} refused {dict(book.statuses())}",
        *(
            f"  {name}: {len(times)} times, right answers again after {max(times):.1f} s at most"
            for name, times in sorted(made.recoveries.items())
        ),
        *(f"  {size.memory:.0f} MB, {size.files} files, {size.processes} processes" for size in made.sizes),
    ]
    if made.problems:
        lines += [f"{len(made.problems)} problems:", *(f"  {problem}" for problem in made.problems[:50])]
    else:
        lines.append("no wrong answer, no hung or dropped request, no leak")
    return "\n".join(lines)


@click.command()
@click.option("--minutes", type=float, default=15, show_default=True)
@click.option("--seed", type=int, default=1, show_default=True)
@click.option("--workers", type=int, default=1, show_default=True)
def main(minutes: float, seed: int, workers: int) -> None:
    """Run it."""
    with tempfile.TemporaryDirectory(prefix="tritonflare-soak-") as name:
        folder = Path(name)
        first, second, published = folder / "first", folder / "second", folder / "models"
        for release in (first, second):
            shutil.copytree(bundled_repository(), release)
        publish_second_version(second)
        texts = sentences()[:64]
        found = []
        for release in (first, second):
            with serving(release) as served:
                found.append(asyncio.run(reference(served.target, texts)))
                per_s = SHARE * over_http(served.target, texts, 32, 1.5)["rate"]
        published.symlink_to(first)
        tokens = folder / "tokens"
        tokens.write_text(f"*:{hash_token('rotating-0')}\n", encoding="utf-8")
        with serving(
            published, "--watch", "--workers", str(workers), GATEWAY_TOKENS_FILE=str(tokens)
        ) as served:
            rng = random.Random(seed)
            made = Soak(served, rng, found[0], per_s, published, (first, second), tokens, others=(found[1],))
            book = asyncio.run(soak(served, made, 60 * minutes))
    click.echo(report(made, book, seed))
    sys.exit(bool(made.problems))


if __name__ == "__main__":
    main()
