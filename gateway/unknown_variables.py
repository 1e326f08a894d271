"""Environment variables that look like settings and are none: typing errors, mostly."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

from gateway.settings import Settings, variable


def unknown_variables(names: Iterable[str]) -> list[str]:
    """Describe each of the environment variables ``names`` that looks like a setting and is none.

    They are no reason not to start: for a Service called gateway, Kubernetes itself sets a few.
    """
    known = [variable((field,)) for field in Settings.model_fields]
    unknown = sorted({name.upper() for name in names if name.upper().startswith("GATEWAY_")} - {*known})
    return [_with_hint(name, get_close_matches(name, known, n=1, cutoff=0.85)) for name in unknown]


def _with_hint(name: str, close: list[str]) -> str:
    return f"{name} (did you mean {close[0]}?)" if close else name
