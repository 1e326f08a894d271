"""Splitting and decoding of paths, headers, queries."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.access.authentication import authenticate
from gateway.access.tokens import TokenAccess, load_tokens
from gateway.api import envelope
from gateway.api.binding.local_development import is_local_binding
from gateway.api.context import RequestContext
from gateway.api.router import Route, Router
from gateway.domain.errors import (
    ForeignAccount,
    MalformedCredentials,
    MethodNotSupported,
    MissingCredentials,
    NoRoute,
    UnknownToken,
)
from gateway.server.message import HttpRequest, Response


async def _handler(request: RequestContext) -> Response:
    raise NotImplementedError


RUN = Route(("POST",), "/accounts/{account_id}/ai/run/{model:path}", _handler)
LIVE = Route(("GET", "HEAD"), "/live.z", _handler, api=False)
ROUTER = Router([RUN, LIVE])


def request(path: str, method: str = "POST", query: str = "", **headers: str) -> RequestContext:
    raw = [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()]
    return RequestContext(HttpRequest(method, path, query, raw), "ray", envelope.failure)


# A lone surrogate has no percent-encoding.
@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), st.booleans())
def test_any_model_name_arrives_as_it_was_meant(name: str, encode_slashes: bool) -> None:
    asked = request(f"/accounts/a/ai/run/{quote(name, safe='' if encode_slashes else '/')}")
    assert ROUTER.match(asked) is RUN
    assert asked.params == {"account_id": "a", "model": name}
    assert asked.record.route == "/accounts/{account_id}/ai/run/{model}"


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_no_account_id_reaches_into_the_next_segment(account: str) -> None:
    asked = request(f"/accounts/{quote(account, safe='')}/ai/run/m")
    ROUTER.match(asked)
    assert asked.params == {"account_id": account, "model": "m"}


@pytest.mark.parametrize(
    "path",
    ["", "/", "/accounts/a/ai/run/", "/accounts//ai/run/m", "/livexz", "/live.z/", "/accounts/a/ai%2Frun/m"],
)
def test_other_paths_have_no_route(path: str) -> None:
    asked = request(path)
    with pytest.raises(NoRoute):
        ROUTER.match(asked)
    assert asked.record.route == "none"


def test_decoding_happens_once_and_never_fails() -> None:
    for written, meant in (("%252F", "%2F"), ("%", "%"), ("%zz", "%zz"), ("%ff", "\ufffd"), ("a+b", "a+b")):
        asked = request(f"/accounts/a/ai/run/{written}")
        ROUTER.match(asked)
        assert asked.params["model"] == meant


def test_a_known_path_with_another_method_lists_those_allowed() -> None:
    asked = request("/live.z", "DELETE")
    with pytest.raises(MethodNotSupported, match=r"^DELETE not supported for requested URI\.$") as caught:
        ROUTER.match(asked)
    assert caught.value.allowed == ("GET", "HEAD")
    assert asked.api is False


def test_the_last_value_of_a_query_parameter_counts() -> None:
    assert request("/", query="a=1&a=%32&b=").http.query("a") == "2"
    assert request("/", query="a=1&b=").http.query("b") == ""
    assert request("/", query="ab=1").http.query("a") is None
    assert request("/").http.query("a") is None


TABLE = load_tokens("mine:token-1,*:token-2", None)


def check(account: str = "mine", **headers: str) -> None:
    asked = request(f"/accounts/{account}/ai/run/m", **headers)
    ROUTER.match(asked)
    authenticate(asked.http, asked.params.get("account_id"), TABLE)


def test_the_scheme_is_not_case_sensitive_and_the_token_is() -> None:
    for scheme in ("Bearer", "bearer", "BEARER", "  bEaReR "):
        check(authorization=f"{scheme} token-1")
    with pytest.raises(UnknownToken):
        check(authorization="Bearer TOKEN-1")


def test_a_token_of_any_account_opens_any_account() -> None:
    check("yours", authorization="Bearer token-2")
    with pytest.raises(ForeignAccount):
        check("yours", authorization="Bearer token-1")


def test_the_legacy_pair_counts_only_as_a_pair_and_only_without_authorization() -> None:
    check(x_auth_email="me@example.com", x_auth_key="token-1")
    with pytest.raises(MissingCredentials):
        check(x_auth_key="token-1")
    with pytest.raises(MalformedCredentials):
        check(authorization="Basic x", x_auth_email="me@example.com", x_auth_key="token-1")


@given(st.text(st.characters(max_codepoint=255)))
def test_any_authorization_header_is_refused_in_a_known_way(value: str) -> None:
    with pytest.raises((MalformedCredentials, UnknownToken)):
        check(authorization=value)


def test_two_authorization_headers_are_malformed() -> None:
    asked = request("/accounts/mine/ai/run/m")
    asked.http.all_headers = [(b"authorization", b"Bearer token-1")] * 2
    ROUTER.match(asked)
    with pytest.raises(MalformedCredentials):
        authenticate(asked.http, asked.params.get("account_id"), TABLE)


@pytest.mark.parametrize("end", ["client", "server"])
@pytest.mark.parametrize("address", [("192.0.2.1", 5), ("::ffff:192.0.2.1", 5), None])
def test_only_a_connection_from_loopback_to_loopback_is_local(end: str, address: object) -> None:
    asked = request("/run", host="127.0.0.1", mf_url="x")
    asked.http.client, asked.http.server = ("127.0.0.1", 5), ("127.0.0.1", 8787)
    assert is_local_binding(asked.http)
    setattr(asked.http, end, address)
    assert not is_local_binding(asked.http)


def test_where_no_account_is_named_any_known_token_will_do() -> None:
    assert TABLE.check("token-1", None) is TokenAccess.GRANTED
    assert TABLE.check("token-3", None) is TokenAccess.UNKNOWN_TOKEN
