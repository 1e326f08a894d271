"""A model as two steps and as one, inside the real Triton: callers cannot tell them apart."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import grpc
import numpy as np
import numpy.typing as npt
import pytest
from tokenizers import Tokenizer
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import serialize_byte_tensor

from embedded.server import RESTRICTED_KEY, TritonServer
from export.artefact import Artefact
from export.repository.inventory import Published, read_inventory
from tests.support.texts import sentences, texts_of_words
from tests.triton.conftest import INT8, JOINED

pytestmark = pytest.mark.needs_triton

LIMIT = 512
BAD = b"\xff\xfe"
GOOD = [
    text.encode()
    for text in ("This pizza is great!", "", " ", "\N{BEETLE} \0", *texts_of_words(24, longest=140, seed=9))
]
LONG = b"a lovely film " * 40_000


@dataclass(frozen=True)
class Direct:
    """A model of the running Triton, asked without the gateway."""

    server: TritonServer
    model: Published

    async def ask(self, *calls: list[bytes]) -> list[service_pb2.ModelInferResponse | grpc.RpcError]:
        """The answers to calls that are sent at once."""
        metadata = ((f"triton-grpc-protocol-{RESTRICTED_KEY}", self.server.secret),)
        async with grpc.aio.insecure_channel(self.server.address) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            requests = [stub.ModelInfer(self._request(texts), metadata=metadata) for texts in calls]
            return await asyncio.gather(*requests, return_exceptions=True)

    def _request(self, texts: list[bytes]) -> service_pb2.ModelInferRequest:
        tensor = service_pb2.ModelInferRequest.InferInputTensor
        content = serialize_byte_tensor(np.array([[text] for text in texts], dtype=np.object_))
        return service_pb2.ModelInferRequest(
            model_name=self.model.ensemble,
            inputs=[tensor(name="TEXT", datatype="BYTES", shape=[len(texts), 1])],
            raw_input_contents=[content.item()],
        )


@pytest.fixture(scope="module", params=[INT8, JOINED], ids=["steps", "joined"])
def direct(request: pytest.FixtureRequest, triton: TritonServer) -> Direct:
    (model,) = (model for model in read_inventory(triton.repository) if model.name == request.param)
    assert model.layout == ("joined" if request.param == JOINED else "steps")
    return Direct(triton, model)


def read(
    response: service_pb2.ModelInferResponse | grpc.RpcError,
) -> tuple[npt.NDArray[np.float32], list[int]]:
    """Logits FP32 [n, 2] and token counts of a good answer."""
    assert isinstance(response, service_pb2.ModelInferResponse), response
    found = dict(zip((each.name for each in response.outputs), response.raw_output_contents, strict=True))
    assert found.keys() == {"logits", "token_count"}
    counts = np.frombuffer(found["token_count"], np.int32).tolist()
    return np.frombuffer(found["logits"], np.float32).reshape(len(counts), 2), counts


async def test_answers_are_those_of_the_graph_whatever_stands_beside_a_text(direct: Direct) -> None:
    texts = [*GOOD, *(text.encode() for text in sentences()[:24]), b"good " * 700]
    tokenizer = Tokenizer.from_file(str(direct.model.tokenizer_file(direct.server.repository)))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    counts = [len(tokenizer.encode(text.decode()).ids) for text in texts]
    tokenizer.enable_truncation(LIMIT)
    rows = [tokenizer.encode(text.decode()).ids for text in texts]
    wanted = Artefact(direct.model.weights_file(direct.server.repository), 2).alone(rows)
    together = [
        read(each) for each in await direct.ask(texts[:30], *([text] for text in texts[30:40]), texts[40:])
    ]
    np.testing.assert_allclose(np.concatenate([logits for logits, _ in together]), wanted, atol=1e-4)
    assert [count for _, each in together for count in each] == counts
    assert max(counts) > LIMIT
    alone = [read((await direct.ask([text]))[0])[0][0] for text in texts]
    np.testing.assert_allclose(alone, wanted, atol=1e-4)


async def test_a_call_that_is_not_utf8_fails_alone(direct: Direct) -> None:
    before, failed, after = await direct.ask([b"a"], [b"b", BAD], GOOD)
    assert isinstance(failed, grpc.aio.AioRpcError)
    assert failed.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "TEXT is not UTF-8" in (failed.details() or "")
    assert [len(read(each)[0]) for each in (before, after)] == [1, len(GOOD)]


async def test_a_long_text_is_read_as_far_as_the_model_sees(direct: Direct) -> None:
    """With others in its call, so that these wait for it and are answered as they are without."""
    first, beginning, beside = await direct.ask([b"b", LONG], [LONG[:8_000]], [b"b"])
    (logits, counts), (expected, _), (other, _) = read(first), read(beginning), read(beside)
    assert counts[0] == 3
    assert LIMIT < counts[1] <= 3 * 40_000 + 2
    np.testing.assert_allclose(logits, [other[0], expected[0]], atol=1e-4)


async def test_a_long_text_that_is_not_utf8_fails_alone_too(direct: Direct) -> None:
    failed, fine = await direct.ask([LONG + BAD], [LONG])
    assert isinstance(failed, grpc.aio.AioRpcError)
    assert failed.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "TEXT is not UTF-8" in (failed.details() or "")
    assert read(fine)[1][0] > LIMIT
