"""Which texts share a queue and a call: those of similar length, so that none is padded to a long one."""

from __future__ import annotations

from gateway.domain.catalogue import Model
from gateway.domain.inputs import ModelInput, Window

CALL_BYTES = 16 * 1024
"""Most text in one call, unless a single text is longer: six of the longest that are read whole."""
LONG_BYTES_PER_TOKEN = 4
"""Texts above this size for each token that the model reads are long; most of them are truncated."""
SHORT_BYTES = 64
"""Texts up to this size count as equally long."""


def length_class(data: ModelInput, model: Model) -> int:
    """Return 0 for a short text, 1 for a long and 2 for a very long one.

    Each class has queues and slots of its own, so that short texts never wait for long ones. A window belongs
    to the class of its text: Triton is sent the text, and reads it up to the window.
    """
    size = len(data.text if isinstance(data, Window) else data)
    return (size > LONG_BYTES_PER_TOKEN * model.max_tokens) + (size > CALL_BYTES)


def may_share(first: ModelInput, data: ModelInput) -> bool:
    """Tell whether two inputs may be in one call: a window only with windows of the same text.

    That text is sent and read once then, and a call holds no more than one text that is not small.
    """
    if isinstance(first, Window):
        return isinstance(data, Window) and data.text == first.text
    return not isinstance(data, Window)


class CallGroup:
    """The sizes that may join the first text of a call.

    Args:
        first: size of the first text, in bytes.
        ratio: largest ratio between the first text of a call and any other, either way.
    """

    __slots__ = ("_least", "_most", "_room")

    def __init__(self, first: int, ratio: float) -> None:
        self._least = first / ratio
        self._most = max(first, SHORT_BYTES) * ratio
        self._room = CALL_BYTES - first

    def accepts(self, size: int) -> bool:
        """Tell whether a text of ``size`` bytes joins the call, and reserve the room for it if so."""
        if size > self._room or size > self._most or max(size, SHORT_BYTES) < self._least:
            return False
        self._room -= size
        return True
