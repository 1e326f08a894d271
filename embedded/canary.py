"""Ask Triton the way the gateway will, to know that it really answers."""

from __future__ import annotations

from collections.abc import Iterable
from types import TracebackType

import numpy as np
from tritonclient.grpc import InferenceServerClient, InferInput
from tritonclient.utils import InferenceServerException

from embedded.repository import Model

TEXT = "Is anyone there?"
TIMEOUT_S = 10.0
# gRPC's own back-off starts at a second, which a start-up of three would notice.
_RECONNECT = [("grpc.initial_reconnect_backoff_ms", 50), ("grpc.max_reconnect_backoff_ms", 200)]


class Canary:
    """A small client for readiness; the gateway has its own for traffic."""

    def __init__(self, address: str, key: str, secret: str) -> None:
        self._client = InferenceServerClient(address, channel_args=_RECONNECT)
        self._headers = {f"triton-grpc-protocol-{key}": secret}

    def __enter__(self) -> Canary:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def answers(self, models: Iterable[Model]) -> bool:
        """Whether the server is ready and every model has scored one text."""
        text = InferInput("TEXT", [1, 1], "BYTES")
        text.set_data_from_numpy(np.array([[TEXT]], dtype=np.object_))
        try:
            if not self._client.is_server_ready(headers=self._headers, client_timeout=TIMEOUT_S):
                return False
            for model in models:
                self._client.infer(model.ensemble, [text], headers=self._headers, client_timeout=TIMEOUT_S)
        except InferenceServerException:
            return False
        return True
