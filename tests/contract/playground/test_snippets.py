"""The code that the page shows sends what the page sends."""

from __future__ import annotations

from functools import partial

import pytest
from tritonclient import grpc

from tests.support.fake_triton import SST2
from tests.support.harness import ACCOUNT
from tests.support.playground import RecordedInference, Visit


@pytest.mark.parametrize("text", ["It's good", 'a "b" \\ $c `d`', "naïve – 😀"])
def test_the_python_snippet_sends_what_the_page_sends(visit: Visit, text: str) -> None:
    sent: list[tuple[str, object]] = []
    visit.enter_token()
    visit.write(text, "good")
    visit.page.get_by_role("tab", name="Python").click()

    class Requests:
        def post(self, url: str, headers: object, json: object) -> Requests:
            sent.append((url, json))
            return self

        def json(self) -> dict[str, str]:
            return {"result": ""}

    program = visit.page.locator("#snippet").inner_text().replace("import requests", "")
    exec(program, {"requests": Requests(), "print": lambda _: None})
    assert sent == [
        (
            f"{visit.origin}/client/v4/accounts/{ACCOUNT}/ai/run/{SST2}",
            {"requests": [{"text": text}, {"text": "good"}]},
        )
    ]


def test_the_grpc_snippet_sends_what_the_page_sends(visit: Visit, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[RecordedInference] = []
    texts = ("It's good", 'a "b" \\ $c `d`', "naïve – 😀")
    visit.enter_token()
    visit.write(*texts)
    visit.page.get_by_role("tab", name="gRPC").click()
    monkeypatch.setattr(grpc, "InferenceServerClient", partial(RecordedInference, sent))
    exec(visit.page.locator("#snippet").inner_text(), {"print": lambda _: None})
    (call,) = sent
    assert call == RecordedInference(sent, "127.0.0.1:8001", SST2, texts, "Bearer YOUR_TOKEN")
