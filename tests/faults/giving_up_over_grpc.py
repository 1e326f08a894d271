"""gRPC clients that cancel about when their answers come, and deadlines of a millisecond.

``python -m tests.faults.giving_up_over_grpc MINUTES`` runs it for longer than the test does. It prints a JSON
object: statuses, restarts of Triton, and the memory of gateway and Triton in MiB over time.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import sys
import time
from collections import Counter

import grpc
import psutil
from tritonclient.grpc import service_pb2_grpc

from tests.faults.conftest import MODEL, Served, serving
from tests.support.bundled import bundled_repository
from tests.support.grpc_calls import infer_request
from tests.support.servers import TOKEN

CALLERS = 4
_SAMPLES = 10
"""Measurements of memory over the whole time."""
GAUGES = (
    "tritonflare_requests_in_flight",
    "tritonflare_queued_texts",
    "tritonflare_calls_in_flight",
    "tritonflare_calls_overdue",
)
_METADATA = (("authorization", f"Bearer {TOKEN}"),)
_GRPC = re.compile(r"^gRPC: +(\S+)", re.MULTILINE)


def grpc_address(served: Served) -> str:
    """Return the address that `tritonflare serve` has printed."""
    found = _GRPC.search(served.program.output)
    assert found is not None, served.program.output
    return found[1]


async def cancel_about_when_the_answer_comes(address: str, until: float, seen: Counter[str]) -> None:
    """Call and cancel, one after the other."""
    usual_s = 0.005
    async with grpc.aio.insecure_channel(address) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        while time.monotonic() < until:
            began = time.monotonic()
            call = stub.ModelInfer(infer_request("A joy.", model=MODEL), metadata=_METADATA)
            try:
                await asyncio.wait_for(call, usual_s * random.uniform(0.5, 1.5))
                seen["OK"] += 1
                usual_s += (time.monotonic() - began - usual_s) / 8
            except asyncio.TimeoutError:  # which cancels the call
                seen["CANCELLED"] += 1
                usual_s *= 1.02
            except grpc.aio.AioRpcError as error:
                seen[error.code().name] += 1


async def meet_short_deadlines(address: str, until: float, seen: Counter[str]) -> None:
    """Call with deadlines that cannot be met, or hardly."""
    async with grpc.aio.insecure_channel(address) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        while time.monotonic() < until:
            text = "A joy. " * random.choice((1, 1, 20, 60))
            try:
                deadline_s = random.choice((0.001, 0.001, 0.03))
                request = infer_request(text, model=MODEL)
                await stub.ModelInfer(request, metadata=_METADATA, timeout=deadline_s)
                seen["in time"] += 1
            except grpc.aio.AioRpcError as error:
                seen[error.code().name] += 1


async def give_up(served: Served, seconds: float) -> tuple[Counter[str], list[dict[str, float]]]:
    """Run all callers; return the statuses, and the memory in MiB over time and after the end."""
    seen: Counter[str] = Counter()
    until = time.monotonic() + seconds
    address = grpc_address(served)
    callers = [cancel_about_when_the_answer_comes(address, until, seen) for _ in range(CALLERS)]
    callers += [meet_short_deadlines(address, until, seen) for _ in range(CALLERS // 2)]
    running = asyncio.gather(*callers)
    memory = []
    for _ in range(_SAMPLES):
        await asyncio.sleep(seconds / _SAMPLES)
        memory.append(_memory(served))
    await running
    memory.append(_memory(served))
    return seen, memory


def gauges(served: Served) -> dict[str, float]:
    """Return how much the gateway has in progress, by the name of the gauge."""
    samples = [line.split() for line in served.get("/metrics").text.splitlines()]
    return {sample[0]: float(sample[1]) for sample in samples if sample[0] in GAUGES}


def _memory(served: Served) -> dict[str, float]:
    triton = sum(child.memory_info().rss for child in served.program.children())
    gateway = psutil.Process(served.program.process.pid).memory_info().rss
    return {"gateway": round(gateway / 2**20, 1), "triton": round(triton / 2**20, 1)}


def main() -> None:
    """Run for as many minutes as the argument says."""
    with serving(bundled_repository(), "--grpc-port", "0") as served:
        triton = served.triton()
        seen, memory = asyncio.run(give_up(served, 60 * float(sys.argv[1])))
        time.sleep(1)
        report = {
            "statuses": dict(seen),
            "same_triton": served.triton() == triton,
            "restarts": served.restarts(),
            "memory_mib": memory,
            "gauges_at_the_end": gauges(served),
        }
        sys.stdout.write(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
