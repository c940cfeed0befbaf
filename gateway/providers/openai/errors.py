"""Turns the errors that an upstream reports into ours. What it says stays; what is missing of OpenAI's shape is filled in."""

import re
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from gateway.core import lenient_json, sse
from gateway.core.escaping import for_json
from gateway.core.upstream_errors import UpstreamAuthFailed, UpstreamFailed, UpstreamRefused, UpstreamReported
from gateway.providers.openai import error_shapes
from gateway.providers.openai.error_shapes import ReportedError
from gateway.providers.openai.streaming import StreamChunk
from gateway.providers.transport.base import TransportResponse

MAX_ERROR_BYTES = 1024 * 1024
_EXCERPT = 300
_TAG = re.compile(r"<[^<>]{0,1000}>")
_MASKED_KEY = re.compile(r"\S{0,200}\*{3}\S{0,200}")
"""A key of which the upstream shows a part: OpenAI leaves the first and the last four characters."""

NO_ERROR = msgspec.Raw(b"null")
Redact = Callable[[str], str]


async def read_body(response: TransportResponse) -> bytes:
    """Returns the body of an error, empty where it is too large or breaks off: its status says enough."""
    try:
        return await response.read(MAX_ERROR_BYTES)
    except UpstreamFailed:
        return b""


def from_body(status: int, body: bytes, headers: Mapping[str, str], redact: Redact) -> UpstreamFailed:
    """Returns the error for a response with status 400 or above. ``redact`` cuts secrets out of a text."""
    text = redact(_decoded(body))
    content, is_framed = error_shapes.decode(text.encode())
    answered = f"The upstream answered {status}: {_without_markup(text) or 'nothing more'}"
    reported = error_shapes.read_any_error(content, answered)
    if reported is not None:
        own_body = lenient_json.encode(reported.document) if is_framed or isinstance(content, list) else text.encode()
        return _refused(status, reported, own_body, headers, redact)
    if status in (401, 403):
        return _auth_failed(status, _without_markup(text) or "nothing more", headers)
    return UpstreamRefused(status, answered, headers)


def from_report(content: Any, headers: Mapping[str, str], redact: Redact) -> UpstreamFailed:
    """Returns the error for a document that reports one with status 200. The status is the one that it names, else 502."""
    reported = error_shapes.read_error(content)
    if reported is None:
        return UpstreamRefused(502, "The upstream reported an error: nothing more", headers)
    status = error_shapes.named_status(reported.document) or 502
    return _refused(status, reported, lenient_json.encode(reported.document), headers, redact)


def _refused(
    status: int, reported: ReportedError, body: bytes, headers: Mapping[str, str], redact: Redact
) -> UpstreamFailed:
    """Returns the error with the upstream's own ``body`` where that is complete, else with the completed document."""
    document, message = reported.document, redact(reported.message)
    if status == 401 or (status == 403 and not error_shapes.is_about_content(document)):
        return _auth_failed(status, message, headers)
    original = redacted(body, document, redact)
    completed = original if reported.was_complete else redacted(lenient_json.encode(document), document, redact)
    return UpstreamRefused(
        status, message, headers, completed if reported.was_complete else for_json(completed), original
    )


def _auth_failed(status: int, message: str, headers: Mapping[str, str]) -> UpstreamAuthFailed:
    return UpstreamAuthFailed(status, _shortened(_MASKED_KEY.sub("***", message)), headers)


def redacted(body: bytes, content: Any, redact: Redact) -> bytes:
    """Returns ``body``, or its ``content`` encoded again where a secret occurs in it, however JSON spells it there."""
    plain = lenient_json.encode(content).decode()
    clean = redact(plain)
    return body if clean == plain else clean.encode()


def redacted_event(chunk: StreamChunk, redact: Redact) -> bytes:
    """Returns an event that reports an error, in the upstream's own bytes unless a secret occurs in them.

    One in which OpenAI's clients would not find what the upstream says gets an object under ``error`` that says it.
    """
    document = error_shapes.readable_event(chunk.error)
    clean = redacted(chunk.data, document, redact)
    if clean is chunk.data and document is chunk.error:
        return chunk.data
    return sse.encode_event(for_json(redacted(lenient_json.encode(document), document, redact)))


def reported(content: Any, redact: Redact) -> UpstreamReported:
    """Returns the error for one that an event of a stream has reported."""
    found = error_shapes.read_error(content)
    if found is None:
        return UpstreamReported("nothing more", None)
    document = {"error": found.document["error"]}
    body = redacted(lenient_json.encode(document), document, redact)
    return UpstreamReported(_shortened(redact(found.message)), for_json(body))


def _decoded(body: bytes) -> str:
    """Returns the text of a body, which servers without UTF-8 write in Latin-1."""
    try:
        return body.decode()
    except UnicodeDecodeError:
        return body.decode("latin-1")


def _without_markup(text: str) -> str:
    """Returns an excerpt without mark-up and control characters, for a person to read."""
    return _shortened(" ".join(_TAG.sub(" ", text[:20_000]).split()))


def _shortened(text: str) -> str:
    printable = "".join(char if char.isprintable() else " " for char in text[:_EXCERPT])
    return printable + "…" if len(text) > _EXCERPT else printable
