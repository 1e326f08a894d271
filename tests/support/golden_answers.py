"""The golden answers: what is asked, in which circumstances, and how random parts are named."""

from __future__ import annotations

import asyncio
import gzip
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from tests.support.fake_triton import SST2, FakeTriton, read_texts
from tests.support.harness import ACCOUNT, RUN, TOKEN

FOLDER = Path(__file__).parents[1] / "golden" / "http"
AUTHORIZED = {"Authorization": f"Bearer {TOKEN}"}
AI = f"/client/v4/accounts/{ACCOUNT}/ai"
GOOD = b'{"text":"This pizza is great!"}'

_NAMED = (
    (re.compile(r"(?m)^date: .*$"), "date: <date>"),
    (re.compile(r"(?m)^cf-ray: [0-9a-f]{16}-TFL$"), "cf-ray: <ray>"),
    (re.compile(r"(?m)(?<=;dur=)\d+\.\d(?=, (?:triton|total);|$)"), "<ms>"),
    (re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"), "<uuid>"),
)
_DOCUMENTED = (
    # The ids of the documented model and of its task are no random parts.
    "eaf31752-a074-441f-8b70-d593255d2811",
    "19606750-23ed-4371-aab2-c20349b53a60",
)
CACHED = {"cache_bytes": 1_000_000}
LENGTH = ((re.compile(r"(?m)^(content-length): \d+$"), r"\1: <length>"),)
"""How much gzip saves depends on its version."""
VERSION = ((re.compile(r'(?<="version":")[^"]+'), "<version>"),)
RETRY = ((re.compile(r"(?m)^(retry-after(?:-ms)?): \d+$"), r"\1: <time>"),)

_ONE_AT_A_TIME = {"max_requests_in_flight": 1, "max_batch_texts": 1}
_ONE_A_MINUTE = {"requests_per_minute": 1, "max_batch_texts": 1}
_NO_FOLDER = Path("/dev/null/batches")
_NO_ROOM = {"batch_folder": _NO_FOLDER, "batch_store_bytes": 100, "max_queued_body_bytes": 100}


@dataclass(frozen=True)
class Case:
    """One request and its circumstances; the name is the name of its file."""

    name: str
    body: bytes | None = GOOD
    path: str = RUN
    method: str = "POST"
    headers: dict[str, str] = field(default_factory=lambda: AUTHORIZED)
    settings: dict[str, Any] = field(default_factory=dict)
    prepare: Callable[[FakeTriton], None] = lambda triton: None
    before: tuple[bytes, ...] = ()
    """Bodies sent first, by the same request; their answers are not looked at."""
    wait_for_before: bool = True
    named: tuple[tuple[re.Pattern[str], str], ...] = ()
    """More random parts."""
    announced: int | None = None
    """Length of a body that is announced and not sent."""
    keeps_alive: bool = False
    """Ask for nothing about the connection: where it ends, that is the gateway's doing."""
    gzipped: bool = False
    """The body of the answer is gzip; the golden file has what is in it."""

    def request(self) -> bytes:
        """The bytes to send."""
        connection = {} if self.keeps_alive else {"Connection": "close"}
        sent = {"Host": "gateway", **connection, **self.headers}
        if self.announced is not None:
            sent["Content-Length"] = str(self.announced)
        elif self.body is not None:
            sent["Content-Length"] = str(len(self.body))
        head = f"{self.method} {self.path} HTTP/1.1\r\n" + "".join(f"{k}: {v}\r\n" for k, v in sent.items())
        return head.encode() + b"\r\n" + (self.body or b"")

    def document(self, answer: bytes) -> str:
        """The content of the golden file: the request, quoted, and the answer with random parts named."""
        asked = self.request().decode("utf-8", "backslashreplace").replace("\r\n", "\n").split("\n")
        quoted = "\n".join(f"> {line[:300]}".rstrip() for line in asked)
        if self.gzipped:
            head, _, body = answer.partition(b"\r\n\r\n")
            answer = head + b"\r\n\r\n<gzip> " + gzip.decompress(body)
        return f"{quoted}\n\n{name_random_parts(answer, self.named)}\n"


def name_random_parts(answer: bytes, more: tuple[tuple[re.Pattern[str], str], ...] = ()) -> str:
    """Return an answer as text; the CRLF of its head become LF, and nothing else is lost."""
    head, _, body = answer.decode().partition("\r\n\r\n")
    if "\n" in head.replace("\r\n", "") or "\n" in body:
        raise AssertionError("a line of the head ends without CR, or the body has line breaks")
    text = head.replace("\r\n", "\n") + "\n\n" + body
    for place, known in enumerate(_DOCUMENTED):
        text = text.replace(known, f"<known {place}>")
    ids = set(_NAMED[-1][0].findall(text))
    if len(ids) > 1:
        raise AssertionError(f"one answer, several request ids: {ids}")
    for pattern, name in _NAMED + more:
        text = pattern.sub(name, text)
    for place, known in enumerate(_DOCUMENTED):
        text = text.replace(f"<known {place}>", known)
    return text


def _fail(code: grpc.StatusCode) -> Callable[[FakeTriton], None]:
    async def fault(request: Any, context: Any) -> None:
        if read_texts(request) != [b"This is a canary."]:
            await context.abort(code, "words of Triton")

    def prepare(triton: FakeTriton) -> None:
        triton.infer_fault = fault

    return prepare


def _fail_at(text: bytes) -> Callable[[FakeTriton], None]:
    async def fault(request: Any, context: Any) -> None:
        if text in read_texts(request):
            await context.abort(grpc.StatusCode.INTERNAL, "words of Triton")

    def prepare(triton: FakeTriton) -> None:
        triton.infer_fault = fault

    return prepare


def _hang(triton: FakeTriton) -> None:
    async def fault(request: Any, context: Any) -> None:
        if read_texts(request) != [b"This is a canary."]:
            await asyncio.sleep(60)

    triton.infer_fault = fault


def _bad_input() -> list[Case]:
    bodies = {
        "required": b"{}",
        "length": b'{"text":""}',
        "integer": b'{"text":123}',
        "number": b'{"text":1.5}',
        "null": b'{"text":null}',
        "boolean": b'{"text":true}',
        "array": b'{"text":["a","b"]}',
        "array-of-objects": b'{"text":[{}]}',
        "object": b'{"text":{}}',
        "no-requests": b'{"requests":[]}',
        "many-requests": b'{"requests":[1,2,3]}',
        "requests-type": b'{"requests":"a"}',
        "poll": b'{"request_id":"0"}',
    }
    return [
        *(
            Case(f"5006-{name}", body, settings={"max_batch_texts": 2}, prepare=_hang)
            for name, body in bodies.items()
        ),
        Case("5006-body-required", b"{}", f"{AI}/run"),
        Case("5006-body-model", b'{"model":1.5,"input":{}}', f"{AI}/run"),
        Case("5006-result-shape", path=f"{RUN}?result_shape=list"),
        Case("5006-page", None, f"{AI}/models/search?page=0", "GET"),
        Case("5006-schema", None, f"{AI}/models/schema", "GET"),
    ]


def _refusals() -> list[Case]:
    unknown = f"{AI}/run/@cf/no/such"
    return [
        Case("7000", path="/client/v4/nowhere"),
        Case("7001", None, method="GET"),
        Case("9106", headers={}),
        Case("6003", headers={"Authorization": "Basic x"}),
        Case("6003-repeated", headers={name: "a" for name in ("X-Auth-Email", "X-Auth-Key", "X-AUTH-KEY")}),
        Case("10000-unknown-token", headers={"Authorization": "Bearer unknown"}),
        Case("10000-foreign-account", path=RUN.replace(ACCOUNT, "another")),
        Case(
            "1000",
            None,
            "/client/v4/user/tokens/verify",
            "GET",
            headers={"Authorization": "Bearer unknown"},
        ),
        Case("5007", path=unknown),
        Case("5007-body", b'{"model":"@cf/no/such","input":{"text":"a"}}', f"{AI}/run"),
        Case("5007-schema", None, f"{AI}/models/schema?model=@cf/no/such", "GET"),
        Case("3003-empty", b""),
        Case("3003-not-json", b"text=This+pizza"),
        Case("3003-too-deep", b"[" * 100_000),
        Case("3003-not-gzip", b"\x1f\x8b not gzip", headers=AUTHORIZED | {"Content-Encoding": "gzip"}),
        Case("3006", b"x" * 101, settings={"max_body_bytes": 100}),
        Case("3007", settings={"request_timeout_s": 0.2}, prepare=_hang),
        Case(
            "3040",
            settings=_ONE_AT_A_TIME,
            prepare=_hang,
            before=(GOOD,),
            wait_for_before=False,
        ),
        Case("3021", settings=_ONE_A_MINUTE, before=(GOOD,), named=RETRY),
        Case("3050", prepare=_fail(grpc.StatusCode.UNAVAILABLE)),
        Case("3050-no-store", path=f"{RUN}?queueRequest=true", settings={"batch_folder": _NO_FOLDER}),
        Case("3040-no-room", path=f"{RUN}?queueRequest=true", settings=_NO_ROOM),
        Case("5006-unknown-batch", b'{"request_id":"0"}', settings={"batch_folder": _NO_FOLDER}),
        Case("8007", prepare=_fail(grpc.StatusCode.INTERNAL)),
    ]


def _successes() -> list[Case]:
    batch = (
        b'{"requests":[{"text":"This pizza is great!","external_reference":"first"},{"text":""},'
        b'{"text":"It is not."}]}'
    )
    return [
        Case("run"),
        Case("run-items", path=f"{RUN}?result_shape=items"),
        Case("run-truncated", b'{"text":"' + b"a " * 600 + b'"}'),
        Case("run-body", b'{"model":"' + SST2.encode() + b'","input":' + GOOD + b"}", f"{AI}/run"),
        Case("run-batch", batch),
        Case("run-batch-failed", batch, prepare=_fail_at(b"It is not.")),
        Case("run-gateway", path=f"/v1/{ACCOUNT}/mine/workers-ai/{SST2}"),
        Case("run-cached", settings=CACHED, before=(GOOD,)),
        Case("run-not-cached", settings=CACHED),
        Case("run-queued", path=f"{RUN}?queueRequest=true"),
        Case("models-search", None, f"{AI}/models/search", "GET"),
        Case("models-search-past-the-end", None, f"{AI}/models/search?page=2", "GET"),
        Case("models-schema", None, f"{AI}/models/schema?model={SST2}", "GET"),
        Case("tasks-search", None, f"{AI}/tasks/search", "GET"),
        Case("authors-search", None, f"{AI}/authors/search", "GET"),
        Case("v1-models", None, f"{AI}/v1/models", "GET"),
        Case("tokens-verify", None, "/client/v4/user/tokens/verify", "GET"),
        Case("tokens-verify-account", None, f"/client/v4/accounts/{ACCOUNT}/tokens/verify", "GET"),
    ]


def _inference_protocol() -> list[Case]:
    model = f"/v2/models/{SST2}"
    given = b'{"name":"TEXT","shape":[1,1],"datatype":"BYTES","data":["This pizza is great!"]}'
    text = b'{"id":"7","inputs":[' + given + b"]"
    classes = b',"outputs":[{"name":"probabilities","parameters":{"classification":2}}]}'
    wrong = b'{"inputs":[{"name":"TEXT","shape":[1],"datatype":"BYTES","data":[1]}]}'
    return [
        Case("v2", None, "/v2", "GET", named=VERSION + LENGTH),
        Case("v2-live", None, "/v2/health/live", "GET", headers={}),
        Case("v2-ready", None, "/v2/health/ready", "GET", headers={}),
        Case("v2-model", None, model, "GET"),
        Case("v2-model-ready", None, f"{model}/ready", "GET"),
        Case("v2-model-config", None, f"{model}/versions/1/config", "GET"),
        Case("v2-index", b"", "/v2/repository/index"),
        Case("v2-infer", text + b"}", f"{model}/infer"),
        Case("v2-infer-classes", text + classes, "/v2/models/sst2/versions/1/infer"),
        Case("v2-400", wrong, f"{model}/infer"),
        Case("v2-401", text + b"}", f"{model}/infer", headers={}),
        Case("v2-403", None, "/v2", "GET", headers=AUTHORIZED | {"cf-account-id": "another"}),
        Case("v2-404-model", text + b"}", "/v2/models/no-such/infer"),
        Case("v2-404-version", text + b"}", f"{model}/versions/2/infer"),
        Case("v2-404-path", None, "/v2/nowhere", "GET"),
        Case(
            "v2-429",
            text + b"}",
            f"{model}/infer",
            settings=_ONE_A_MINUTE,
            before=(text + b"}",),
            named=RETRY,
        ),
        Case("v2-500", text + b"}", f"{model}/infer", prepare=_fail(grpc.StatusCode.INTERNAL)),
        Case("v2-404-operation", None, f"{model}/stats", "GET"),
        Case("v2-503", text + b"}", f"{model}/infer", prepare=_fail(grpc.StatusCode.UNAVAILABLE)),
    ]


def _binding() -> list[Case]:
    native = AUTHORIZED | {"cf-consn-model-id": SST2}
    third = native | {"cf-consn-sdk-version": "2.0.0"}
    debug = b'{"inputs":{"text":"This pizza is great!"},"options":{"debug":true}}'
    tensors = b'{"input":[{"type":"str","shape":[1],"name":"input_text","value":["This pizza is great!"]}]}'
    batch = (
        b'{"inputs":{"requests":[{"text":"This pizza is great!","external_reference":"first"},{"text":""}]},'
        b'"options":{"queueRequest":true}}'
    )
    inputs = b'{"inputs":{"text":"This pizza is great!"},"options":{}}'
    run = "/run?version=3"
    proxy = f"{AI}/run/proxy"
    socket = {"Connection": "close, Upgrade", "Upgrade": "websocket"}
    wrapped = {f"MF-Header-{name}": value for name, value in third.items() if name not in AUTHORIZED}
    miniflare = AUTHORIZED | {"MF-Binding": "AI", "MF-URL": f"https://workers-binding.ai{run}"} | wrapped
    return [
        Case("binding-3", inputs, run, headers=third),
        Case("binding-3-batch", batch, run, headers=third),
        Case("binding-miniflare", inputs, "/", headers=miniflare),
        Case("binding-models-search", None, "/ai-api/models/search", "GET"),
        Case("binding-2", debug, "/run?version=2", headers=native, named=LENGTH, gzipped=True),
        Case("binding-tensor", tensors, "/run", headers=native),
        Case("binding-3-cached", inputs, run, headers=third, settings=CACHED, before=(inputs,)),
        Case("binding-proxy", inputs, proxy, headers=third),
        Case("binding-9106", inputs, run, headers={}),
        Case(
            "binding-7000-proxy",
            inputs,
            proxy,
            headers=third | {"X-Forwarded": "https://workers-binding.ai/to-everything/markdown/transformer"},
        ),
        Case("binding-3003", b"{", run, headers=third),
        Case("binding-3006", inputs, run, headers=third, settings={"max_body_bytes": 10}),
        Case("binding-3007", inputs, run, headers=third, settings={"request_timeout_s": 0.2}, prepare=_hang),
        Case(
            "binding-3021", inputs, run, headers=third, settings=_ONE_A_MINUTE, before=(inputs,), named=RETRY
        ),
        Case(
            "binding-3040",
            inputs,
            run,
            headers=third,
            settings=_ONE_AT_A_TIME,
            prepare=_hang,
            before=(inputs,),
            wait_for_before=False,
        ),
        Case("binding-3050", inputs, run, headers=third, prepare=_fail(grpc.StatusCode.UNAVAILABLE)),
        Case("binding-5006", b'{"inputs":{}}', run, headers=third),
        Case("binding-5006-version", inputs, "/run?version=4", headers=third),
        Case("binding-5006-websocket", None, f"{run}&body=%7B%7D", "GET", headers=third | socket),
        Case("binding-5007", inputs, run, headers=third | {"cf-consn-model-id": "@cf/no/such"}),
        Case("binding-8007", inputs, run, headers=third, prepare=_fail(grpc.StatusCode.INTERNAL)),
    ]


def _ended_by_the_gateway() -> list[Case]:
    """Answers before the body that has been announced, which then may never come."""
    expect = AUTHORIZED | {"Expect": "100-continue"}
    return [
        Case("3006-expect", b"", headers=expect, announced=2_000_000, keeps_alive=True),
        Case("9106-expect", b"", headers={"Expect": "100-continue"}, announced=100, keeps_alive=True),
    ]


DESCRIBED = [*_successes(), *_bad_input(), *_refusals(), *_inference_protocol()]
"""The REST API and ``/v2``, which openapi.json describes."""
CASES = [*DESCRIBED, *_binding(), *_ended_by_the_gateway()]
