"""The outputs of a text classifier: what they are called, and how they are made from its answers.

| output | datatype | shape | holds |
|---|---|---|---|
| ``logits`` | FP32 | ``[n, labels]`` | the model's output |
| ``probabilities`` | FP32 | ``[n, labels]`` | softmax or sigmoid of the logits, as in the Workers AI API |
| ``label`` | BYTES | ``[n, 1]`` | the most probable label |
| ``token_count`` | INT32 | ``[n, 1]`` | tokens before truncation (`RawScores.token_count`) |
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain

from gateway.domain.errors import BadInput
from gateway.domain.scores import best_first
from gateway.domain.service import Classification
from gateway.domain.validate import utf8
from gateway.inference_protocol.tensors import OutputTensor, RequestedOutput, to_fp32

Answers = Sequence[Classification]


def _logits(answer: Classification) -> tuple[float, ...]:
    return answer.logits


def _probabilities(answer: Classification) -> tuple[float, ...]:
    return to_fp32([score for _, score in answer.scores])


_NUMERIC: dict[str, Callable[[Classification], tuple[float, ...]]] = {
    "logits": _logits,
    "probabilities": _probabilities,
}
"""Outputs with a value for each label."""


def _label(answers: Answers) -> OutputTensor:
    labels = [utf8(best_first(answer.scores)[0][0]) for answer in answers]
    return OutputTensor("label", "BYTES", (len(answers), 1), labels)


def _token_count(answers: Answers) -> OutputTensor:
    return OutputTensor("token_count", "INT32", (len(answers), 1), [answer.token_count for answer in answers])


_OTHERS: dict[str, Callable[[Answers], OutputTensor]] = {"label": _label, "token_count": _token_count}
NAMES = (*_NUMERIC, *_OTHERS)


def check_outputs(requested: Sequence[RequestedOutput]) -> None:
    """Check that the outputs exist, before anything is computed.

    Raises:
        BadInput: one does not, is requested twice, or has no classes to return.
    """
    seen: set[str] = set()
    for output in requested:
        if output.name not in NAMES:
            raise BadInput(f"there is no output {_shown(output.name)}; the outputs are {', '.join(NAMES)}")
        if output.name in seen:
            raise BadInput(f"output '{output.name}' is requested twice")
        seen.add(output.name)
        if output.class_count and output.name not in _NUMERIC:
            raise BadInput(
                f"output '{output.name}' has no classes; the classification extension is for "
                f"{' and '.join(_NUMERIC)}"
            )
        if output.class_count < 0:
            raise BadInput(f"the class count of output '{output.name}' must be positive")


def make_outputs(answers: Answers, requested: Sequence[RequestedOutput]) -> list[OutputTensor]:
    """Make the requested outputs, in their order; all outputs if none is requested."""
    return [_make(output, answers) for output in requested or map(RequestedOutput, NAMES)]


def _make(output: RequestedOutput, answers: Answers) -> OutputTensor:
    values = _NUMERIC.get(output.name)
    if values is None:
        return _OTHERS[output.name](answers)
    rows = [values(answer) for answer in answers]
    if output.class_count:
        return _classes(output, answers, rows)
    return OutputTensor(output.name, "FP32", (len(rows), len(rows[0])), list(chain.from_iterable(rows)))


def _classes(output: RequestedOutput, answers: Answers, rows: Sequence[tuple[float, ...]]) -> OutputTensor:
    """Make ``value:index:label`` of the best classes, best first (Triton's classification extension)."""
    count = min(output.class_count, len(rows[0]))
    classes: list[bytes] = []
    for answer, row in zip(answers, rows, strict=True):
        best = sorted(range(len(row)), key=row.__getitem__, reverse=True)[:count]
        classes += (utf8(f"{row[index]:f}:{index}:{answer.scores[index][0]}") for index in best)
    return OutputTensor(output.name, "BYTES", (len(rows), count), classes)


def _shown(name: str) -> str:
    return f"'{name[:100]}'"
