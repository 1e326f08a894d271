"""A client's trace reaches the real Triton, and its spans come back into it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import httpx
import pytest

from tests.support.otlp import collecting
from tests.support.servers import ACCOUNT, TOKEN, running
from tests.triton.conftest import INT8

pytestmark = pytest.mark.needs_triton

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
UNSAMPLED = "1bf7651916cd43dd8448eb211c80319c"
TRITON = "tritonflare-triton"
CLOCKS_NS = 5_000_000
"""What two processes may read the clock apart: Triton takes the offset of its steady clock once, and may be
held up between the two readings."""


def test_one_trace_holds_the_gateways_spans_and_tritons(
    int8_repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with collecting() as collector:
        settings = {
            "GATEWAY_API_TOKENS": f"{ACCOUNT}:{TOKEN}",
            "GATEWAY_OTLP_ENDPOINT": collector.endpoint,
            "GATEWAY_TRACE_SHARE": "0",
            "GATEWAY_LOG_FORMAT": "json",
            "GATEWAY_LOG_LEVEL": "debug",
        }
        with running("serve", "--port", "0", "--repository", str(int8_repository), **settings) as program:
            for trace, flags in ((TRACE, "01"), (UNSAMPLED, "00")):
                answer = httpx.post(
                    f"{program.url}/client/v4/accounts/{ACCOUNT}/ai/run/{INT8}",
                    headers={
                        "Authorization": f"Bearer {TOKEN}",
                        "traceparent": f"00-{trace}-{PARENT}-{flags}",
                    },
                    json={"text": "This pizza is great!"},
                    timeout=30,
                )
                assert answer.status_code == 200
            # Triton sends every 5 s, and beside others it takes several times as long.
            collector.wait_for(lambda spans: sum(span.service == TRITON for span in spans) >= 6, 60)
    said = [json.loads(line) for line in program.lines if line.startswith("{")]
    assert not [line for line in program.lines if re.match(r"\d{4}-\d\d-\d\dT", line)]
    assert {"tritonflare.access", "tritonflare.triton", "tritonflare.serve"} <= {
        line["logger"] for line in said
    }
    (traced,) = [line for line in said if "trace_id" in line]
    assert (traced["trace_id"], traced["status"]) == (TRACE, 200)
    # Canaries, which have no context, and the request that is not sampled have left nothing.
    assert {span.trace for span in collector.spans} == {TRACE}
    by_id = {span.id: span for span in collector.spans}
    request = next(span for span in collector.spans if span.parent == PARENT)
    call = next(span for span in collector.spans if span.parent == request.id)
    (received,) = [span for span in collector.spans if span.parent == call.id]
    assert (received.service, received.name) == (TRITON, "InferRequest")
    (ensemble,) = [span for span in collector.spans if span.parent == received.id]
    steps = sorted(
        (span for span in collector.spans if span.parent == ensemble.id), key=lambda span: span.start_ns
    )
    assert [step.name.partition("_")[0] for step in steps] == [
        "tokenizer",
        "cf-huggingface-distilbert-sst-2-int8",
    ]
    assert {by_id[span.parent].name for span in collector.spans if span.name == "compute"} == {
        step.name for step in steps
    }
    # Triton's span ends once the answer is sent, which may be after the gateway has read it; what computed
    # the answer has ended by then. Each process reads the clock for itself.
    assert call.start_ns - CLOCKS_NS <= received.start_ns <= ensemble.start_ns
    assert ensemble.end_ns <= call.end_ns + CLOCKS_NS
    assert ensemble.end_ns <= received.end_ns
    assert "pizza" not in str(collector.spans)
