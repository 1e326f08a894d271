"""How calls end: with a response, or with the status of an error."""

from __future__ import annotations

import asyncio

from gateway.domain.errors import DeadlineExceeded, TritonflareError
from gateway.inference_protocol.grpc.call import Call
from gateway.inference_protocol.grpc.operations import CANCELLATION_S, Context
from gateway.inference_protocol.grpc.protobuf import Message
from gateway.inference_protocol.grpc.statuses import status_of


async def conclude(context: Context, outcome: Message | TritonflareError, call: Call) -> None:
    """Set the end of a unary call.

    Raises:
        grpc.aio.AbortError: the outcome is an error.
    """
    if isinstance(outcome, DeadlineExceeded) and call.patience_s is not None:
        # The client ends the call itself; a status that it no longer reads leaks (`Operations`).
        await asyncio.sleep(CANCELLATION_S)
    if isinstance(outcome, TritonflareError):
        await abort(context, outcome, call)
    context.set_trailing_metadata(call.identity())


async def abort(context: Context, error: TritonflareError, call: Call) -> None:
    """End a call with an error.

    Raises:
        grpc.aio.AbortError: always.
    """
    status = status_of(error)
    await context.abort(status.code, status.message, (*status.trailing_metadata, *call.identity()))
