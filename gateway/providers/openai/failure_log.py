"""Writes down why an upstream has failed: the address that was asked, and the system's own words."""

import logging
from urllib.parse import urlsplit

from gateway.core.upstream_errors import UpstreamAuthFailed, UpstreamFailed, UpstreamRefused
from gateway.providers.transport.base import TransportRequest

log = logging.getLogger(__name__)

_MAX_WORDS = 500
_MAX_CAUSES = 4


def note(request: TransportRequest, error: UpstreamFailed, request_id: str) -> None:
    """Logs an error that clients see as 502, 503 or 504, one of the gateway's key, and one that tells of a wrong address.

    What an upstream says about a client's request is the client's matter, and is not logged. ``request_id`` is the one that the
    client was given, empty for a request of the gateway's own.
    """
    extra: dict[str, object] = {
        "address": shown_address(request.url),
        "status": error.status,
        "problem": error.message[:_MAX_WORDS],
    }
    if request_id:
        extra["request_id"] = request_id
    if words := _causes(error):
        extra["cause"] = words
    if isinstance(error, UpstreamAuthFailed):
        log.error("the upstream refuses the gateway's key", extra={**extra, "upstream_status": error.upstream_status})
    elif not isinstance(error, UpstreamRefused) or error.status >= 500:
        log.warning("the upstream failed", extra=extra)
    elif error.openai_body is None and error.status in (404, 405):
        log.warning("the upstream has no such address; is GATEWAY_UPSTREAM_URL right?", extra=extra)


def shown_address(url: str) -> str:
    """Returns a URL without its query and without a name or password in it."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "not a URL"
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _causes(error: BaseException) -> str:
    """Returns what the errors say that led to this one."""
    found: list[str] = []
    cause = error.__cause__
    while cause is not None and len(found) < _MAX_CAUSES:
        found.append(f"{type(cause).__name__}: {cause}")
        cause = cause.__cause__ or cause.__context__
    return "; ".join(found)[:_MAX_WORDS]
