"""An echo in the forms of the Responses API."""

import json
from typing import Any

import pytest

from gateway.core import sse
from gateway.providers.echo.responses import response, stream
from gateway.providers.echo.text import Prompt, reply

FIELDS: dict[str, Any] = {"model": "m", "instructions": "be brief", "metadata": {"a": "b"}}


@pytest.mark.parametrize(
    ("limit", "status", "details"), [(None, "completed", None), (1, "incomplete", {"reason": "max_output_tokens"})]
)
def test_a_response_says_whether_it_was_cut(limit: int | None, status: str, details: object) -> None:
    found = response("resp-1", 7, FIELDS, reply(Prompt("one two", 2), {"max_output_tokens": limit}))
    assert (found["status"], found["incomplete_details"], found["created_at"]) == (status, details, 7)
    assert found["output"][0]["status"] == status
    assert found["output"][0]["id"] == "msg-1"
    assert found["usage"]["total_tokens"] == 2 + (limit or 2)
    assert (found["instructions"], found["metadata"], found["model"]) == ("be brief", {"a": "b"}, "m")


async def test_events_build_the_response_up_and_are_numbered() -> None:
    whole = reply(Prompt("one two", 2), {})
    blocks = [event async for event in stream("resp-1", 7, FIELDS, whole)]
    events = [json.loads(sse.event_data(block) or b"") for block in blocks]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert all(
        block.startswith(f"event: {event['type']}\n".encode()) for block, event in zip(blocks, events, strict=True)
    )
    assert "".join(event["delta"] for event in events if event["type"] == "response.output_text.delta") == "one two"
    assert events[0]["type"] == "response.created"
    assert events[0]["response"]["usage"] is None
    assert (events[-1]["type"], events[-1]["response"]) == ("response.completed", response("resp-1", 7, FIELDS, whole))
