"""Turns the errors that an upstream reports into ours: passed on where they have OpenAI's shape, wrapped where they have not."""

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
_TAG = re.compile(r"<[^<>]{0,1000}>")

NO_ERROR = msgspec.Raw(b"null")
Redact = Callable[[str], str]


async def read_body(response: TransportResponse) -> bytes:
    """Returns the body of an error, empty where it is too large or breaks off: its status says enough."""
    try:
        return await response.read(MAX_ERROR_BYTES)
    except UpstreamFailed:
        return b""


def from_body(status: int, body: bytes, headers: Mapping[str, str], redact: Redact) -> UpstreamRefused:
    """Returns the error for a response with status 400 or above. ``redact`` cuts secrets out of a text."""
    text = redact(body.decode("utf-8", "replace"))
    content = _decode(text)
    if _is_openai_shaped(content):
        return UpstreamRefused(
            status, redact(str(content["error"]["message"])), headers, redacted(text.encode(), content, redact)
        )
    message = _shortened(redact(_message_in(content))) or _without_markup(text) or "nothing more"
    return UpstreamRefused(status, f"The upstream answered {status}: {message}", headers)


def from_event(error: Any, headers: Mapping[str, str], redact: Redact) -> UpstreamRefused:
    """Returns the error for one that was reported with status 200. Its own code is the status if it is one, else 502."""
    code = error.get("code") if isinstance(error, dict) else None
    status = code if isinstance(code, int) and not isinstance(code, bool) and 400 <= code <= 599 else 502
    message = (error.get("message") if isinstance(error, dict) else error) or "nothing more"
    return UpstreamRefused(status, f"The upstream reported an error: {_shortened(redact(str(message)))}", headers)


def decode_reported(error: msgspec.Raw) -> Any:
    """Returns the error that a response with status 200 reports, falsy where it reports none."""
    return "an error too large to show" if len(bytes(error)) > MAX_ERROR_BYTES else msgspec.json.decode(error)


def redacted(body: bytes, content: Any, redact: Redact) -> bytes:
    """Returns ``body``, or its ``content`` encoded again where a secret occurs in it, however JSON spells it there."""
    plain = msgspec.json.encode(content).decode()
    clean = redact(plain)
    return body if clean == plain else clean.encode()


def redacted_event(chunk: StreamChunk, redact: Redact) -> bytes:
    """Returns an event that reports an error, in the upstream's own bytes unless a secret occurs in them."""
    clean = redacted(chunk.data, {"error": chunk.error}, redact)
    return chunk.data if clean is chunk.data else sse.encode_event(clean)


def _decode(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return None


def _is_openai_shaped(content: Any) -> bool:
    error = content.get("error") if isinstance(content, dict) else None
    return isinstance(error, dict) and {"message", "type", "param", "code"} <= error.keys()


def _message_in(content: Any) -> str:
    """Returns the message in one of the shapes of other servers: ``{"error": {"message"}}``, ``{"error": "…"}``,
    ``{"message"}``, ``{"detail"}``; empty where there is none."""
    if not isinstance(content, dict):
        return ""
    inner = content.get("error")
    for message in (
        inner.get("message") if isinstance(inner, dict) else inner,
        content.get("message"),
        content.get("detail"),
    ):
        if message:
            return message if isinstance(message, str) else msgspec.json.encode(message).decode()
    return ""


def _without_markup(text: str) -> str:
    """Returns an excerpt without mark-up and control characters, for a person to read."""
    return _shortened(" ".join(_TAG.sub(" ", text[:20_000]).split()))


def _shortened(text: str) -> str:
    printable = "".join(char if char.isprintable() else " " for char in text[:_EXCERPT])
    return printable + "…" if len(text) > _EXCERPT else printable
