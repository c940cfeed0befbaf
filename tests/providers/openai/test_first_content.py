"""What is content, and what only says that a stream has begun."""

import pytest

from gateway.providers.openai.first_content import has_content, read_beginning

BEGINNINGS = [
    b": PROCESSING\n\n",
    b"event: ping\ndata: {}\n\n",
    b'data: {"type":"ping"}\n\n',
    b'event: message_start\ndata: {"type":"message_start","message":{}}\n\n',
    b'data: {"type":"response.created"}\n\n',
    b'data: {"type":"response.in_progress"}\n\n',
    b'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}\n\n',
    b'data: {"choices":[],"prompt_filter_results":[]}\n\n',
    b'data: {"type":"response.output_item.added","item":{"type":"reasoning"}}\n\n',
    b'data: {"type":"response.content_part.added","part":{"type":"output_text","text":""}}\n\n',
    b'data: {"type":"response.web_search_call.searching","item_id":"ws_1"}\n\n',
    b'data: {"type":"content_block_start","content_block":{"type":"thinking","thinking":"","signature":""}}\n\n',
]
CONTENTS = [
    b'data: {"choices":[{"delta":{"content":"x"}}]}\n\n',
    b'data: {"choices":[{"delta":{"tool_calls":[{}]}}]}\n\n',
    b'data: {"choices":[{"delta":{"reasoning_content":"x"}}]}\n\n',
    b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n',
    b'data: {"choices":[{"text":"x"}]}\n\n',
    b'data: {"choices":[5]}\n\n',
    b'data: {"type":"content_block_delta"}\n\n',
    b'data: {"type":"content_block_start","content_block":{"type":"tool_use","name":"f","input":{}}}\n\n',
    b'data: {"type":"content_block_start"}\n\n',
    b'data: {"type":"file.searching"}\n\n',
    b'data: {"type":"response.output_text.delta"}\n\n',
    b"data: [DONE]\n\n",
    b"data: not JSON\n\n",
]


@pytest.mark.parametrize("block", BEGINNINGS)
def test_beginnings(block: bytes) -> None:
    assert not has_content(block)
    assert not has_content(block * 2)


@pytest.mark.parametrize("block", CONTENTS)
def test_contents(block: bytes) -> None:
    assert has_content(block)
    assert has_content(BEGINNINGS[0] + block)


FAILED = b'data: {"type":"response.failed","response":{"error":{"code":"server_error","message":"m"}}}\n\n'


def test_a_response_that_fails_before_its_content_reports_an_error() -> None:
    assert read_beginning(BEGINNINGS[4] + FAILED).report == {"error": {"code": "server_error", "message": "m"}}
    assert read_beginning(CONTENTS[0] + FAILED).report is None
    assert read_beginning(b'data: {"type":"response.failed","response":5}\n\n').report == {
        "error": "The response failed."
    }
    assert read_beginning(b'data: {"type":"x","said":"response.failed"}\n\n') == (True, None)
