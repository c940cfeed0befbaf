"""The text of a response is counted by its length, whatever kind of text it is, and the JSON around it is not."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core import sse
from gateway.usage.generated_text import MAX_READ_BYTES, StreamTextCounter, count_response_tokens

HEAD = {
    "id": "chatcmpl-1",
    "object": "chat.completion.chunk",
    "created": 1700000000,
    "model": "m",
    "system_fingerprint": "fp_1",
}


def encode(content: Any, name: str = "") -> bytes:
    line = f"event: {name}\n".encode() if name else b""
    return line + sse.encode_event(json.dumps(content, separators=(",", ":")).encode())


def chunk(delta: dict[str, Any], **more: Any) -> bytes:
    return encode({**HEAD, "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}], **more})


def count(*blocks: bytes) -> int:
    counter = StreamTextCounter()
    for block in blocks:
        counter.feed(block)
    return counter.tokens


KINDS: list[tuple[str, bytes]] = [
    ("content", chunk({"content": "x" * 400})),
    ("reasoning beside an empty content", chunk({"content": "", "reasoning_content": "x" * 400})),
    ("reasoning", chunk({"reasoning": "x" * 400})),
    ("reasoning details", chunk({"reasoning_details": [{"type": "reasoning.text", "text": "x" * 400}]})),
    ("refusal", chunk({"content": None, "refusal": "x" * 400})),
    ("arguments of a tool", chunk({"tool_calls": [{"index": 0, "id": "call_1", "function": {"arguments": "x" * 400}}]})),
    ("arguments of a function", chunk({"function_call": {"arguments": "x" * 400}})),
    ("transcript", chunk({"audio": {"id": "audio_1", "transcript": "x" * 400}})),
    ("sound", chunk({"audio": {"data": "x" * 25_600}})),
    ("a kind of later days", chunk({"role": "assistant", "musings": {"draft": ["x" * 400]}})),
    ("a message in place of a delta", encode({**HEAD, "choices": [{"message": {"role": "assistant", "content": "x" * 400}}]})),
    ("text completion", encode({"choices": [{"index": 0, "text": "x" * 400, "logprobs": None}]})),
    ("two choices", encode({"choices": [{"delta": {"content": "x" * 200}}, {"delta": {"content": "x" * 200}}]})),
    ("responses", encode({"type": "response.output_text.delta", "item_id": "msg_1", "delta": "x" * 400})),
    ("responses, arguments", encode({"type": "response.function_call_arguments.delta", "delta": "x" * 400})),
    ("responses, summary", encode({"type": "response.reasoning_summary_text.delta", "delta": "x" * 400}, "x.delta")),
    ("responses, sound", encode({"type": "response.audio.delta", "delta": "x" * 25_600})),
    ("messages", encode({"type": "content_block_delta", "delta": {"type": "text_delta", "text": "x" * 400}})),
    ("messages, thinking", encode({"type": "content_block_delta", "delta": {"type": "thinking_delta", "thinking": "x" * 400}})),
    ("messages, arguments", encode({"type": "content_block_delta", "delta": {"partial_json": "x" * 400}})),
    ("letters of three bytes", chunk({"content": "\u4f60" * 133 + "x"})),
    ("no JSON", b"data: {delta " + b'"delta"' + b"x" * 384 + b"}\n\n"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "event"), KINDS, ids=[kind for kind, _ in KINDS])
def test_every_kind_of_text_counts_by_its_length(kind: str, event: bytes) -> None:
    assert count(event) == 100
    assert count(event, event) == 200
    assert count(event + event, event) == 300


EMPTY = [
    chunk({"role": "assistant", "content": ""}),
    chunk({}),
    encode({**HEAD, "choices": [], "usage": None}),
    encode({"type": "response.output_text.done", "text": "x" * 400}),
    encode({"type": "response.completed", "response": {"output": [{"content": [{"text": "x" * 400}]}]}}),
    encode({"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}}),
    encode({"type": "content_block_delta", "delta": {"type": "signature_delta", "signature": "x" * 400}}),
    encode({"choices": [{"index": 0, "text": ""}]}),
    encode({"choices": [3, None, "delta"]}),
    b": ping\n\n",
    sse.DONE,
]


@pytest.mark.parametrize("event", EMPTY)
def test_what_adds_no_text_does_not_count(event: bytes) -> None:
    word = chunk({"content": "word"})
    assert count(event) == 0
    assert count(word, word, event, word) == 3
    assert count(word + event, word, event + event, word) == 3


@given(st.lists(st.text(min_size=1, max_size=40), min_size=1, max_size=30), st.lists(st.integers(1, 5), max_size=30))
def test_the_json_around_the_text_does_not_count(words: list[str], cuts: list[int]) -> None:
    """Short pieces are not decoded: escapes may then count as the bytes that they are written with."""
    events = [chunk({"content": word}) for word in words]
    blocks, at = [], 0
    for cut in [*cuts, len(events)]:
        blocks.append(b"".join(events[at : at + cut]))
        at += cut
    size = sum(len(word.encode()) for word in words)
    written = sum(len(json.dumps(word)) - 2 for word in words)
    expected = [max(len(words), -(-each // 4)) for each in (size, written)]
    assert min(expected) <= count(*blocks) <= max(expected)


def test_a_long_first_event_hides_no_text() -> None:
    """Azure sends the results of its filters with the first event."""
    first = chunk({"content": "Hi"}, prompt_filter_results=["x" * 300])
    later = chunk({"content": "x" * 200})
    assert count(first, later, later) == -(-402 // 4)


def test_events_that_carry_more_than_text_count_their_text() -> None:
    """Log probabilities are some kilobytes for each token."""
    events = [chunk({"content": "word"}, logprobs=["x" * (100 * number)]) for number in range(10)]
    assert count(*events) == 10


@pytest.mark.parametrize(
    ("content", "tokens"),
    [
        (
            {
                "id": "x" * 90,
                "object": "chat.completion",
                "choices": [{"message": {"role": "assistant", "content": "x" * 401}}],
            },
            101,
        ),
        (
            {
                "choices": [
                    {"message": {"content": "x" * 4, "reasoning_content": "x" * 4}},
                    {"message": {"content": "x"}},
                ]
            },
            3,
        ),
        ({"choices": [{"text": "x" * 8, "finish_reason": "stop"}]}, 2),
        ({"output": [{"type": "message", "id": "msg_1", "content": [{"type": "output_text", "text": "x" * 12}]}]}, 3),
        ({"type": "message", "role": "assistant", "content": [{"type": "text", "text": "x" * 16}]}, 4),
        ({"text": "x" * 20}, 5),
        ({"choices": []}, 0),
        ({"input_tokens": 9}, 0),
    ],
)
def test_a_whole_response_counts_by_its_text(content: Any, tokens: int) -> None:
    assert count_response_tokens(json.dumps(content).encode()) == tokens


@pytest.mark.parametrize(
    "body", [b"x" * 401, b"[" * 401, b"\xff" * 401, b'{"choices":"' + b"x" * (MAX_READ_BYTES - 13) + b'"}']
)
def test_what_cannot_be_read_counts_by_its_size(body: bytes) -> None:
    size = len(body) - 14 if len(body) == MAX_READ_BYTES else len(body)
    assert count_response_tokens(body) == -(-size // 4)


def test_a_response_that_is_too_long_to_be_read_counts_by_its_size() -> None:
    body = b'{"choices":[],"id":"' + b"x" * (MAX_READ_BYTES - 21) + b'"}'
    assert len(body) == MAX_READ_BYTES + 1
    assert count_response_tokens(body) == MAX_READ_BYTES // 4 + 1
    assert count_response_tokens(body[:20] + body[21:]) == 0
