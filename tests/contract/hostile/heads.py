"""Headers: credentials, sizes, what proxies and parsers disagree about."""

from __future__ import annotations

from gateway.server.parser import MAX_HEADER_LINES
from tests.contract.hostile.case import (
    BAD_HEADERS,
    BEARER,
    FINE,
    NO_CREDENTIALS,
    UNKNOWN_TOKEN,
    Expected,
    Hostile,
    request,
)
from tests.support.harness import ANY_TOKEN, TOKEN

_TOKEN = TOKEN.encode()

CREDENTIALS: dict[str, tuple[tuple[bytes, ...], Expected]] = {
    "none": ((), NO_CREDENTIALS),
    "email alone": ((b"X-Auth-Email: a@b.c",), NO_CREDENTIALS),
    "key alone": ((b"X-Auth-Key: " + _TOKEN,), NO_CREDENTIALS),
    "cookie": ((b"Cookie: Authorization=Bearer " + _TOKEN,), NO_CREDENTIALS),
    "proxy": ((b"Proxy-Authorization: Bearer " + _TOKEN,), NO_CREDENTIALS),
    "empty": ((b"Authorization:",), BAD_HEADERS),
    "spaces": ((b"Authorization:      ",), BAD_HEADERS),
    "scheme alone": ((b"Authorization: Bearer",), BAD_HEADERS),
    "token alone": ((b"Authorization: " + _TOKEN,), BAD_HEADERS),
    "basic": ((b"Authorization: Basic dTpw",), BAD_HEADERS),
    "digest": ((b'Authorization: Digest username="a"',), BAD_HEADERS),
    "two tokens": ((b"Authorization: Bearer " + _TOKEN + b" x",), BAD_HEADERS),
    "comma": ((b"Authorization: Bearer a," + _TOKEN,), BAD_HEADERS),
    "quotes": ((b'Authorization: Bearer "' + _TOKEN + b'"',), BAD_HEADERS),
    "bytes above ASCII": ((b"Authorization: Bearer t\xc3\xb6k",), BAD_HEADERS),
    "equals in the middle": ((b"Authorization: Bearer a=b",), BAD_HEADERS),
    "two headers": ((BEARER, BEARER), BAD_HEADERS),
    "two different headers": ((BEARER, b"Authorization: Bearer x"), BAD_HEADERS),
    "unknown": ((b"Authorization: Bearer x",), UNKNOWN_TOKEN),
    "token cut": ((BEARER[:-1],), UNKNOWN_TOKEN),
    "token and more": ((BEARER + b"x",), UNKNOWN_TOKEN),
    "token in capitals": ((BEARER.upper(),), UNKNOWN_TOKEN),
    "token of 60 000 letters": ((b"Authorization: Bearer " + b"a" * 60_000,), UNKNOWN_TOKEN),
    "hash": ((b"Authorization: Bearer " + b"0" * 64,), UNKNOWN_TOKEN),
    "the star": ((b"X-Auth-Email: a@b.c", b"X-Auth-Key: *"), UNKNOWN_TOKEN),
    "key of nothing": ((b"X-Auth-Email: a@b.c", b"X-Auth-Key:"), UNKNOWN_TOKEN),
    "key above ASCII": ((b"X-Auth-Email: a@b.c", b"X-Auth-Key: \xff\xfe"), UNKNOWN_TOKEN),
    "two emails": ((b"X-Auth-Email: a@b.c",) * 2 + (b"X-Auth-Key: " + _TOKEN,), BAD_HEADERS),
    "two keys": ((b"X-Auth-Email: a@b.c", b"X-Auth-Key: " + _TOKEN, b"X-Auth-Key: x"), BAD_HEADERS),
    "bad bearer, good key": (
        (b"Authorization: Bearer x", b"X-Auth-Email: a@b.c", b"X-Auth-Key: " + _TOKEN),
        UNKNOWN_TOKEN,
    ),
    "name before the colon has a space": ((b"Authorization : Bearer " + _TOKEN,), BAD_HEADERS),
    "folded": ((b"Authorization: Bearer\r\n " + _TOKEN,), BAD_HEADERS),
    "small letters": ((b"authorization: bearer " + _TOKEN,), FINE),
    "spaces around": ((b"Authorization:   Bearer    " + _TOKEN + b"   ",), FINE),
    "tab after the colon": ((b"Authorization:\tBearer " + _TOKEN,), FINE),
    "token of any account": ((b"Authorization: Bearer " + ANY_TOKEN.encode(),), FINE),
    "legacy pair": ((b"X-Auth-Email: nobody", b"X-Auth-Key: " + _TOKEN), FINE),
}

HEADERS: dict[str, tuple[tuple[bytes, ...], Expected]] = {
    "one of 70 000 bytes": ((b"X-Large: " + b"a" * 70_000,), BAD_HEADERS),
    "one of a MiB": ((b"X-Large: " + b"a" * 1_048_576,), BAD_HEADERS),
    "name of 70 000 bytes": ((b"X" * 70_000 + b": a",), BAD_HEADERS),
    "ten thousand": (tuple(b"X-%d: aaaa" % n for n in range(10_000)), BAD_HEADERS),
    "a hundred thousand empty": ((b"A:",) * 100_000, BAD_HEADERS),
    "a thousand": (tuple(b"X-%d: a" % n for n in range(1000)), BAD_HEADERS),
    "as many as may be": (tuple(b"X-%d: a" % n for n in range(MAX_HEADER_LINES - 3)), FINE),
    "one too many": (tuple(b"X-%d: a" % n for n in range(MAX_HEADER_LINES - 2)), BAD_HEADERS),
    "nul in a value": ((b"X-A: a\x00b",), BAD_HEADERS),
    "nul in a name": ((b"X-\x00A: a",), BAD_HEADERS),
    "bare CR in a value": ((b"X-A: a\rb",), BAD_HEADERS),
    "bare LF": ((b"X-A: a\nX-B: b",), BAD_HEADERS),
    "control character in a value": ((b"X-A: a\x07b",), BAD_HEADERS),
    "delete character in a value": ((b"X-A: a\x7fb",), BAD_HEADERS),
    "space in a name": ((b"X A: a",), BAD_HEADERS),
    "name above ASCII": ((b"X-\xc3\xa4: a",), BAD_HEADERS),
    "no name": ((b": a",), BAD_HEADERS),
    "no colon": ((b"just words",), BAD_HEADERS),
    "folded": ((b"X-A: a\r\n b",), BAD_HEADERS),
    "folded first": ((b" X-A: a",), BAD_HEADERS),
    "brackets in a name": ((b"X[0]: a",), BAD_HEADERS),
    "value above ASCII": ((b"X-A: \xff\xfe",), FINE),
    "shell": ((b"User-Agent: () { :;}; echo x",), FINE),
    "lookup": ((b"User-Agent: ${jndi:ldap://x/a}",), FINE),
    "content type of nonsense": ((b"Content-Type: \xff/;;;",), FINE),
    "content type of utf-16": ((b"Content-Type: application/json; charset=utf-16",), FINE),
    "two content types": ((b"Content-Type: text/plain", b"Content-Type: image/png"), FINE),
    "range": ((b"Range: bytes=0-1,2-3,4-",), FINE),
    "conditions": ((b"If-Match: x", b"If-Modified-Since: yesterday"), FINE),
    "method override": ((b"X-HTTP-Method-Override: DELETE",), FINE),
    "forwarded": ((b"X-Forwarded-For: 127.0.0.1", b"X-Forwarded-Host: evil"), FINE),
    "rewritten path": ((b"X-Original-URL: /metrics", b"X-Rewrite-URL: /metrics"), FINE),
    "accepts nothing": ((b"Accept: x/y;q=0", b"Accept-Encoding: identity;q=0"), FINE),
    "expects the impossible": ((b"Expect: 200-maybe",), FINE),
    "encoded as brotli in name": ((b"Content-Encoding: br",), FINE),
    "encoded as gzip in name": ((b"Content-Encoding: gzip",), FINE),
    "encoded twice, gzip last": ((b"Content-Encoding: br", b"Content-Encoding: GZIP"), FINE),
    "trailers announced": ((b"TE: trailers", b"Trailer: Authorization"), FINE),
    "request ids": ((b"cf-ray: x", b"cf-ai-req-id: x"), FINE),
}

HOSTS: dict[str, tuple[bytes | None, Expected]] = {
    "none": (None, BAD_HEADERS),
    "two": (b"Host: a\r\nHost: b", BAD_HEADERS),
    "two alike": (b"Host: a\r\nhost: a", BAD_HEADERS),
    "empty": (b"Host:", FINE),
    "elsewhere": (b"Host: elsewhere.example:1", FINE),
    "nonsense": (b"Host: \xff@[::]/../", BAD_HEADERS),
    "with a path": (b"Host: gateway/", BAD_HEADERS),
    "with a user": (b"Host: user@gateway", BAD_HEADERS),
    "with a space": (b"Host: a b", BAD_HEADERS),
    "with a list": (b"Host: a, b", BAD_HEADERS),
    "with a port that is none": (b"Host: gateway:http", BAD_HEADERS),
    "with a bad escape": (b"Host: a%zz", BAD_HEADERS),
    "brackets left open": (b"Host: [::1", BAD_HEADERS),
    "brackets around nonsense": (b"Host: [:::1]", BAD_HEADERS),
    "an address of version 6": (b"Host: [::1]:8000", FINE),
    "an address of version 4": (b"Host: 127.0.0.1:8000", FINE),
    "every character that may be": (b"Host: a-._~%20!$&'()*+,;=:1", FINE),
}

CASES = [
    *(
        Hostile(f"credentials: {name}", (request(b'{"text":"good"}', *lines, bearer=None),), code)
        for name, (lines, code) in CREDENTIALS.items()
    ),
    *(
        Hostile(f"header: {name}", (request(b'{"text":"good"}', *lines),), code)
        for name, (lines, code) in HEADERS.items()
    ),
    *(Hostile(f"host: {name}", (request(host=line),), code) for name, (line, code) in HOSTS.items()),
]
