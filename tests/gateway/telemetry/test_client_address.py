"""The address of a client: of the peer, or from X-Forwarded-For of trusted proxies."""

from __future__ import annotations

import pytest

from gateway.addresses import networks
from gateway.server.message import Address, HttpRequest
from gateway.telemetry.client_address import ClientAddress

PROXY: Address = ("127.0.0.1", 40000)
PROXIES = ClientAddress(networks("127.0.0.1, ::1, 10.0.0.0/8, 2001:db8:1::/48"))


def request_from(peer: Address | None, *forwarded: str) -> HttpRequest:
    headers = [(b"x-forwarded-for", value.encode("latin-1")) for value in forwarded]
    return HttpRequest("GET", "/", headers=[(b"host", b"a"), *headers], client=peer)


@pytest.mark.parametrize("trusted", [ClientAddress(), ClientAddress(networks("10.0.0.0/8"))])
def test_the_header_of_an_untrusted_peer_is_ignored(trusted: ClientAddress) -> None:
    assert trusted.of_request(request_from(PROXY, "203.0.113.9")) == "127.0.0.1"


@pytest.mark.parametrize(
    ("forwarded", "found"),
    [
        ([], "127.0.0.1"),
        (["203.0.113.9"], "203.0.113.9"),
        (["198.51.100.1, 203.0.113.9"], "203.0.113.9"),
        (["198.51.100.1, 203.0.113.9, 10.1.2.3,10.0.0.1"], "203.0.113.9"),
        (["198.51.100.1", "203.0.113.9", "10.1.2.3"], "203.0.113.9"),
        (["10.1.2.3, 10.0.0.1"], "10.1.2.3"),
        (["203.0.113.9:65535"], "203.0.113.9"),
        (["2001:db8::9"], "2001:db8::9"),
        (["[2001:DB8::9]"], "2001:db8::9"),
        (["[2001:db8::9]:443, [2001:db8:1::1]:443"], "2001:db8::9"),
        (["::ffff:203.0.113.9, ::ffff:10.0.0.1"], "203.0.113.9"),
        (["fe80::1%eth0"], "fe80::1"),
        (["no address, 203.0.113.9"], "203.0.113.9"),
    ],
)
def test_the_right_most_address_that_is_not_a_trusted_proxy_is_the_client(
    forwarded: list[str], found: str
) -> None:
    assert PROXIES.of_request(request_from(PROXY, *forwarded)) == found


@pytest.mark.parametrize(
    "forwarded",
    [
        "", "unknown", "_hidden", "203.0.113", "203.0.113.9:", "203.0.113.9:x", "203.0.113.9:123456",
        "203.0.113.09", "[203.0.113.9]", "[2001:db8::9", "2001:db8::9]:1", "[]", "[2001:db8::9]x",
        "198.51.100.1,", "for=203.0.113.9", "198.51.100.1, unknown, 10.0.0.1", "²03.0.113.9", "0xcb007109",
        "3405803785",
    ],
)  # fmt: skip
def test_a_malformed_header_gives_the_address_of_the_peer(forwarded: str) -> None:
    assert PROXIES.of_request(request_from(PROXY, forwarded)) == "127.0.0.1"


def test_an_ipv4_peer_of_an_ipv6_socket_is_an_ipv4_address() -> None:
    assert PROXIES.of_peer(("::ffff:203.0.113.9", 1)) == "203.0.113.9"
    assert PROXIES.of_request(request_from(("::ffff:127.0.0.1", 1), "203.0.113.9")) == "203.0.113.9"


def test_the_zone_of_a_link_local_peer_is_left_out() -> None:
    assert PROXIES.of_peer(("fe80::1%eth0", 1)) == "fe80::1"


@pytest.mark.parametrize("peer", [None, ""])
def test_a_peer_without_an_address_has_none(peer: Address | None) -> None:
    assert PROXIES.of_peer(peer) is None
    assert PROXIES.of_request(request_from(peer, "203.0.113.9")) is None


@pytest.mark.timeout(5)
@pytest.mark.parametrize("part", [" ", ":", "[", "1", "1:", "[:", "]", ","])
def test_a_long_malformed_header_is_read_in_linear_time(part: str) -> None:
    assert PROXIES.of_request(request_from(PROXY, part * 30_000 + "x[")) == "127.0.0.1"
