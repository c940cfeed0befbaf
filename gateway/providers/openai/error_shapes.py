"""Reads the errors of upstreams in all their shapes, and fills in what is missing of OpenAI's. Pure.

Nothing that an upstream says is taken away: clients branch on Groq's ``code``, llama.cpp's ``n_ctx``, OpenRouter's ``metadata``.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from gateway.core import lenient_json, sse

OPENAI_KEYS = ("message", "type", "param", "code")
_NOTHING_SAID = "nothing more"
_SAYING = ("message", "detail", "title", "msg", "error_message", "error_description", "errors", "reason")
"""Names under which upstreams say what is wrong, OpenAI's first; FastAPI, RFC 9457, OAuth, Cloudflare."""
_ANSWERING = ("choices", "output", "data", "embeddings", "content")
"""What a document has that is an answer, whatever else it says."""
_STATUS_FIELDS = ("code", "status", "status_code", "http_status", "statusCode")
_NAMED_STATUS: Mapping[str, int] = MappingProxyType(
    {
        "invalid_request_error": 400, "context_length_exceeded": 400, "invalid_prompt": 400, "content_filter": 400,
        "content_policy_violation": 400, "INVALID_ARGUMENT": 400, "exceed_context_size_error": 400,
        "authentication_error": 401, "invalid_api_key": 401, "UNAUTHENTICATED": 401,
        "permission_error": 403, "PERMISSION_DENIED": 403,
        "not_found_error": 404, "model_not_found": 404, "NOT_FOUND": 404,
        "request_too_large": 413,
        "rate_limit_error": 429, "rate_limit_exceeded": 429, "insufficient_quota": 429, "RESOURCE_EXHAUSTED": 429,
        "UNAVAILABLE": 503, "service_unavailable": 503, "overloaded_error": 529,
    }
)  # fmt: skip
"""Codes and types that mean one status, of OpenAI, Anthropic, Google, and llama.cpp."""
_ABOUT_CONTENT = frozenset(
    {"content_filter", "content_policy_violation", "moderation", "moderation_blocked", "flagged", "unsafe_content"}
)


class ReportedError(NamedTuple):
    """Holds the error that a document reports."""

    document: dict[str, Any]
    """The whole document, with an object under ``error`` that has OpenAI's four keys."""
    was_complete: bool
    """Whether the upstream itself has sent all four."""

    @property
    def message(self) -> str:
        """What the upstream says."""
        return str(self.document["error"]["message"])


def decode(body: bytes) -> tuple[Any, bool]:
    """Returns the JSON in the body of an error, None where there is none, and whether it is framed as an event of a stream."""
    try:
        return lenient_json.decode(body), False
    except ValueError:
        pass
    for event in sse.split_events(body):
        try:
            if (content := lenient_json.decode(sse.event_data(event) or b"null")) is not None:
                return content, True
        except ValueError:
            continue
    return None, False


def read_error(content: Any) -> ReportedError | None:
    """Returns the error in a document of any known shape, completed; None where it reports none.

    The shapes: ``{"error": {…}}``, ``{"error": "…"}``, a list of them, and ``{"message"}``, ``{"detail"}`` and the like at the
    top, also beside an ``error`` that is only a title, a code or true.
    """
    if isinstance(content, list):
        content = next((item for item in content if isinstance(item, dict) and item.get("error")), None)
    if not isinstance(content, dict):
        return None
    error = content.get("error")
    if isinstance(error, dict) and error:
        return ReportedError({**content, "error": _completed(error)}, set(OPENAI_KEYS) <= error.keys())
    if error:
        beside = {name: value for name, value in content.items() if name not in ("error", "error_type")}
        beside.setdefault("type", content.get("error_type"))
        beside["message"] = _title_and_text(error, _said(content))
        return ReportedError({**content, "error": _completed(beside)}, was_complete=False)
    return None if _said(content) is None else ReportedError({"error": _completed(content)}, was_complete=False)


def read_any_error(content: Any, text: str) -> ReportedError | None:
    """Returns the error in a document that can be nothing else, with ``text`` as its message where no name is known."""
    if (found := read_error(content)) is not None or not isinstance(content, dict) or not content:
        return found
    return ReportedError({"error": _completed({**content, "message": text})}, was_complete=False)


def is_no_answer(content: Any) -> bool:
    """Returns whether a document with status 200 is an error, by what it says and by what it has not."""
    return (
        isinstance(content, dict) and not any(content.get(name) for name in _ANSWERING) and _said(content) is not None
    )


def readable_event(content: Any) -> Any:
    """Returns the document of an event that reports an error so that OpenAI's clients find what it says under ``error.message``.

    A document in which they find it, and one with a ``type`` of its own, as those of Responses and Messages have, is returned as
    it is.
    """
    if not isinstance(content, dict) or isinstance(content.get("type"), str):
        return content
    error = content.get("error")
    if isinstance(error, dict) and isinstance(error.get("message"), str) and error["message"]:
        return content
    found = read_error(content)
    return content if found is None else {**content, **found.document}


def named_status(document: Mapping[str, Any]) -> int | None:
    """Returns the status that an error names with its code or type, None where it names none."""
    error = document.get("error")
    places = [place for place in (error, document) if isinstance(place, dict)]
    for place in places:
        for name in _STATUS_FIELDS:
            if (status := _as_status(place.get(name))) is not None:
                return status
    for place in places:
        for name in ("code", "type", "status"):
            if isinstance(word := place.get(name), str) and word in _NAMED_STATUS:
                return _NAMED_STATUS[word]
    return None


def is_about_content(document: Mapping[str, Any]) -> bool:
    """Returns whether an error is about what the client has sent, so that a 403 does not tell of the gateway's key."""
    error = document["error"]
    if error.get("code") in _ABOUT_CONTENT or error.get("type") in _ABOUT_CONTENT:
        return True
    metadata = error.get("metadata")
    return isinstance(metadata, dict) and ("flagged_input" in metadata or bool(metadata.get("reasons")))


def _as_status(value: Any) -> int | None:
    if isinstance(value, str) and len(value) == 3 and value.isdecimal():
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and 400 <= value <= 599 else None


def _completed(error: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the error with OpenAI's four keys, and all others as they are."""
    said = _said(error)
    message = _NOTHING_SAID if said is None else _text(said)
    has_type = error.get("type") is not None
    return {
        **error,
        "message": message,
        "type": error["type"] if has_type else "upstream_error",
        "param": error.get("param"),
        "code": error.get("code", None if has_type else "upstream_error"),
    }


def _said(error: Mapping[str, Any]) -> Any:
    """Returns what is said under the first known name, None where nothing is; of a list of one error, what that says."""
    said = next((error[name] for name in _SAYING if error.get(name)), None)
    if isinstance(said, list) and len(said) == 1 and isinstance(said[0], dict):
        return said[0].get("message") or said
    return said


def _title_and_text(error: Any, beside: Any) -> str:
    """Returns ``error`` as a text, with what is said beside it."""
    if beside is None:
        return _text(error)
    return f"{error}: {_text(beside)}" if isinstance(error, str) and error != beside else _text(beside)


def _text(said: Any) -> str:
    return said if isinstance(said, str) else lenient_json.encode(said).decode("utf-8", "replace")
