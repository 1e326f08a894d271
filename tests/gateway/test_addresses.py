"""Targets of gRPC, as people write them."""

from __future__ import annotations

import pytest

from gateway.addresses import Address, authority, networks, targets


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("127.0.0.1:8001", [("127.0.0.1", 8001)]),
        ("triton_a.example-1:8001", [("triton_a.example-1", 8001)]),
        ("dns:triton:1", [("triton", 1)]),
        ("dns:///triton:65535", [("triton", 65535)]),
        ("dns://8.8.8.8/triton:8001", [("triton", 8001)]),
        ("mydns:8001", [("mydns", 8001)]),
        ("ipv4:10.0.0.1:8001,10.0.0.2:8002", [("10.0.0.1", 8001), ("10.0.0.2", 8002)]),
        ("a:1, b:2,a:1", [("a", 1), ("b", 2)]),
        ("ipv6:[::1]:8001,[2001:db8::1]:8001", [("::1", 8001), ("2001:db8::1", 8001)]),
    ],
)
def test_a_target_is_one_address_or_several(url: str, found: list[Address]) -> None:
    assert targets(url) == found


@pytest.mark.parametrize(
    "url",
    [
        "", ":8001", "triton", "triton:", "triton:0", "triton:65536", "triton:８００１", "a:1,", "a:1,,b:2",
        "http://triton:8001", "unix:/run/triton", "xds:///triton:8001", "::1:8001", "[::1]", "a b:1",
        "a..b:1", "x" * 64 + ":1", "user@host:1",
    ],
)  # fmt: skip
def test_what_is_no_target_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        targets(url)


def test_an_ipv6_address_stands_in_brackets_again() -> None:
    assert authority(("::1", 8001)) == "[::1]:8001"
    assert authority(("triton", 8001)) == "triton:8001"


def test_networks_are_addresses_and_prefixes() -> None:
    found = networks("127.0.0.1, 10.0.0.0/8,2001:db8::/32")
    assert [str(network) for network in found] == ["127.0.0.1/32", "10.0.0.0/8", "2001:db8::/32"]


@pytest.mark.parametrize(
    "text", ["", "10.0.0.1/8", "10.0.0.0/33", "proxy.example", "127.0.0.1,", "*", "10.0.0.1:80"]
)
def test_other_networks_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        networks(text)


def test_an_ipv4_network_that_is_mapped_into_ipv6_would_never_match_and_is_refused() -> None:
    with pytest.raises(ValueError, match="write IPv4 networks as IPv4"):
        networks("10.0.0.0/8,::ffff:10.0.0.0/104")
