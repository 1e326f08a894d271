"""ModelStreamInfer, and the end of streams and watchers when the gateway stops."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2

from tests.support.fake_triton import FakeTriton, hold, read_texts
from tests.support.grpc_calls import (
    AUTHORIZED,
    failure,
    grpc_stubs,
    infer_request,
    outputs_of,
    retry_delay_s,
)
from tests.support.harness import Running, running_gateway, settings_for, until, until_in_flight

CODE = grpc.StatusCode


def request(number: int, **changes: Any) -> Any:
    made = infer_request(f"text {'word ' * number}", **changes)
    made.id = str(number)
    return made


async def test_responses_come_in_order_and_errors_in_band(triton: FakeTriton) -> None:
    async def slow_first(call: Any, _: Any) -> None:
        await asyncio.sleep(0.2 if read_texts(call) == [b"text "] else 0)

    triton.infer_fault = slow_first
    async with (
        running_gateway(settings_for(triton, grpc_port=0, call_slots=4)) as running,
        grpc_stubs(running.grpc_port) as stubs,
    ):
        stream = stubs.inference.ModelStreamInfer(metadata=AUTHORIZED)
        for number in range(8):
            await stream.write(request(number, model="nothing") if number == 3 else request(number))
        await stream.done_writing()
        responses = [response async for response in stream]
        assert await stream.code() is CODE.OK
    assert [response.infer_response.id for response in responses] == [str(number) for number in range(8)]
    assert responses[3].error_message == "No such model nothing or task"
    counts = [
        outputs_of(found.infer_response)["token_count"] for found in responses if not found.error_message
    ]
    assert counts == [(number + 3,) for number in range(8) if number != 3]


async def test_damaged_messages_leave_a_stream_open(triton: FakeTriton) -> None:
    async with (
        running_gateway(settings_for(triton, grpc_port=0)) as running,
        grpc_stubs(running.grpc_port) as stubs,
    ):
        raw: Any = stubs.channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")
        stream = raw(metadata=AUTHORIZED)
        await stream.write(b"\xff\xff")
        assert b"not of the method's type" in await stream.read()
        await stream.write(request(1).SerializeToString())
        assert b"POSITIVE" in await stream.read()
        await stream.done_writing()
        assert await stream.read() == grpc.aio.EOF


async def test_an_empty_stream_ends(triton: FakeTriton) -> None:
    async with (
        running_gateway(settings_for(triton, grpc_port=0)) as running,
        grpc_stubs(running.grpc_port) as stubs,
    ):
        stream = stubs.inference.ModelStreamInfer(metadata=AUTHORIZED)
        await stream.done_writing()
        assert await stream.read() == grpc.aio.EOF
        assert await stream.code() is CODE.OK


async def stopped(running: Running, within_s: float) -> None:
    running.stop.set()
    await asyncio.wait_for(running.task, within_s)


async def test_idle_streams_and_watchers_do_not_hold_up_a_stop(triton: FakeTriton) -> None:
    settings = settings_for(triton, grpc_port=0, drain_timeout_s=20)
    async with running_gateway(settings) as running, grpc_stubs(running.grpc_port) as stubs:
        stream = stubs.inference.ModelStreamInfer(metadata=AUTHORIZED)
        await stream.write(request(1))
        assert (await stream.read()).error_message == ""
        watcher = stubs.health.Watch(health_pb2.HealthCheckRequest())
        assert (await watcher.read()).status == health_pb2.HealthCheckResponse.SERVING
        await stopped(running, 3)
        assert await stream.code() is CODE.UNAVAILABLE
        assert await watcher.code() in (CODE.UNAVAILABLE, CODE.CANCELLED)


@pytest.mark.parametrize("half_closes", [True, False])
async def test_requests_of_a_stream_that_were_read_are_answered_before_a_stop(
    triton: FakeTriton, half_closes: bool
) -> None:
    release = asyncio.Event()
    triton.infer_fault = hold(release)
    async with (
        running_gateway(settings_for(triton, grpc_port=0)) as running,
        grpc_stubs(running.grpc_port) as stubs,
    ):
        stream = stubs.inference.ModelStreamInfer(metadata=AUTHORIZED)
        for number in range(3):
            await stream.write(request(number))
        await until_in_flight(running.client, 3)
        stopping = asyncio.create_task(stopped(running, 10))
        await asyncio.sleep(0.3)
        release.set()
        assert [(await stream.read()).infer_response.id for _ in range(3)] == ["0", "1", "2"]
        if half_closes:
            await stream.done_writing()
            assert await stream.read() == grpc.aio.EOF
            assert await stream.code() is CODE.OK
        else:
            error = await failure(stream.read())
            assert error.code() is CODE.UNAVAILABLE
            assert error.details() == "The gateway is shutting down, please try again."
            assert retry_delay_s(error) == 1
        await stopping


async def test_busy_callers_lose_no_call_to_a_stop(triton: FakeTriton) -> None:
    async with running_gateway(settings_for(triton, grpc_port=0)) as running:
        answered, ended = [0] * 8, []

        async def caller(place: int) -> None:
            async with grpc_stubs(running.grpc_port) as stubs:
                while True:
                    try:
                        await stubs.infer("a")
                    except grpc.aio.AioRpcError as error:
                        ended.append((error.code(), error.details()))
                        return
                    answered[place] += 1

        callers = [asyncio.create_task(caller(place)) for place in range(8)]

        async def busy() -> bool:
            return min(answered) > 5

        await until(busy)
        await stopped(running, 10)
        await asyncio.gather(*callers)
    # Each found the port closed; none lost a call that it had sent.
    assert all(found is CODE.UNAVAILABLE and "refused" in (details or "") for found, details in ended), ended
