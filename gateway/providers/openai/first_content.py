"""Distinguishes the first content of an event stream from what only says that the stream has begun. Pure.

An upstream that fails before any content can still be answered with a status of its own.
"""

from typing import Any, NamedTuple

from gateway.core import lenient_json, sse

_LIFE_CYCLE = frozenset({
    "response.created", "response.in_progress", "response.queued", "response.output_item.added", "response.content_part.added",
    "response.reasoning_summary_part.added", "message_start", "ping",
})  # fmt: skip
"""Models that reason announce an item at once, and may then think for minutes."""
_WORKING = (".in_progress", ".searching", ".interpreting", ".generating")
"""How events of Responses end that tell of a tool at work."""


class Beginning(NamedTuple):
    """What a block at the beginning of a stream has: content, or the document of an error that came before any; or neither."""

    has_content: bool
    report: Any = None


def read_beginning(block: bytes) -> Beginning:
    """Returns what the first event in a block says that is more than a comment, a life-cycle event, or the name of the role."""
    for event in sse.split_events(block):
        if b"response.failed" in event and (report := _failed_response(event)) is not None:
            return Beginning(has_content=False, report=report)
        if _is_content(event):
            return Beginning(has_content=True)
    return Beginning(has_content=False)


def has_content(block: bytes) -> bool:
    """Returns whether a block has content."""
    return read_beginning(block).has_content


def _failed_response(event: bytes) -> Any:
    """Returns the document ``{"error": …}`` of an event ``response.failed`` of the Responses API, None for another one."""
    content = _decode(event)
    if not isinstance(content, dict) or content.get("type") != "response.failed":
        return None
    response = content.get("response")
    error = response.get("error") if isinstance(response, dict) else None
    return {"error": error or "The response failed."}


def _is_content(event: bytes) -> bool:
    data = sse.event_data(event)
    if not data or b"event: ping" in event[: event.find(b"data:")]:
        return False
    content = _decode(event)
    if not isinstance(content, dict):
        return True
    kind = content.get("type")
    if kind in _LIFE_CYCLE or (isinstance(kind, str) and kind.startswith("response.") and kind.endswith(_WORKING)):
        return False
    if kind == "content_block_start":
        return _has_text(content.get("content_block"))
    choices = content.get("choices")
    return any(map(_is_choice_with_content, choices)) if isinstance(choices, list) else True


def _has_text(block: Any) -> bool:
    """Returns whether the block that an event of Messages opens says something already: a text, or the name of a tool."""
    return not isinstance(block, dict) or any(value for name, value in block.items() if name != "type")


def _is_choice_with_content(choice: Any) -> bool:
    if not isinstance(choice, dict):
        return True
    delta = choice.get("delta")
    told = [value for name, value in delta.items() if name != "role"] if isinstance(delta, dict) else [delta]
    return bool(any(told) or choice.get("text") or choice.get("finish_reason"))


def _decode(event: bytes) -> Any:
    try:
        return lenient_json.decode(sse.event_data(event) or b"null")
    except ValueError:
        return None
