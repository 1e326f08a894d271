"""AI Gateway's address as a Worker learns it, and options that override each other."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.api import envelope
from gateway.api.ai_gateway.options import options_of, read_request_options
from gateway.api.ai_gateway.queries import GatewayQueries
from gateway.api.context import RequestContext
from gateway.domain.errors import BadInput
from gateway.domain.options import NO_OPTIONS, CallOptions
from gateway.server.message import Header, HttpRequest

OPTIONS = st.builds(
    CallOptions,
    st.none() | st.booleans(),
    st.none() | st.integers(0, 9),
    st.none() | st.floats(0.001, 9),
)


@pytest.mark.parametrize(
    ("host", "server", "address"),
    [
        (b"gateway.example", ("10.0.0.1", 443), "gateway.example"),
        (b"[::1]:8787", ("::1", 8787), "[::1]:8787"),
        (b"workers-binding.ai", ("10.0.0.1", 8787), "10.0.0.1:8787"),
        (b"Workers-Binding.AI:80", ("::1", 8787), "[::1]:8787"),
        (None, ("10.0.0.1", 8787), "10.0.0.1:8787"),
        (None, None, "localhost"),
    ],
)
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_the_address_is_that_of_the_call(
    host: bytes | None, server: Any, address: str, scheme: str
) -> None:
    headers: list[Header] = [] if host is None else [(b"host", host)]
    http = HttpRequest("GET", "/", headers=headers, server=server)
    context = RequestContext(http, "ray", envelope.failure)
    context.account = "acc"
    context.params = {"gateway_id": "mine", "provider": "universal"}
    answer = await GatewayQueries(scheme).url(context)
    assert json.loads(answer.body)["result"] == {"url": f"{scheme}://{address}/v1/acc/mine/"}


@given(OPTIONS, OPTIONS)
def test_an_option_that_is_given_counts_before_the_same_one_below(one: CallOptions, two: CallOptions) -> None:
    both = one.over(two)
    for name in ("skip_cache", "cache_ttl_s", "patience_s"):
        first, second = getattr(one, name), getattr(two, name)
        assert getattr(both, name) == (second if first is None else first)
    assert one.over(NO_OPTIONS) == one == NO_OPTIONS.over(one)


@given(st.text(max_size=12))
def test_a_number_in_a_header_is_read_as_written_or_refused(text: str) -> None:
    try:
        seconds = options_of({"cf-aig-cache-ttl": text}).cache_ttl_s
    except BadInput:
        assert not (text.isascii() and text.isdigit() and len(text) < 10)
    else:
        assert seconds == int(text)


def test_only_the_options_are_read_and_the_last_of_a_header_counts() -> None:
    headers = [(b"cf-aig-cache-ttl", b"x"), (b"cf-aig-cache-ttl", b"7"), (b"cf-aig-metadata", b"{")]
    assert read_request_options(HttpRequest("POST", "/", headers=headers)) == CallOptions(cache_ttl_s=7)
    assert read_request_options(HttpRequest("POST", "/", headers=[(b"accept", b"*/*")])) is NO_OPTIONS
