"""Hides an ``Upgrade`` header from the parser, which would stop before the body.

Java's client offers h2c on every clear-text request, and a server may ignore that (RFC 9110, section 7.8).
A JSON body cannot be hit: a raw line break inside a string is not JSON.
"""

from __future__ import annotations

import re

_UPGRADE = re.compile(rb"(?<=\r\n)upgrade:", re.IGNORECASE)
# As long as what it replaces, so that nothing moves.
_IGNORED = b"ignored:"
# A line of a head that may become an Upgrade; the empty line that ends a head may not.
_PERHAPS_UPGRADE = re.compile(rb"(?<!\r\n)\r(?:\n(?:u(?:p(?:g(?:r(?:a(?:de?)?)?)?)?)?)?)?\Z", re.IGNORECASE)
_LONGEST_HELD = len(b"\r\nupgrade")


def hide_upgrade(data: bytes) -> tuple[bytes, bytes]:
    """Return ``data`` without offers to upgrade, and its end apart if that may begin one.

    Inside a head the end has to wait for what comes next; elsewhere it is what it is.
    """
    if b"upgrade" in data.lower():
        data = _UPGRADE.sub(_IGNORED, data)
    perhaps = _PERHAPS_UPGRADE.search(data, max(0, len(data) - _LONGEST_HELD))
    return (data, b"") if perhaps is None else (data[: perhaps.start()], perhaps[0])
