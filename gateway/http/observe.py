"""What is written down of a request: one access line, and the counters. Never the query, never a header's secret."""

import time
from collections.abc import Callable

import msgspec

from gateway.clock import to_local_iso
from gateway.http.call import Call
from gateway.log import LineWriter
from gateway.masking import Masker
from gateway.metrics import Metrics

CLIENT_GONE = 499
"""The status that is logged, never sent, for a client that left (nginx's number for it)."""
_MAX_SHOWN = 200


class Observer:
    """Writes access lines to ``lines`` (None: nowhere) and counts."""

    def __init__(self, metrics: Metrics, lines: LineWriter | None, masker: Masker, as_json: bool) -> None:
        self._metrics = metrics
        self._lines = lines
        self._masker = masker
        self._second = 0
        self._second_text = ""
        self._format: Callable[[dict[str, object]], str] = _as_json if as_json else _for_console

    def ended(self, call: Call, status: int) -> None:
        seconds = time.perf_counter() - call.began
        self._metrics.answered(call.route.pattern if call.route else "unknown", status, seconds)
        if self._lines is not None:
            self._lines.write(self._format(self._fields(call, status, seconds)))

    def _fields(self, call: Call, status: int, seconds: float) -> dict[str, object]:
        principal = call.principal
        return {
            "time": self._time(),
            "level": "info",
            "logger": "access",
            "request_id": call.id,
            "client_request_id": self._client_request_id(call),
            "client": call.client.address,
            "method": call.method[:20],
            # A path that is not fixed may be anything, even a secret in the wrong place.
            "path": call.path if call.route and not call.params else self._shown(call.path),
            "token_id": principal.token_id if principal else None,
            "token": principal.name if principal else None,
            "model": call.model and self._shown(call.model),
            "deployment": call.backend,
            "status": status,
            "bytes": call.bytes_sent,
            "ms": round(seconds * 1000, 2),
            "upstream_ms": round(call.upstream_seconds * 1000, 2),
        }

    def _time(self) -> str:
        """Now in ISO 8601, with the part before the fraction made once a second."""
        now = time.time()
        second = int(now)
        if second != self._second:
            self._second = second
            self._second_text = to_local_iso(second)
        return f"{self._second_text}.{int((now - second) * 1000):03d}Z"

    def _client_request_id(self, call: Call) -> str | None:
        given = call.request.headers.get("X-Client-Request-Id")
        return None if given is None else self._shown(given)

    def _shown(self, text: str) -> str:
        """Headers and paths may hold bytes that are no text."""
        return self._masker(text[:_MAX_SHOWN].encode("utf-8", "backslashreplace").decode())


def _as_json(fields: dict[str, object]) -> str:
    return msgspec.json.encode(fields).decode("utf-8", "replace")


def _for_console(fields: dict[str, object]) -> str:
    time_of_day = str(fields["time"])[11:19]
    rest = " ".join(f"{name}={fields[name]!r}" for name in ("token", "model", "deployment") if fields[name] is not None)
    head = f"{fields['method']} {fields['path']} {fields['status']} {fields['ms']} ms"
    return f"{time_of_day} {ascii(head)[1:-1]} {rest} {fields['request_id']}"
