"""Receiving the messages of calls: time limits, and decompression within a bound."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from gateway.decompression import Coding, decompress
from gateway.domain.errors import DeadlineExceeded, MalformedBody, Overloaded
from gateway.inference_protocol.grpc.call import Call
from gateway.inference_protocol.grpc.operations import CANCELLATION_S, Context, Operations

MOST_REQUESTS = 256
"""Of one stream without a token; clients ask for a file or two for each service."""
_CODINGS = {b"\x1f\x8b": Coding.GZIP, b"\x78": Coding.DEFLATE}
"""By the first bytes, none of which can begin a message of these services."""


class MessageReceiver:
    """Receives serialized messages.

    Args:
        operations: reads them.
        max_message_bytes: bound of a message after decompression.
        timeout_s: how long a message may take to arrive.
    """

    def __init__(self, operations: Operations, max_message_bytes: int, timeout_s: float) -> None:
        self._operations = operations
        self._max_message_bytes = max_message_bytes
        self._timeout_s = timeout_s

    async def receive(self, call: Call, context: Context) -> bytes:
        """Return the message of a unary call.

        Raises:
            DeadlineExceeded: it did not arrive in time, or the client's own deadline is over.
            MalformedBody: there is none, or it is compressed and damaged.
            BodyTooLarge: it is too large after decompression.
        """
        if call.patience_s is not None and call.patience_s <= 0:
            raise DeadlineExceeded
        raw = await self._operations.read(context, self._timeout_s)
        if not isinstance(raw, bytes):
            # So it is when the client has cancelled the call, too; gRPC cancels this task a moment later.
            await asyncio.sleep(CANCELLATION_S)
            raise MalformedBody("the call has no message")
        return self.decompress(raw)

    async def receive_all(self, context: Context) -> AsyncIterator[bytes]:
        """Yield the messages of a stream, up to `MOST_REQUESTS`.

        Raises:
            DeadlineExceeded: the next one did not arrive in time.
            Overloaded: there are more; the client may open another stream.
            MalformedBody: one is compressed and damaged.
            BodyTooLarge: one is too large after decompression.
        """
        for _ in range(MOST_REQUESTS):
            raw = await self._operations.read(context, self._timeout_s)
            if not isinstance(raw, bytes):
                return
            yield self.decompress(raw)
        if isinstance(await self._operations.read(context, self._timeout_s), bytes):
            raise Overloaded

    def decompress(self, raw: bytes) -> bytes:
        """Return a message as it was before its client compressed it, if it did.

        Raises:
            MalformedBody: it is damaged.
            BodyTooLarge: it is too large after decompression.
        """
        coding = next((coding for start, coding in _CODINGS.items() if raw.startswith(start)), None)
        return raw if coding is None else decompress(raw, coding, self._max_message_bytes)
