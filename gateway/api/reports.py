"""The exporter's reports of the served models: figures, without a text that they were measured on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from os.path import isfile
from pathlib import Path
from urllib.parse import quote

from gateway.api.context import RequestContext
from gateway.domain.catalogue import Model
from gateway.domain.errors import BadInput
from gateway.pipeline.model_label import label_with_model
from gateway.server.message import Header, Response

_HTML = b"text/html; charset=utf-8"
_POLICY: Header = (
    b"content-security-policy",
    b"default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
    b"frame-ancestors 'none'; sandbox",
)


class Reports:
    """Finds the report of a model by the digest of its version, so that it is never that of another one.

    The exporter also keeps reports with texts in the same folder; they have other names and are not served.
    """

    def __init__(self, folder: Path | None, find: Callable[[str], Model]) -> None:
        """Take the exporter's folder of artefacts, or None for no reports, and ``Catalogue.find``."""
        self._folder = folder
        self._find = find

    async def report(self, request: RequestContext) -> Response:
        """Answer with the HTML page about ``?model=``.

        Raises:
            BadInput: no model is named, or it has no report.
            NoSuchModel: it is not served.
            BackendUnavailable: no model at all is known.
        """
        name = request.http.query("model")
        if not name:
            raise BadInput("Error: query parameter 'model' is required")
        file = self._file(label_with_model(request.record, self._find, name))
        try:
            body = await asyncio.to_thread(file.read_bytes) if file else None
        except (OSError, ValueError):  # ValueError: a name that no file can have
            body = None
        if body is None:
            raise BadInput("Error: this model has no report")
        return Response(200, body, content_type=_HTML, headers=[_POLICY])

    async def properties(self, models: Sequence[Model]) -> list[list[dict[str, object]]]:
        """Where callers find the reports, as properties of each model's record, relative to ``…/ai/``."""
        files = [self._file(model) for model in models]
        if not any(files):
            return [[] for _ in models]
        # In a thread: a network folder may hang. Unlike Path.is_file, isfile raises nothing.
        found = await asyncio.to_thread(lambda: [file is not None and isfile(file) for file in files])
        return [
            [{"property_id": "report", "value": f"models/report?model={quote(model.name, safe='')}"}]
            * is_there
            for model, is_there in zip(models, found, strict=True)
        ]

    def _file(self, model: Model) -> Path | None:
        # The name comes from Triton's configuration, which may be another person's.
        name, digest = model.ensemble, model.version_id.partition("-")[2]
        if self._folder is None or name in ("", ".", "..") or Path(name).name != name or not digest:
            return None
        return self._folder / name / f"figures-{digest}.html"
