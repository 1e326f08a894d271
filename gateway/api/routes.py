"""Which path leads to which handler."""

from __future__ import annotations

from gateway.api.ai_gateway.universal import Universal
from gateway.api.models import ModelQueries
from gateway.api.operations import Operations
from gateway.api.playground import DESCRIPTION, serve_description, serve_playground
from gateway.api.reports import Reports
from gateway.api.router import Route
from gateway.api.run import RunModel
from gateway.api.verify_token import VerifyToken

API_PREFIX = "/client/v4"
"""What a client appends to the gateway's address to get its base URL."""

_ACCOUNT = API_PREFIX + "/accounts/{account_id}"
_GET = ("GET", "HEAD")
_OTHER_APIS = frozenset(
    ("audio", "batches", "chat", "files", "images", "messages", "models", "realtime", "responses", "threads")
)
"""First segments below ``/v1`` in the APIs of OpenAI and Anthropic, which clients try on any server."""


def run_routes(run_model: RunModel) -> tuple[Route, ...]:
    """Routes in the order in which they are tried: the busiest first."""
    return (
        Route(("POST",), _ACCOUNT + "/ai/run/{model:path}", run_model),
        Route(("POST",), _ACCOUNT + "/ai/run", run_model.by_body),
    )


def ai_gateway_routes(run_model: RunModel, universal: Universal) -> tuple[Route, ...]:
    """Routes of Cloudflare's AI Gateway; the model may stand behind ``run/``."""
    gateway = "/v1/{account_id}/{gateway_id}"
    return (
        Route(("POST",), gateway + "/workers-ai/{model:path}", run_model.as_ai_gateway, ai_gateway=True),
        Route(("POST",), gateway, universal, ai_gateway=True, reserved=_OTHER_APIS),
        # As getUrl() writes it.
        Route(("POST",), gateway + "/", universal, ai_gateway=True, reserved=_OTHER_APIS),
    )


def query_routes(models: ModelQueries, reports: Reports, verify: VerifyToken) -> tuple[Route, ...]:
    """Routes of what is asked about models and tokens."""
    return (
        Route(_GET, _ACCOUNT + "/ai/models/search", models.search),
        Route(_GET, _ACCOUNT + "/ai/models/schema", models.schema),
        Route(_GET, _ACCOUNT + "/ai/models/report", reports.report),
        Route(_GET, _ACCOUNT + "/ai/tasks/search", models.tasks),
        Route(_GET, _ACCOUNT + "/ai/authors/search", models.authors),
        Route(_GET, _ACCOUNT + "/ai/v1/models", models.openai),
        Route(_GET, _ACCOUNT + "/tokens/verify", verify.of_account, checks_token=True),
        Route(_GET, API_PREFIX + "/user/tokens/verify", verify.of_user, checks_token=True),
    )


def operations_routes(operations: Operations) -> tuple[Route, ...]:
    """Routes of operators; no token is asked for."""
    return (
        Route(_GET, "/livez", operations.livez, api=False),
        Route(_GET, "/readyz", operations.readyz, api=False),
        Route(_GET, "/metrics", operations.metrics, api=False),
    )


def page_routes(playground: bool) -> tuple[Route, ...]:
    """Routes of the description and, if they are served, of the playground and the page about the API."""
    described = Route(_GET, DESCRIPTION, serve_description(playground=playground), api=False)
    shown = serve_playground() if playground else {}
    return (described, *(Route(_GET, path, handler, api=False) for path, handler in shown.items()))
