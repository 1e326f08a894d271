"""The exporter's reports of the served models: figures, without a text that they were measured on."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

from gateway.api.context import RequestContext
from gateway.domain.catalogue import Model
from gateway.domain.errors import BadInput
from gateway.pipeline.model_label import label_with_model
from gateway.server.message import Header, Response

_SHA256 = re.compile(r"[0-9a-f]{64}")
_HTML = b"text/html; charset=utf-8"
_POLICY: Header = (
    b"content-security-policy",
    b"default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
    b"frame-ancestors 'none'; sandbox",
)


class Reports:
    """Finds the report of a model by the digest of its weights, so that it is never that of another version.

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
        except OSError:
            body = None
        if body is None:
            raise BadInput("Error: this model has no report")
        return Response(200, body, content_type=_HTML, headers=[_POLICY])

    def properties(self, model: Model) -> list[dict[str, object]]:
        """Where callers find the report, as a property of the model's record, relative to ``…/ai/``."""
        file = self._file(model)
        if file is None or not file.is_file():
            return []
        return [{"property_id": "report", "value": f"models/report?model={quote(model.name, safe='')}"}]

    def _file(self, model: Model) -> Path | None:
        # Both come from Triton's configuration, which may be another person's.
        is_name = Path(model.ensemble).name == model.ensemble
        if self._folder is None or not is_name or not _SHA256.fullmatch(model.model_sha256):
            return None
        return self._folder / model.ensemble / f"figures-{model.model_sha256[:16]}.html"
