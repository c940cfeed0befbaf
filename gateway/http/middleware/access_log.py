"""What is written down of a request: one access line, and the counters. Never the query, never a header's secret."""

import time
from collections.abc import Callable

import msgspec

from gateway.core.clock import to_local_iso
from gateway.http.context import RequestContext
from gateway.observability.logging import LineWriter
from gateway.observability.metrics import Metrics
from gateway.observability.redaction import Redactor, cached_redactor

CLIENT_GONE = 499
"""The status that is logged, never sent, for a client that left (nginx's number for it)."""
_MAX_SHOWN = 200


class AccessLogEntry(msgspec.Struct):
    """What one request was. Times in milliseconds."""

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


class AccessLog:
    """Writes access lines to ``lines`` (None: nowhere) and counts."""

    def __init__(self, metrics: Metrics, lines: LineWriter | None, redactor: Redactor, as_json: bool) -> None:
        self._metrics = metrics
        self._lines = lines
        self._format: Callable[[AccessLogEntry], bytes] = msgspec.json.Encoder().encode if as_json else _for_console
        self._second = 0
        self._second_text = ""
        self._shown = cached_redactor(redactor, _MAX_SHOWN)

    def ended(self, ctx: RequestContext, status: int) -> None:
        seconds = time.perf_counter() - ctx.began
        route = ctx.route.pattern if ctx.route else "unknown"
        self._metrics.count_response(route, status, seconds)
        usage_tracker = ctx.usage_tracker
        if usage_tracker is not None:
            usage = usage_tracker.usage
            self._metrics.count_usage(
                (usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens, usage.reasoning_tokens),
                usage_tracker.cost,
                is_estimated=usage_tracker.is_estimated,
                is_partial=usage_tracker.is_partial,
            )
            if usage_tracker.first_byte_seconds is not None:
                self._metrics.observe_first_byte(route, usage_tracker.first_byte_seconds)
        if self._lines is not None:
            self._lines.write_bytes(self._format(self._line(ctx, status, seconds)))

    def _line(self, ctx: RequestContext, status: int, seconds: float) -> AccessLogEntry:
        principal, usage_tracker = ctx.principal, ctx.usage_tracker
        return AccessLogEntry(
            time=self._time(),
            level="info",
            logger="access",
            request_id=ctx.id,
            client_request_id=self._client_request_id(ctx),
            client=ctx.client.address,
            method=ctx.method[:20],
            path=ctx.path if ctx.route and not ctx.params else self._shown(ctx.path),
            token_id=principal.token_id if principal else None,
            token=self._shown(principal.name) if principal else None,
            model=ctx.model and self._shown(ctx.model),
            deployment=ctx.backend,
            status=status,
            bytes=ctx.bytes_sent,
            prompt_tokens=usage_tracker.usage.prompt_tokens if usage_tracker else None,
            completion_tokens=usage_tracker.usage.completion_tokens if usage_tracker else None,
            cost_micro_usd=usage_tracker.cost if usage_tracker else None,
            ms=round(seconds * 1000, 2),
            upstream_ms=round(ctx.upstream_seconds * 1000, 2),
        )

    def _time(self) -> str:
        """Now in ISO 8601, with the part before the fraction made once a second."""
        now = time.time()
        second = int(now)
        if second != self._second:
            self._second = second
            self._second_text = to_local_iso(second)
        return f"{self._second_text}.{int((now - second) * 1000):03d}Z"

    def _client_request_id(self, ctx: RequestContext) -> str | None:
        given = ctx.request.headers.get("X-Client-Request-Id")
        return None if given is None else self._shown(given)


def _for_console(line: AccessLogEntry) -> bytes:
    named = (("token", line.token), ("model", line.model), ("deployment", line.deployment))
    rest = " ".join(f"{name}={value!r}" for name, value in named if value is not None)
    head = f"{line.method} {line.path} {line.status} {line.ms} ms"
    return f"{line.time[11:19]} {ascii(head)[1:-1]} {rest} {line.request_id}".encode()
