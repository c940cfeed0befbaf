"""Renders an echo for the Responses API: as one object, and as the sequence of events that builds it up. Pure."""

from collections.abc import AsyncIterator
from typing import Any

import msgspec

from gateway.providers.echo.text import Reply


def response(identifier: str, created: int, fields: dict[str, Any], reply: Reply) -> dict[str, Any]:
    """Returns the response object of a finished response. ``created`` in seconds since the epoch."""
    cut = reply.choices[0].finish_reason == "length"
    return {
        **_in_progress(identifier, created, fields),
        "status": "incomplete" if cut else "completed",
        "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
        "output": [_item(identifier, reply.choices[0].text, "incomplete" if cut else "completed")],
        "usage": {
            "input_tokens": reply.prompt_tokens,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": reply.completion_tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": reply.prompt_tokens + reply.completion_tokens,
        },
    }


async def stream(identifier: str, created: int, fields: dict[str, Any], reply: Reply) -> AsyncIterator[bytes]:
    """Yields the events, each with its sequence number."""
    for number, event in enumerate(_events(identifier, created, fields, reply)):
        data = msgspec.json.encode({**event, "sequence_number": number})
        yield b"event: " + event["type"].encode() + b"\ndata: " + data + b"\n\n"


def _events(identifier: str, created: int, fields: dict[str, Any], reply: Reply) -> list[dict[str, Any]]:
    started = _in_progress(identifier, created, fields)
    finished = response(identifier, created, fields, reply)
    item = finished["output"][0]
    place = {"item_id": item["id"], "output_index": 0, "content_index": 0}
    text = reply.choices[0].text
    deltas = [{"type": "response.output_text.delta", **place, "delta": token} for token in reply.choices[0].tokens]
    return [
        {"type": "response.created", "response": started},
        {"type": "response.in_progress", "response": started},
        {
            "type": "response.output_item.added",
            "output_index": 0,
            "item": {**item, "status": "in_progress", "content": []},
        },
        {"type": "response.content_part.added", **place, "part": _part("")},
        *deltas,
        {"type": "response.output_text.done", **place, "text": text},
        {"type": "response.content_part.done", **place, "part": _part(text)},
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": f"response.{finished['status']}", "response": finished},
    ]


def _in_progress(identifier: str, created: int, fields: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": identifier,
        "object": "response",
        "created_at": created,
        "status": "in_progress",
        "error": None,
        "incomplete_details": None,
        "instructions": fields.get("instructions"),
        "max_output_tokens": fields.get("max_output_tokens"),
        "model": fields["model"],
        "output": [],
        "parallel_tool_calls": True,
        "temperature": fields.get("temperature", 1.0),
        "tool_choice": "auto",
        "tools": [],
        "top_p": fields.get("top_p", 1.0),
        "metadata": fields.get("metadata") or {},
        "usage": None,
    }


def _item(identifier: str, text: str, status: str) -> dict[str, Any]:
    return {
        "id": identifier.replace("resp", "msg", 1),
        "type": "message",
        "role": "assistant",
        "status": status,
        "content": [_part(text)],
    }


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": []}
