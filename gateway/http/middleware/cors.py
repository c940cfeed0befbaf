"""Cross-origin access for the exact origins that the operator named; for all others there is none."""

from collections.abc import Mapping

from gateway.http.context import RequestContext
from gateway.http.middleware.base import Middleware
from gateway.http.response import Response

_ALLOWED_HEADERS = (
    "Authorization, Content-Type, X-API-Key, X-API-Token, API-Token, api-key, x-goog-api-key, OpenAI-Beta, "
    "OpenAI-Organization, OpenAI-Project, X-Client-Request-Id, X-Stainless-Arch, X-Stainless-Lang, X-Stainless-OS, "
    "X-Stainless-Package-Version, X-Stainless-Retry-Count, X-Stainless-Runtime, X-Stainless-Runtime-Version, "
    "X-Stainless-Timeout, X-Stainless-Read-Timeout, X-Stainless-Helper-Method, X-Stainless-Helper, X-Stainless-Poll-Helper, "
    "X-Stainless-Custom-Poll-Interval, X-Stainless-Async, X-Stainless-Raw-Response, Idempotency-Key, anthropic-version, "
    "anthropic-beta, anthropic-dangerous-direct-browser-access, traceparent, tracestate"
)
_EXPOSED_HEADERS = (
    "x-request-id, openai-processing-ms, openai-version, retry-after, retry-after-ms, x-should-retry, server-timing, "
    "x-ratelimit-limit-requests, x-ratelimit-remaining-requests, x-ratelimit-reset-requests, x-ratelimit-limit-tokens, "
    "x-ratelimit-remaining-tokens, x-ratelimit-reset-tokens, x-ratelimit-reset-budget, content-disposition"
)


class Cors(Middleware):
    """Answers preflight requests, and adds headers to every response."""

    def __init__(self, origins: frozenset[str]) -> None:
        """``origins`` are in lower case."""
        self._origins = origins

    def before(self, ctx: RequestContext) -> Response | None:
        headers = ctx.request.headers
        ctx.extra_headers = response_headers(headers.get("Origin"), self._origins)
        preflight = preflight_headers(ctx.method, headers, self._origins)
        if preflight is None:
            return None
        ctx.extra_headers = preflight
        return Response(204, {})


def response_headers(origin: str | None, allowed: frozenset[str]) -> dict[str, str]:
    """Returns what a response to this origin carries: nothing that helps an origin that is not allowed."""
    if not allowed:
        return {}
    if origin is None or origin.lower() not in allowed:
        return {"Vary": "Origin"}
    return {
        "Access-Control-Allow-Origin": origin,
        "Access-Control-Expose-Headers": _EXPOSED_HEADERS,
        "Vary": "Origin",
    }


def preflight_headers(method: str, headers: Mapping[str, str], allowed: frozenset[str]) -> dict[str, str] | None:
    """Returns the headers that answer a preflight request of an allowed origin; None for everything else."""
    origin = headers.get("Origin")
    if method != "OPTIONS" or origin is None or "Access-Control-Request-Method" not in headers:
        return None
    if origin.lower() not in allowed:
        return None
    return {
        **response_headers(origin, allowed),
        "Access-Control-Allow-Methods": "GET, POST, PUT, PATCH, DELETE",
        "Access-Control-Allow-Headers": _ALLOWED_HEADERS,
        "Access-Control-Max-Age": "600",
    }
