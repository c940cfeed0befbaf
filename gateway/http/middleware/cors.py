"""Cross-origin access for the exact origins that the operator named; for all others there is none. Pure."""

from collections.abc import Mapping

_ALLOWED_HEADERS = (
    "Authorization, Content-Type, X-API-Key, X-API-Token, API-Token, api-key, x-goog-api-key, OpenAI-Beta, "
    "OpenAI-Organization, OpenAI-Project, X-Client-Request-Id, X-Stainless-Arch, X-Stainless-Lang, X-Stainless-OS, "
    "X-Stainless-Package-Version, X-Stainless-Retry-Count, X-Stainless-Runtime, X-Stainless-Runtime-Version, "
    "X-Stainless-Timeout"
)
_EXPOSED_HEADERS = "x-request-id, openai-processing-ms, retry-after, retry-after-ms, x-should-retry, server-timing"


def answer_headers(origin: str | None, allowed: frozenset[str]) -> dict[str, str]:
    """What an answer to this origin carries; nothing for an origin that is not allowed."""
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
    """The answer to a preflight request of an allowed origin; None for everything else."""
    origin = headers.get("Origin")
    if method != "OPTIONS" or origin is None or "Access-Control-Request-Method" not in headers:
        return None
    if origin.lower() not in allowed:
        return None
    return {
        **answer_headers(origin, allowed),
        "Access-Control-Allow-Methods": "GET, POST, PUT, PATCH, DELETE",
        "Access-Control-Allow-Headers": _ALLOWED_HEADERS,
        "Access-Control-Max-Age": "600",
    }
