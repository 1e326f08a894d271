"""What becomes of texts with more tokens than their model reads: they are cut, or read in windows.

A caller asks with ``?long=window``, or with ``options.long`` of the body, which is how a Worker's binding
sends options. Only classifiers have windows: a reranker's pairs are cut, whatever the setting says.
"""

from __future__ import annotations

from typing import cast

from gateway.domain.catalogue import Model
from gateway.domain.errors import BadInput
from gateway.domain.options import LongTexts
from gateway.domain.tasks import Task
from gateway.domain.windows import reads_windows
from gateway.server.message import HttpRequest

_CHOICES = ("cut", "window")


def asked_in_query(request: HttpRequest) -> LongTexts | None:
    """Return what the query asks for; None if it does not say.

    Raises:
        BadInput: it asks for something that does not exist.
    """
    asked = request.query("long")
    if asked is not None and asked not in _CHOICES:
        raise BadInput("Error: query parameter 'long' must be 'cut' or 'window'")
    return cast("LongTexts | None", asked)


def asked_in_body(options: object) -> LongTexts | None:
    """Return what the options of a body ask for; None if they do not say.

    Raises:
        BadInput: they ask for something that does not exist.
    """
    asked = options.get("long") if isinstance(options, dict) else None
    if asked is not None and asked not in _CHOICES:
        raise BadInput("Error: '/options/long' must be 'cut' or 'window'")
    return cast("LongTexts | None", asked)


def choose(model: Model, asked: LongTexts | None, default: LongTexts) -> LongTexts:
    """Return what becomes of long texts for a model.

    Args:
        model: answers.
        asked: for this call; None if nothing was.
        default: the setting, which concerns models that read windows.

    Raises:
        BadInput: the call asks for windows, and the model has none.
    """
    if asked is None:
        return default if reads_windows(model) else "cut"
    if asked == "window" and model.task is Task.RERANK:
        raise BadInput("Error: 'long' must be 'cut' for a reranker: its contexts have no windows")
    if asked == "window" and not reads_windows(model):
        raise BadInput(
            "Error: 'long' must be 'cut' for this model: it was exported without windows, export it again"
        )
    return asked
