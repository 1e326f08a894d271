"""Bodies that name their model, and queries of the other routes."""

from __future__ import annotations

from urllib.parse import quote

from tests.contract.hostile.case import BAD_INPUT, FINE, NO_MODEL, NOT_JSON, Expected, Hostile, get, post
from tests.support.fake_triton import SST2
from tests.support.harness import ACCOUNT, RUN

AI = f"/client/v4/accounts/{ACCOUNT}/ai"
_MODEL = SST2.encode()

CALLS: dict[str, tuple[bytes, Expected]] = {
    "empty": (b"", NOT_JSON),
    "cut": (b'{"model":', NOT_JSON),
    "null": (b"null", BAD_INPUT),
    "array": (b"[]", BAD_INPUT),
    "empty object": (b"{}", BAD_INPUT),
    "text alone": (b'{"text":"good"}', BAD_INPUT),
    "model alone": (b'{"model":"' + _MODEL + b'"}', BAD_INPUT),
    "input alone": (b'{"input":{"text":"good"}}', BAD_INPUT),
    "inputs": (b'{"model":"' + _MODEL + b'","inputs":{"text":"good"}}', BAD_INPUT),
    "model null": (b'{"model":null,"input":{"text":"good"}}', BAD_INPUT),
    "model number": (b'{"model":1,"input":{"text":"good"}}', BAD_INPUT),
    "model huge number": (b'{"model":' + b"9" * 9000 + b',"input":{}}', BAD_INPUT),
    "model true": (b'{"model":true,"input":{"text":"good"}}', BAD_INPUT),
    "model array": (b'{"model":["' + _MODEL + b'"],"input":{"text":"good"}}', BAD_INPUT),
    "model object": (b'{"model":{},"input":{"text":"good"}}', BAD_INPUT),
    "model empty": (b'{"model":"","input":{"text":"good"}}', BAD_INPUT),
    "model unknown": (b'{"model":"@cf/no/such","input":{"text":"good"}}', NO_MODEL),
    "model with a space": (b'{"model":" ' + _MODEL + b'","input":{"text":"good"}}', NO_MODEL),
    "model encoded": (b'{"model":"' + quote(SST2, "").encode() + b'","input":{"text":"a"}}', NO_MODEL),
    "model of a lone surrogate": (b'{"model":"\\ud800","input":{"text":"good"}}', NO_MODEL),
    "model of nul": (b'{"model":"\\u0000","input":{"text":"good"}}', NO_MODEL),
    "model with line breaks": (b'{"model":"a\\r\\nSet-Cookie: a=b","input":{"text":"good"}}', NO_MODEL),
    "model of a file": (b'{"model":"../../etc/passwd","input":{"text":"good"}}', NO_MODEL),
    "model of half a MiB": (b'{"model":"' + b"m" * 500_000 + b'","input":{"text":"good"}}', NO_MODEL),
    "input null": (b'{"model":"' + _MODEL + b'","input":null}', BAD_INPUT),
    "input string": (b'{"model":"' + _MODEL + b'","input":"good"}', BAD_INPUT),
    "input array": (b'{"model":"' + _MODEL + b'","input":[{"text":"good"}]}', BAD_INPUT),
    "input empty": (b'{"model":"' + _MODEL + b'","input":{}}', BAD_INPUT),
    "input text number": (b'{"model":"' + _MODEL + b'","input":{"text":1}}', BAD_INPUT),
    "queue nothing": (b'{"model":"' + _MODEL + b'","input":{},"options":{"queueRequest":true}}', BAD_INPUT),
    "model twice": (b'{"model":1,"model":"' + _MODEL + b'","input":{"text":"good"}}', FINE),
    "options wrong": (b'{"model":"' + _MODEL + b'","input":{"text":"good"},"options":[]}', FINE),
    "options deep": (b'{"model":"' + _MODEL + b'","input":{"text":"a"},"options":{"a":{"b":[1]}}}', FINE),
}

QUERIES: dict[str, tuple[str, Expected]] = {
    "page 0": ("/models/search?page=0", BAD_INPUT),
    "page -1": ("/models/search?page=-1", BAD_INPUT),
    "page 1.5": ("/models/search?page=1.5", BAD_INPUT),
    "page 1e3": ("/models/search?page=1e3", BAD_INPUT),
    "page of hex": ("/models/search?page=0x1", BAD_INPUT),
    "page of nothing": ("/models/search?page=", BAD_INPUT),
    "page of a space": ("/models/search?page=%20", BAD_INPUT),
    "page of arabic digits": ("/models/search?page=%D9%A1", BAD_INPUT),
    "page of superscripts": ("/models/search?page=%C2%B2", BAD_INPUT),
    "page of 1000 digits": ("/models/search?page=" + "9" * 1000, BAD_INPUT),
    "page of nul": ("/models/search?page=%00", BAD_INPUT),
    "page of broken utf-8": ("/models/search?page=%FF", BAD_INPUT),
    "page twice, the last wrong": ("/models/search?page=1&page=x", BAD_INPUT),
    "page array": ("/models/search?page[]=0&page=[]", BAD_INPUT),
    "per_page 0": ("/models/search?per_page=0", BAD_INPUT),
    "per_page NaN": ("/models/search?per_page=NaN", BAD_INPUT),
    "source of text": ("/models/search?source=cf", BAD_INPUT),
    "source of nothing": ("/models/search?source=", BAD_INPUT),
    "pages past the end": ("/models/search?page=999999999&per_page=999999999", FINE),
    "search of percent signs": ("/models/search?search=%%%", FINE),
    "search of a regular expression": ("/models/search?search=(a%2B)%2B%24", FINE),
    "search of 8000 letters": ("/models/search?search=" + "a" * 8000, FINE),
    "a thousand parameters": ("/models/search?" + "&".join(f"a{n}={n}" for n in range(1000)), FINE),
    "semicolons": ("/models/search?page=1;page=0", BAD_INPUT),
    "schema of nothing": ("/models/schema", BAD_INPUT),
    "schema of an empty name": ("/models/schema?model=", BAD_INPUT),
    "schema of an unknown name": ("/models/schema?model=@cf/no/such", NO_MODEL),
    "schema encoded twice": ("/models/schema?model=%2540cf%252F", NO_MODEL),
    "schema of broken utf-8": ("/models/schema?model=%FF%FE", NO_MODEL),
}

SHAPES: dict[str, tuple[str, Expected]] = {
    "list": ("?result_shape=list", BAD_INPUT),
    "nothing": ("?result_shape=", BAD_INPUT),
    "capitals": ("?result_shape=ARRAY", BAD_INPUT),
    "twice, the last wrong": ("?result_shape=array&result_shape=x", BAD_INPUT),
    "encoded twice": ("?result_shape=%2561rray", BAD_INPUT),
    "nul": ("?result_shape=array%00", BAD_INPUT),
    "twice, the last right": ("?result_shape=x&result_shape=items", FINE),
    "another key": ("?Result_Shape=list", FINE),
    "long of something": ("?long=all", BAD_INPUT),
    "long of nothing": ("?long=", BAD_INPUT),
    "long of a short text": ("?long=window", FINE),
    "long twice, the last right": ("?long=all&long=cut", FINE),
    "queue of yes": ("?queueRequest=yes", FINE),
    "question marks": ("????", FINE),
    "ampersands": ("?&&&=&=&", FINE),
}

CASES = [
    *(Hostile(f"call: {name}", (post(f"{AI}/run", body),), code) for name, (body, code) in CALLS.items()),
    *(Hostile(f"query: {name}", (get(AI + query),), code) for name, (query, code) in QUERIES.items()),
    *(Hostile(f"shape: {name}", (post(RUN + query),), code) for name, (query, code) in SHAPES.items()),
]
