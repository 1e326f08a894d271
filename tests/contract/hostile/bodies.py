"""Bodies of the run route: JSON that is none, JSON of the wrong shape, abuse of gzip."""

from __future__ import annotations

import gzip
import json
import zlib

from tests.contract.hostile.case import (
    BAD_INPUT,
    FINE,
    GOOD_BODY,
    NOT_JSON,
    TOO_LARGE,
    Expected,
    Hostile,
    request,
)

MIB = 1024 * 1024

NOT_JSON_AT_ALL: dict[str, bytes] = {
    "empty": b"",
    "space": b"   ",
    "line breaks": b"\r\n\r\n",
    "form": b"text=This+pizza",
    "xml": b"<text>good</text>",
    "yaml": b"text: good",
    "bare word": b"good",
    "comment before": b'/* hi */{"text":"good"}',
    "comment inside": b'{"text":"good" // hi\n}',
    "single quotes": b"{'text':'good'}",
    "unquoted key": b'{text:"good"}',
    "backquotes": b"{`text`:`good`}",
    "trailing comma": b'{"text":"good",}',
    "leading comma": b'{,"text":"good"}',
    "two commas": b'{"text":"good",,"a":1}',
    "no comma": b'{"text":"good" "a":1}',
    "no colon": b'{"text" "good"}',
    "two colons": b'{"text"::"good"}',
    "cut in the key": b'{"te',
    "cut in the value": b'{"text":"goo',
    "cut in an escape": b'{"text":"\\',
    "cut in a unicode escape": b'{"text":"\\u00',
    "cut in an array": b'{"text":["a"',
    "cut before the brace": b'{"text":"good"',
    "brace too many": b'{"text":"good"}}',
    "bracket for brace": b'{"text":"good"]',
    "two documents": b'{"text":"good"}{"text":"good"}',
    "json lines": b'{"text":"good"}\n{"text":"good"}',
    "text after": b'{"text":"good"} and more',
    "nul after": b'{"text":"good"}\x00',
    "nul before": b'\x00{"text":"good"}',
    "NaN": b'{"text":NaN}',
    "NaN elsewhere": b'{"text":"good","n":NaN}',
    "Infinity": b'{"text":Infinity}',
    "minus Infinity": b'{"text":"good","n":-Infinity}',
    "undefined": b'{"text":undefined}',
    "python None": b'{"text":None}',
    "python True": b'{"text":True}',
    "hex number": b'{"text":0x10}',
    "octal number": b'{"text":010}',
    "plus number": b'{"text":+1}',
    "point without digits": b'{"text":1.}',
    "digits without point": b'{"text":.5}',
    "exponent without digits": b'{"text":1e}',
    "minus alone": b'{"text":-}',
    "number with underscores": b'{"text":1_000}',
    "raw line break": b'{"text":"a\nb"}',
    "raw tab": b'{"text":"a\tb"}',
    "raw nul": b'{"text":"a\x00b"}',
    "raw escape character": b'{"text":"a\x1bb"}',
    "unknown escape": b'{"text":"\\x41"}',
    "escaped quote only": b'{"text":"\\"}',
    "unicode escape of five": b'{"text":"\\uD8zz"}',
    "latin-1": '{"text":"gün"}'.encode("latin-1"),
    "utf-16 with mark": '{"text":"good"}'.encode("utf-16"),
    "utf-16 big endian": '{"text":"good"}'.encode("utf-16-be"),
    "utf-16 little endian": '{"text":"good"}'.encode("utf-16-le"),
    "utf-32": '{"text":"good"}'.encode("utf-32"),
    "utf-7": b"+AHsAIg-text+ACI:+ACI-good+ACIAfQ-",
    "ebcdic": '{"text":"good"}'.encode("cp500"),
    "two byte order marks": b"\xef\xbb\xbf" * 2 + GOOD_BODY,
    "mark alone": b"\xef\xbb\xbf",
    "utf-8 of a surrogate": b'{"text":"\xed\xa0\x80"}',
    "overlong slash": b'{"text":"\xc0\xaf"}',
    "overlong nul": b'{"text":"\xc0\x80"}',
    "above U+10FFFF": b'{"text":"\xf4\x90\x80\x80"}',
    "five bytes": b'{"text":"\xf8\x88\x80\x80\x80"}',
    "cut character": b'{"text":"\xe2\x82"}',
    "lone continuation": b'{"text":"\x80"}',
    "byte ff": b'{"text":"\xff"}',
    "random bytes": bytes(range(256)),
    "png": b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR",
    "multipart": b'--x\r\nContent-Disposition: form-data; name="text"\r\n\r\ngood\r\n--x--\r\n',
    "cbor": b"\xa1dtextdgood",
    "msgpack": b"\x81\xa4text\xa4good",
    "10 000 open brackets": b"[" * 10_000,
    "100 000 open braces": b'{"a":' * 100_000,
    "100 000 brackets as text": b'{"text":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "half a MiB of brackets beside the text": b'{"text":"a","b":' + b"[" * 260_000 + b"]" * 260_000 + b"}",
    "a MiB of commas": b"[" + b"," * (MIB - 2) + b"]",
    "a MiB of quotes": b'"' * MIB,
    "a MiB of nul": b"\x00" * MIB,
    "a MiB of spaces": b" " * MIB,
}

_DEEP = b"[" * 300 + b"]" * 300
WRONG_SHAPE: dict[str, bytes] = {
    "null": b"null",
    "true": b"true",
    "number": b"5",
    "huge number": b"9" * 5000,
    "huge exponent": b"1e999999",
    "string": b'"good"',
    "array": b'["good"]',
    "array of the right thing": b'[{"text":"good"}]',
    "empty object": b"{}",
    "empty key": b'{"":"good"}',
    "other key": b'{"inputs":"good"}',
    "key with a space": b'{"text ":"good"}',
    "key in capitals": b'{"TEXT":"good"}',
    "key with a nul": b'{"text\\u0000":"good"}',
    "key that looks alike": '{"tехt":"good"}'.encode(),
    "key in full width": '{"ｔｅｘｔ":"good"}'.encode(),
    "nested text": b'{"text":{"text":"good"}}',
    "text in input": b'{"input":{"text":"good"}}',
    "prototype": b'{"__proto__":{"text":"good"}}',
    "constructor": b'{"constructor":{"prototype":{"text":"good"}}}',
    "text empty": b'{"text":""}',
    "text null": b'{"text":null}',
    "text true": b'{"text":true}',
    "text false": b'{"text":false}',
    "text zero": b'{"text":0}',
    "text minus zero": b'{"text":-0.0}',
    "text integer": b'{"text":42}',
    "text of 4000 digits": b'{"text":' + b"1" * 4000 + b"}",
    "text of 5000 digits": b'{"text":' + b"7" * 5000 + b"}",
    "text of a million digits": b'{"text":' + b"8" * 1_000_000 + b"}",
    "text of many decimals": b'{"text":0.' + b"3" * 100_000 + b"}",
    "text too large for a double": b'{"text":1e400}',
    "text too small for a double": b'{"text":1e-400}',
    "text of a long exponent": b'{"text":1e' + b"9" * 1000 + b"}",
    "text 2^53 + 1": b'{"text":9007199254740993}',
    "text 2^64": b'{"text":18446744073709551616}',
    "text array": b'{"text":["good","bad"]}',
    "text empty array": b'{"text":[]}',
    "text mixed array": b'{"text":["good",1,null,{}]}',
    "text array of a hundred thousand": b'{"text":[' + b"1," * 100_000 + b"1]}",
    "text deep array": b'{"text":' + _DEEP + b"}",
    "text object": b'{"text":{}}',
    "text object of strings": b'{"text":{"0":"g"}}',
    "text twice, the last wrong": b'{"text":"good","text":1}',
    "text twice, the last empty": b'{"text":"good","text":""}',
    "text by escape, then null": b'{"text":"good","te\\u0078t":null}',
    "poll": b'{"request_id":"d9e09afe-fe49-4051-bc1d-8901f858ff52"}',
    "poll with a number": b'{"request_id":1}',
    "requests null": b'{"requests":null}',
    "requests string": b'{"requests":"good"}',
    "requests object": b'{"requests":{"0":{"text":"good"}}}',
    "requests number": b'{"requests":1}',
    "requests true": b'{"text":"good","requests":true}',
    "requests empty": b'{"requests":[]}',
    "requests empty beside a text": b'{"text":"good","requests":[]}',
    "101 requests": b'{"requests":[' + b'{"text":"a"},' * 100 + b'{"text":"a"}]}',
    "100 000 requests": b'{"requests":[' + b"1," * 100_000 + b"1]}",
}

ODD_AND_VALID: dict[str, bytes] = {
    "byte order mark": b"\xef\xbb\xbf" + GOOD_BODY,
    "space around": b" \r\n\t" + GOOD_BODY + b" \r\n\t",
    "lone high surrogate": b'{"text":"\\ud83d"}',
    "lone low surrogate": b'{"text":"\\ude00"}',
    "surrogates in the wrong order": b'{"text":"\\ude00\\ud83d"}',
    "surrogate in another key": b'{"text":"good","\\ud800":"\\udfff"}',
    "escaped nul": b'{"text":"a\\u0000b"}',
    "every control character": json.dumps({"text": "".join(map(chr, range(32)))}).encode(),
    "noncharacters": '{"text":"\ufffe\uffff"}'.encode(),
    "right to left override": '{"text":"\u202egood"}'.encode(),
    "ten thousand combining marks": ('{"text":"a' + "\u0301" * 10_000 + '"}').encode(),
    "family of emoji": '{"text":"👩\u200d👩\u200d👧\u200d👦"}'.encode(),
    "escaped key": b'{"\\u0074\\u0065\\u0078\\u0074":"good"}',
    "text twice, the last right": b'{"text":1,"text":"good"}',
    "NaN as a string": b'{"text":"NaN"}',
    "text of a space": b'{"text":" "}',
    "shell": b'{"text":"$(reboot) `id` ; rm -rf /"}',
    "sql": b'{"text":"\' OR 1=1; DROP TABLE models; --"}',
    "html": b'{"text":"<script>alert(1)</script>"}',
    "format string": b'{"text":"%s%n{0.__class__}"}',
    "log line": b'{"text":"a\\r\\nHTTP/1.1 200 OK\\r\\n\\r\\n"}',
    "huge number elsewhere": b'{"text":"good","n":' + b"9" * 10_000 + b"}",
    "deep value elsewhere": b'{"text":"good","deep":' + _DEEP + b"}",
    "ten thousand other keys": json.dumps({f"k{n}": n for n in range(10_000)} | {"text": "good"}).encode(),
    "prototype beside": b'{"text":"good","__proto__":{"polluted":true}}',
    "options of a wrong type": b'{"text":"good","options":5}',
    "options array": b'{"text":"good","options":[{"queueRequest":true}]}',
    "batch of rubbish": b'{"requests":[null,1,"a",[],{},{"text":1},{"text":"good"}]}',
    "batch in a batch": b'{"requests":[{"requests":[{"text":"good"}]},{"text":"good"}]}',
    "batch with wrong references": b'{"requests":[{"text":"a","external_reference":{}},{"text":"good"}]}',
    "batch with a lone surrogate": b'{"requests":[{"text":"a","external_reference":"\\ud800"}]}',
    "batch of nothing good": b'{"requests":[{}]}',
}


def _squeezed(content: bytes, times: int) -> bytes:
    for _ in range(times):
        content = gzip.compress(content, mtime=0)
    return content


_GZIP = gzip.compress(GOOD_BODY, mtime=0)
GZIP: dict[str, tuple[bytes, Expected]] = {
    "good": (_GZIP, FINE),
    "of nothing": (_squeezed(b"", 1), NOT_JSON),
    "no gzip at all": (GOOD_BODY, FINE),
    "empty": (b"", NOT_JSON),
    "magic alone": (_GZIP[:2], NOT_JSON),
    "header alone": (_GZIP[:10], NOT_JSON),
    "cut in the middle": (_GZIP[:-12], NOT_JSON),
    "without its checksum": (_GZIP[:-8], NOT_JSON),
    "wrong checksum": (_GZIP[:-8] + bytes(8), NOT_JSON),
    "wrong length": (_GZIP[:-4] + bytes(4), NOT_JSON),
    "damaged": (_GZIP[:14] + b"\xff\xff" + _GZIP[16:], NOT_JSON),
    "unknown method": (_GZIP[:2] + b"\x07" + _GZIP[3:], NOT_JSON),
    "reserved flags": (_GZIP[:3] + b"\xe0" + _GZIP[4:], NOT_JSON),
    "two members": (_GZIP * 2, NOT_JSON),
    "something after": (_GZIP + b"x", NOT_JSON),
    "zlib": (zlib.compress(GOOD_BODY), NOT_JSON),
    "raw deflate": (zlib.compress(GOOD_BODY)[2:-4], NOT_JSON),
    "gzip in gzip": (_squeezed(GOOD_BODY, 2), NOT_JSON),
    "bomb of 100 MiB": (_squeezed(bytes(100 * MIB), 1), TOO_LARGE),
    "bomb in a bomb": (_squeezed(bytes(100 * MIB), 2), NOT_JSON),
    "bomb of spaces around a text": (_squeezed(b" " * (2 * MIB) + GOOD_BODY, 1), TOO_LARGE),
    "a byte over the limit": (_squeezed(GOOD_BODY + b" " * (MIB - len(GOOD_BODY) + 1), 1), TOO_LARGE),
    "just the limit": (_squeezed(GOOD_BODY + b" " * (MIB - len(GOOD_BODY)), 1), FINE),
    "deep inside": (_squeezed(b"[" * MIB, 1), NOT_JSON),
}


def _cases() -> list[Hostile]:
    tables: list[tuple[str, dict[str, bytes], Expected]] = [
        ("not JSON", NOT_JSON_AT_ALL, NOT_JSON),
        ("wrong shape", WRONG_SHAPE, BAD_INPUT),
        ("odd and valid", ODD_AND_VALID, FINE),
    ]
    plain = [
        Hostile(f"{title}: {name}", (request(body),), expected)
        for title, table, expected in tables
        for name, body in table.items()
    ]
    squeezed = [
        Hostile(f"gzip: {name}", (request(body, b"Content-Encoding: gzip"),), expected)
        for name, (body, expected) in GZIP.items()
    ]
    too_large = [
        Hostile("too large: by a byte", (request(GOOD_BODY + b" " * MIB),), TOO_LARGE),
        Hostile("too large: 2 MiB", (request(b"x" * (2 * MIB)),), TOO_LARGE),
    ]
    return plain + squeezed + too_large


CASES = _cases()
