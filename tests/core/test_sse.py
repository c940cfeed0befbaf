"""Event streams: cut only behind whole events, never changed by a byte."""

import json
from typing import Any
from unittest.mock import ANY

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core import sse
from gateway.core.sse import EventSplitter, EventTooLarge, encode_event, event_data, find_done, find_error, split_events

LINE_END = st.sampled_from([b"\n", b"\r\n", b"\r"])
LINE = st.sampled_from(
    [b"data: x", b'data: {"a": 1}', b"data:", b": comment", b"event: e", b"id: 1", "data: é".encode()]
)
ANY_BYTES = st.text("\r\ndata: x", max_size=40).map(str.encode)


@st.composite
def event(draw: st.DrawFn) -> bytes:
    """One event with one kind of line end all through, as servers send it."""
    end = draw(LINE_END)
    return end.join(draw(st.lists(LINE, min_size=1, max_size=3))) + end + end


def chunks(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({cut % (len(data) + 1) for cut in cuts})
    return [data[start:end] for start, end in zip([0, *places], [*places, len(data)], strict=True)]


CUTS = st.lists(st.integers(0, 10_000), max_size=12)


@given(st.lists(event(), max_size=5), CUTS)
def test_any_chunking_of_any_stream_is_passed_on_byte_for_byte(stream: list[bytes], cuts: list[int]) -> None:
    data = b"".join(stream)
    splitter = EventSplitter()
    passed = b"".join(splitter.feed(chunk) for chunk in chunks(data, cuts))
    assert passed + splitter.remainder() == data


@given(st.lists(event(), max_size=5), CUTS)
def test_no_cut_lies_within_an_event(stream: list[bytes], cuts: list[int]) -> None:
    data = b"".join(stream)
    ends = {len(b"".join(stream[:count])) for count in range(len(stream) + 1)}
    # Of an empty line CR LF the LF may come later: the event was whole without it.
    ends |= {end - 1 for end in ends if data[:end].endswith(b"\r\n")}
    splitter, passed = EventSplitter(), 0
    for chunk in chunks(data, cuts):
        passed += len(splitter.feed(chunk))
        assert passed in ends


@given(ANY_BYTES, CUTS)
def test_a_stream_of_any_bytes_is_kept_whole(data: bytes, cuts: list[int]) -> None:
    splitter = EventSplitter()
    passed = [splitter.feed(chunk) for chunk in chunks(data, cuts)]
    assert b"".join(passed) + splitter.remainder() == data


@given(st.lists(event(), min_size=1, max_size=5), CUTS)
def test_of_a_whole_stream_at_most_a_line_end_remains(stream: list[bytes], cuts: list[int]) -> None:
    """A remainder would be taken for a stream that broke off."""
    splitter = EventSplitter()
    for chunk in chunks(b"".join(stream), cuts):
        splitter.feed(chunk)
    assert splitter.remainder().strip(b"\r\n") == b""


@given(st.lists(event(), max_size=5))
def test_a_block_is_split_into_its_events(stream: list[bytes]) -> None:
    assert b"".join(split_events(b"".join(stream))) == b"".join(stream)


def test_a_block_of_ordinary_events_is_split_into_each_of_them() -> None:
    stream = [b"data: 1\n\n", b"data: 2\r\n\r\n", b": c\r\r", b"data: 3\n\n"]
    assert list(split_events(b"".join(stream))) == stream
    assert list(split_events(b"data: half")) == [b"data: half"]
    assert list(split_events(b"")) == []


def test_half_an_event_is_kept_back() -> None:
    splitter = EventSplitter()
    assert splitter.feed(b"data: 1\n\ndata: 2\n") == b"data: 1\n\n"
    assert splitter.remainder() == b"data: 2\n"
    assert splitter.feed(b"\n") == b"data: 2\n\n"
    assert splitter.remainder() == b""


def test_an_event_without_an_end_is_refused() -> None:
    splitter = EventSplitter(max_event_bytes=100)
    splitter.feed(b"x" * 100)
    with pytest.raises(EventTooLarge, match="100 bytes"):
        splitter.feed(b"x")


def test_many_small_chunks_of_one_event_count_once() -> None:
    splitter = EventSplitter(max_event_bytes=100)
    for _ in range(3):
        for _ in range(98):
            assert splitter.feed(b"x") == b""
        assert len(splitter.feed(b"\n\n")) == 100


@pytest.mark.parametrize(
    ("event", "data"),
    [
        (b"data: a\n\n", b"a"),
        (b"data:a\r\n\r\n", b"a"),
        (b"data:  a\n\n", b" a"),
        (b"event: e\ndata: a\ndata: b\n\n", b"a\nb"),
        (b"data:\n\n", b""),
        (b": data: a\n\n", None),
        (b"\n\n", None),
    ],
)
def test_the_data_of_an_event(event: bytes, data: bytes | None) -> None:
    assert event_data(event) == data


@pytest.mark.parametrize(
    ("block", "end"),
    [
        (sse.DONE, 14),
        (b"data: 1\n\ndata: [DONE]\r\n\r\n", 25),
        (b"data:[DONE]\n\n", 13),
        (b"data: [DONE]\n\ndata: 1\n\n", 14),
        (b'data: "[DONE]"\n\n', 0),
        (b'data: {"content": "data: [DONE]"}\n\n', 0),
        (b"", 0),
    ],
)
def test_the_last_event_is_found(block: bytes, end: int) -> None:
    assert find_done(block) == end


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b'{"error": {"message": "m"}}', {"error": {"message": "m"}}),
        (b'{"error": "m"}', {"error": "m"}),
        (
            b'{"error": {"message": "m", "n": NaN}, "x": "\\ud83d"}',
            {"error": {"message": "m", "n": ANY}, "x": "\ud83d"},
        ),
        (b'[{"error": {"code": 429}}]', {"error": {"code": 429}}),
        (b'{"type": "error", "code": "x"}', {"type": "error", "code": "x"}),
        (b'{"object": "error", "message": "m"}', {"object": "error", "message": "m"}),
        (b'{"error": null}', None),
        (b'{"error": ""}', None),
        (b'{"error": {}}', None),
        (b'{"error": 1}', {"error": 1}),
        (b'{"content": "say \\"error\\" now"}', None),
        (b'["error"]', None),
        (b'{"error"', None),
        (b'{"error": "\xff"}', None),
    ],
)
def test_an_error_event_is_found(data: bytes, error: dict[str, Any] | None) -> None:
    block = encode_event(b'{"x": 1}') + encode_event(data) + encode_event(b'{"y": 2}')
    expected = None if error is None else (len(encode_event(b'{"x": 1}') + encode_event(data)), error)
    assert find_error(block) == expected


def test_an_event_without_data_reports_no_error() -> None:
    assert find_error(b': "error"\n\n') is None
    assert find_error(b"data: fine\n\n") is None


def test_an_encoded_event_has_the_data_that_went_in() -> None:
    assert event_data(encode_event(json.dumps({"a": 1}).encode())) == b'{"a": 1}'
