"""Usage as upstreams report it: every form, streams of every cut, and invalid reports."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core import sse
from gateway.usage.extraction import MAX_REPORTED_TOKENS, StreamUsageReader, read_usage, usage_of_response
from gateway.usage.models import Usage

REPORTS: list[tuple[str, dict[str, Any], Usage]] = [
    ("chat", {"prompt_tokens": 9, "completion_tokens": 12, "total_tokens": 21}, Usage(9, 12)),
    (
        "chat with details",
        {
            "prompt_tokens": 2006,
            "completion_tokens": 300,
            "total_tokens": 2306,
            "prompt_tokens_details": {"cached_tokens": 1920, "audio_tokens": 10},
            "completion_tokens_details": {"reasoning_tokens": 200, "audio_tokens": 20, "accepted_prediction_tokens": 5},
        },
        Usage(2006, 300, 1920, 0, 200, 10, 20),
    ),
    ("embeddings", {"prompt_tokens": 8, "total_tokens": 8}, Usage(8, 0)),
    (
        "responses",
        {
            "input_tokens": 36,
            "input_tokens_details": {"cached_tokens": 5},
            "output_tokens": 87,
            "output_tokens_details": {"reasoning_tokens": 64},
            "total_tokens": 123,
        },
        Usage(36, 87, 5, 0, 64),
    ),
    (
        "anthropic, whose cache stands beside its input",
        {"input_tokens": 10, "cache_creation_input_tokens": 100, "cache_read_input_tokens": 1000, "output_tokens": 7},
        Usage(1110, 7, 1000, 100),
    ),
    (
        "a proxy that adds the cache of Anthropic to the prompt",
        {"prompt_tokens": 50, "completion_tokens": 1, "cache_read_input_tokens": 40, "cache_creation_input_tokens": 5},
        Usage(50, 1, 40, 5),
    ),
    ("deepseek", {"prompt_tokens": 20, "completion_tokens": 3, "prompt_cache_hit_tokens": 16}, Usage(20, 3, 16)),
    (
        "reasoning in the total alone",
        {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 915},
        Usage(10, 905),
    ),
    ("an explicit nothing", {"prompt_tokens": 7, "completion_tokens": 0, "total_tokens": 7}, Usage(7, 0)),
    ("nonsense beside sense", {"prompt_tokens": 7, "completion_tokens": "many", "prompt_tokens_details": 3}, Usage(7)),
    ("more than there can be", {"prompt_tokens": 7, "completion_tokens": 10**12}, Usage(7, MAX_REPORTED_TOKENS)),
    ("a usage beside a text", {"prompt_tokens": 7, "completion_tokens": 1}, Usage(7, 1)),
    ("details above their sum", {"prompt_tokens": 7, "prompt_tokens_details": {"cached_tokens": 90}}, Usage(7, 0, 7)),
]


@pytest.mark.parametrize(("name", "reported", "usage"), REPORTS, ids=[name for name, *_ in REPORTS])
def test_each_form_is_read(name: str, reported: dict[str, Any], usage: Usage) -> None:
    assert read_usage(reported) == usage
    assert usage_of_response(json.dumps({"usage": reported}).encode()) == usage
    assert (
        usage_of_response(json.dumps({"type": "response.completed", "response": {"usage": reported}}).encode()) == usage
    )


NO_REPORTS: list[Any] = [None, [], "9", {}, {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}]
NO_REPORTS += [{"prompt_tokens": bad} for bad in (-1, True, "9", None, [], float("nan"))]


@pytest.mark.parametrize("reported", NO_REPORTS)
def test_what_says_nothing_is_no_report(reported: Any) -> None:
    assert read_usage(reported) is None


NAMES = st.sampled_from(
    ["prompt_tokens", "completion_tokens", "total_tokens", "prompt_tokens_details", "cached_tokens"]
)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(NAMES, inner),
)


@given(ANYTHING)
def test_no_report_is_believed_beyond_reason(reported: Any) -> None:
    usage = read_usage(reported)
    if usage is not None:
        assert 0 < usage.total_tokens <= 2 * MAX_REPORTED_TOKENS
        assert usage.cached_tokens <= usage.prompt_tokens


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b'{"usage":', b"\xff", b'{"response": 3}', b"[" * 5000])
def test_an_invalid_response_has_no_usage(body: bytes) -> None:
    assert usage_of_response(body) is None


HEAD = {"id": "c", "object": "chat.completion.chunk", "model": "m"}


def event(choices: list[Any], **more: Any) -> bytes:
    return sse.encode_event(json.dumps({**HEAD, "choices": choices, **more}, separators=(",", ":")).encode())


WORDS = [
    event([{"index": 0, "delta": {"content": word}, "finish_reason": None}], usage=None) for word in ("a", "b", "c")
]
FIRST = event([{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}])
LAST = event([{"index": 0, "delta": {}, "finish_reason": "stop"}])
REPORT = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}


@given(st.lists(st.integers(1, 6), min_size=1, max_size=8), st.booleans())
def test_a_stream_is_read_however_it_is_cut(cuts: list[int], drops: bool) -> None:
    events = [FIRST, *WORDS, LAST, event([], usage=REPORT), sse.DONE]
    reader = StreamUsageReader(drops)
    passed, at = b"", 0
    for cut in [*cuts, len(events)]:
        passed += reader.feed(b"".join(events[at : at + cut]))
        at += cut
    assert reader.usage == Usage(5, 3)
    assert reader.text_tokens == 3
    assert passed == b"".join(each for each in events if not (drops and b"prompt_tokens" in each))


def test_an_empty_choice_with_the_usage_is_dropped_too() -> None:
    """LiteLLM sends one with the usage."""
    reader = StreamUsageReader(drops_usage=True)
    assert reader.feed(event([{"index": 0, "delta": {}, "finish_reason": None}], usage=REPORT)) == b""
    assert reader.usage == Usage(5, 3)


@pytest.mark.parametrize(
    "block",
    [
        event([{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}], usage=REPORT),
        event([{"index": 0, "delta": {"content": None, "tool_calls": []}}], usage=REPORT),
        event([{"index": 0, "text": ""}, {"index": 1, "text": ""}], usage=REPORT),
        sse.encode_event(json.dumps({**HEAD, "choices": None, "usage": REPORT}).encode()),
        sse.encode_event(json.dumps({**HEAD, "usage": REPORT}).encode()),
    ],
)
def test_the_usage_is_dropped_in_every_shape(block: bytes) -> None:
    reader = StreamUsageReader(drops_usage=True)
    assert reader.feed(block) == b""
    assert reader.usage == Usage(5, 3)


def test_an_event_with_a_type_is_no_usage_chunk() -> None:
    block = sse.encode_event(json.dumps({"type": "message_delta", "usage": REPORT}).encode())
    assert StreamUsageReader(drops_usage=True).feed(block) == block


@pytest.mark.parametrize("delta", [{"content": "end"}, {"tool_calls": [{"index": 0}]}])
def test_usage_beside_content_is_read_and_passed_on(delta: dict[str, Any]) -> None:
    reader = StreamUsageReader(drops_usage=True)
    block = event([{"index": 0, "delta": delta, "finish_reason": None}], usage=REPORT)
    assert reader.feed(block) == block
    assert reader.usage == Usage(5, 3)


def test_a_finish_beside_the_usage_is_passed_on() -> None:
    reader = StreamUsageReader(drops_usage=True)
    block = event([{"index": 0, "delta": {}, "finish_reason": "stop"}], usage=REPORT)
    assert reader.feed(block) == block


def test_reports_that_grow_count_once() -> None:
    reader = StreamUsageReader(drops_usage=False)
    for number in (1, 2, 3):
        reader.feed(event([{"delta": {"content": "x"}}], usage={"prompt_tokens": 5, "completion_tokens": number}))
    assert reader.usage == Usage(5, 3)


def test_two_reports_are_merged() -> None:
    """Anthropic reports the input first and the output last."""
    reader = StreamUsageReader(drops_usage=False)
    reader.feed(sse.encode_event(b'{"type":"message_start","message":{"usage":{"input_tokens":25,"output_tokens":1}}}'))
    reader.feed(sse.encode_event(b'{"type":"message_delta","usage":{"output_tokens":15}}'))
    assert reader.usage == Usage(25, 15)


def test_the_word_in_a_text_is_no_report() -> None:
    reader = StreamUsageReader(drops_usage=True)
    block = event([{"index": 0, "delta": {"content": 'say "usage" and "usage":null'}}])
    assert reader.feed(block) == block
    assert reader.usage is None


def test_a_responses_stream_is_read() -> None:
    reader = StreamUsageReader(drops_usage=True)
    blocks = [
        b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","delta":"Hi"}\n\n',
        b'event: response.completed\ndata: {"type":"response.completed",'
        b'"response":{"usage":{"input_tokens":4,"output_tokens":2}}}\n\n',
    ]
    assert [reader.feed(block) for block in blocks] == blocks
    assert (reader.usage, reader.text_tokens) == (Usage(4, 2), 1)


def test_zeros_on_every_chunk_are_no_report() -> None:
    reader = StreamUsageReader(drops_usage=True)
    zeros = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    block = sse.encode_event(json.dumps({"choices": [{"text": "Hi"}], "usage": zeros}).encode())
    assert reader.feed(block) == block
    assert (reader.usage, reader.text_tokens) == (None, 1)


def test_an_invalid_response_object_does_not_hide_the_usage() -> None:
    assert usage_of_response(b'{"response": "text", "message": 3, "usage": {"prompt_tokens": 5}}') == Usage(5)


@pytest.mark.parametrize(("body", "usage"), [
    (b'{"text":"x","usage":{"type":"duration","seconds":5}}', Usage(seconds=5)),
    (b'{"text":"x","usage":{"type":"duration","seconds":4.01}}', Usage(seconds=5)),
    (b'{"text":"x","duration":4.01}', Usage(seconds=5)),
    (b'{"text":"x","duration":"4.01"}', Usage(seconds=5)),
    (b'{"text":"x","duration":1e300}', Usage(seconds=MAX_REPORTED_TOKENS)),
    (b'{"duration":4.01}', None),
    (b'{"text":"x","duration":"long"}', None),
    (b'{"text":"x","duration":"nan"}', None),
    (b'{"text":"x","duration":true}', None),
    (b'{"text":"x","duration":-3}', None),
    (b'{"text":"x","usage":{"type":"tokens","seconds":5}}', None),
])  # fmt: skip
def test_the_length_of_sound_is_a_report(body: bytes, usage: Usage | None) -> None:
    assert usage_of_response(body) == usage
