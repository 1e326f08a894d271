"""A stand-in for Triton in a process of its own that answers a fixed number of texts a second.

``python -m tests.support.paced_triton TEXTS_PER_S`` prints its port. One text is worked on after the other,
as if there were one device, so the capacity does not depend on who else computes on this machine.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.support.fake_triton import FakeTriton, read_texts


async def _serve(texts_per_s: float) -> None:
    triton = FakeTriton()
    loop = asyncio.get_running_loop()
    free_at = loop.time()

    async def work(request: Any, context: Any) -> None:
        nonlocal free_at
        triton.requests.clear()
        free_at = max(free_at, loop.time()) + len(read_texts(request)) / texts_per_s
        await asyncio.sleep(free_at - loop.time())

    triton.infer_fault = work
    await triton.appear()
    print(triton.port, flush=True)
    await asyncio.Event().wait()


@contextmanager
def stand_in(texts_per_s: float) -> Iterator[str]:
    """Give its address; it is gone at the end of the block."""
    command = [sys.executable, "-m", "tests.support.paced_triton", str(texts_per_s)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield f"127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.kill()


if __name__ == "__main__":
    asyncio.run(_serve(float(sys.argv[1])))
