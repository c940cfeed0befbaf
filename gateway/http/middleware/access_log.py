"""Writes one line and the metrics of each request, when it ends: never the query, never a secret."""

import time
from collections.abc import Callable

import msgspec

from gateway.core.clock import to_local_iso
from gateway.core.escaping import for_display
from gateway.http.context import RequestContext
from gateway.http.middleware.base import Middleware
from gateway.observability.logging import LogWriter
from gateway.observability.metrics import Metrics
from gateway.observability.redaction import Redactor, cached_redactor

_MAX_SHOWN = 200


class AccessLogEntry(msgspec.Struct):
    """The fields of a line. Times in milliseconds."""

    time: str
    level: str
    logger: str
    request_id: str
    client_request_id: str | None
    client: str | None
    method: str
    path: str
    token_id: str | None
    token: str | None
    model: str | None
    deployment: str | None
    status: int
    bytes: int
    prompt_tokens: int | None
    completion_tokens: int | None
    cost_micro_usd: int | None
    ms: float
    upstream_ms: float
    reason: str | None
    """Why the request was refused, with the key made unreadable; None unless its status is 401 or 403."""


class AccessLog(Middleware):
    """Writes lines to ``lines`` (None: nowhere) and counts."""

    def __init__(self, metrics: Metrics, lines: LogWriter | None, redactor: Redactor, as_json: bool) -> None:
        self._metrics = metrics
        self._lines = lines
        self._format: Callable[[AccessLogEntry], bytes] = (
            msgspec.json.Encoder().encode if as_json else _format_for_console
        )
        self._second = 0
        self._second_text = ""
        self._redact = cached_redactor(redactor, _MAX_SHOWN)

    def after(self, ctx: RequestContext, status: int) -> None:
        seconds = time.perf_counter() - ctx.began
        route = ctx.route.pattern if ctx.route else "unknown"
        tracked = ctx.inference.usage if ctx.inference is not None else None
        self._metrics.count_response(route, status, seconds, tracked)
        if self._lines is not None:
            self._lines.write_bytes(self._format(self._entry(ctx, status, seconds)))

    def _entry(self, ctx: RequestContext, status: int, seconds: float) -> AccessLogEntry:
        principal, inference = ctx.principal, ctx.inference
        usage = inference.usage if inference is not None else None
        return AccessLogEntry(
            time=self._time(),
            level="info",
            logger="access",
            request_id=ctx.id,
            client_request_id=self._client_request_id(ctx),
            client=ctx.client_address,
            method=ctx.method[:20],
            path=ctx.path if ctx.route and not ctx.params else self._redact(ctx.path),
            token_id=principal.token_id if principal else None,
            token=self._redact(principal.name) if principal else None,
            model=inference.model and self._redact(inference.model) if inference else None,
            deployment=inference.deployment if inference else None,
            status=status,
            bytes=ctx.bytes_sent,
            prompt_tokens=usage.usage.prompt_tokens if usage else None,
            completion_tokens=usage.usage.completion_tokens if usage else None,
            cost_micro_usd=usage.cost if usage else None,
            ms=round(seconds * 1000, 2),
            upstream_ms=round(inference.upstream_seconds * 1000, 2) if inference else 0.0,
            reason=self._redact(ctx.error.message) if ctx.error is not None and status in (401, 403) else None,
        )

    def _time(self) -> str:
        """Returns the time in ISO 8601. The part before the fraction is formatted once a second."""
        now = time.time()
        second = int(now)
        if second != self._second:
            self._second = second
            self._second_text = to_local_iso(second)
        return f"{self._second_text}.{int((now - second) * 1000):03d}Z"

    def _client_request_id(self, ctx: RequestContext) -> str | None:
        given = ctx.request.headers.get("X-Client-Request-Id")
        return None if given is None else self._redact(given)


def _format_for_console(line: AccessLogEntry) -> bytes:
    named = (
        ("token", line.token),
        ("model", line.model),
        ("deployment", line.deployment),
        ("reason", line.reason),
    )
    rest = " ".join(f"{name}={value!r}" for name, value in named if value is not None)
    head = f"{line.method} {line.path} {line.status} {line.ms} ms"
    return for_display(f"{line.time[11:19]} {head} {rest} {line.request_id}").encode()
