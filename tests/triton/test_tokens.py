"""The tokenizer step inside the real Triton, against the tokenizer of ``transformers``."""

from __future__ import annotations

import numpy as np
import pytest
from transformers import AutoTokenizer
from tritonclient.grpc import InferenceServerClient, InferInput

from embedded.server import RESTRICTED_KEY, TritonServer
from tests.support.texts import CHECKPOINT, hostile_texts, texts_of_words

pytestmark = pytest.mark.needs_triton


def test_tokenization_equals_transformers_on_2000_texts(triton: TritonServer) -> None:
    (folder,) = triton.repository.glob("tokenizer_*")
    texts = [*hostile_texts(1_600, seed=1), *texts_of_words(400, longest=900, seed=2)]
    reference = AutoTokenizer.from_pretrained(CHECKPOINT)
    empty = long = unread = 0
    with InferenceServerClient(triton.address) as client:
        for start in range(0, len(texts), 50):
            part = texts[start : start + 50]
            tensor = InferInput("TEXT", [len(part), 1], "BYTES")
            tensor.set_data_from_numpy(np.array([[text.encode()] for text in part], dtype=np.object_))
            answer = client.infer(
                folder.name, [tensor], headers={f"triton-grpc-protocol-{RESTRICTED_KEY}": triton.secret}
            )
            ids, mask = answer.as_numpy("input_ids"), answer.as_numpy("attention_mask")
            for row, text in enumerate(part):
                wanted = reference(text, truncation=True, max_length=512)["input_ids"]
                assert ids[row][mask[row] == 1].tolist() == wanted, text[:80]
                full = reference(text, verbose=False)["input_ids"]
                count = answer.as_numpy("token_count")[row, 0]
                assert count == len(full) or 512 < count < len(full), text[:80]
                unread += count < len(full)
                empty += len(full) == 2
                long += len(full) > 512
    assert len(texts) == 2_000
    assert empty >= 5, "no text was empty after normalisation"
    assert long >= 5, "no text was truncated"
    assert unread >= 5, "no text was cut before it was tokenized"


def test_every_protocol_needs_the_key(triton: TritonServer) -> None:
    from tritonclient.utils import InferenceServerException

    with InferenceServerClient(triton.address) as client:
        for call in (client.is_server_ready, client.get_model_repository_index, client.get_server_metadata):
            with pytest.raises(InferenceServerException, match="restricted"):
                call()
