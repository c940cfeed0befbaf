"""Errors that an upstream reports: passed through where they have OpenAI's shape, put into it where not."""

import re
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from gateway.core import sse
from gateway.core.errors import UpstreamFailed, UpstreamRefused
from gateway.providers.openai.streaming import StreamChunk
from gateway.providers.transport.base import TransportResponse

MAX_ERROR_BYTES = 1024 * 1024
_EXCERPT = 300
_TAG = re.compile(r"<[^>]{0,1000}>")

Redact = Callable[[str], str]


async def read_body(response: TransportResponse) -> bytes:
    """The body of an error, empty where it is too large or breaks off: its status says enough."""
    try:
        return await response.read(MAX_ERROR_BYTES)
    except UpstreamFailed:
        return b""


def from_body(status: int, body: bytes, headers: Mapping[str, str], redact: Redact) -> UpstreamRefused:
    """An answer of 400 and above."""
    text = redact(body.decode("utf-8", "replace"))
    content = _decoded(text)
    if _is_openai_shaped(content):
        return UpstreamRefused(
            status, redact(str(content["error"]["message"])), headers, redacted(text.encode(), content, redact)
        )
    said = _shortened(redact(_message_in(content))) or _plain(text) or "nothing more"
    return UpstreamRefused(status, f"The upstream answered {status}: {said}", headers)


def from_event(error: Any, headers: Mapping[str, str], redact: Redact) -> UpstreamRefused:
    """An error that came with a 200. Its own code is the status if it is one, else 502."""
    code = error.get("code") if isinstance(error, dict) else None
    status = code if isinstance(code, int) and not isinstance(code, bool) and 400 <= code <= 599 else 502
    said = (error.get("message") if isinstance(error, dict) else error) or "nothing more"
    return UpstreamRefused(status, f"The upstream reported an error: {_shortened(redact(str(said)))}", headers)


def redacted(body: bytes, content: Any, redact: Redact) -> bytes:
    """``body``, or its ``content`` written anew where a secret stands in it, however JSON may have spelt it."""
    plain = msgspec.json.encode(content).decode()
    clean = redact(plain)
    return body if clean == plain else clean.encode()


def redacted_event(piece: StreamChunk, redact: Redact) -> bytes:
    """An event that reports an error, in the upstream's own bytes where no secret stands in them."""
    event = {"error": piece.error}
    clean = redacted(piece.data, event, redact)
    return piece.data if clean is piece.data else sse.encode_event(clean)


def _decoded(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return None


def _is_openai_shaped(content: Any) -> bool:
    error = content.get("error") if isinstance(content, dict) else None
    return isinstance(error, dict) and {"message", "type", "param", "code"} <= error.keys()


def _message_in(content: Any) -> str:
    """Where other servers keep their words: ``{"error": {"message"}}``, ``{"error": "…"}``, ``{"message"}``, ``{"detail"}``."""
    if not isinstance(content, dict):
        return ""
    inner = content.get("error")
    for said in (
        inner.get("message") if isinstance(inner, dict) else inner,
        content.get("message"),
        content.get("detail"),
    ):
        if said:
            return said if isinstance(said, str) else msgspec.json.encode(said).decode()
    return ""


def _plain(text: str) -> str:
    """An excerpt without mark-up and control characters, for a person to read."""
    return _shortened(" ".join(_TAG.sub(" ", text[:20_000]).split()))


def _shortened(text: str) -> str:
    printable = "".join(char if char.isprintable() else " " for char in text[:_EXCERPT])
    return printable + "…" if len(text) > _EXCERPT else printable
