"""When a stream is whole: at its terminal event, or once every choice has finished."""

import json

import pytest

from gateway.core import sse
from gateway.core.json_body import parse_object
from gateway.providers.base import ProviderRequest
from gateway.providers.openai.stream_ends import DoneEnd, NoEnd, StreamEnd, stream_end, wants_stream


def chunk(index: int, finish: str | None = None) -> bytes:
    choice = {"index": index, "delta": {"content": "x"}, "finish_reason": finish}
    return sse.encode_event(json.dumps({"choices": [choice]}).encode())


def typed(kind: str) -> bytes:
    return sse.encode_event(json.dumps({"type": kind}).encode())


def end_of(path: str, body: str = "{}") -> StreamEnd:
    return stream_end(ProviderRequest("POST", path, fields=parse_object(body.encode())))


def test_every_choice_has_to_finish() -> None:
    end = end_of("chat/completions", '{"n": 2}')
    for block in (chunk(0), chunk(1), chunk(0, "stop"), chunk(1)):
        assert end.feed(block) == 0
        assert not end.is_whole
    end.feed(chunk(1, "length"))
    assert end.is_whole


@pytest.mark.parametrize(
    ("body", "choices"),
    [
        ('{"prompt": "a"}', 1),
        ('{"prompt": ["a", "b"]}', 2),
        ('{"prompt": ["a", "b"], "n": 2}', 4),
        ('{"prompt": [1, 2, 3]}', 1),
        ('{"prompt": [[1, 2], [3]]}', 2),
        ('{"prompt": []}', 1),
        ('{"n": null}', 1),
        ('{"n": "x"}', 1),
        ('{"n": 99999999999}', 1),
    ],
)
def test_the_number_of_choices(body: str, choices: int) -> None:
    end = end_of("completions", body)
    for index in range(choices):
        assert not end.is_whole
        end.feed(chunk(index, "stop"))
    assert end.is_whole


def test_a_finish_reason_that_says_nothing_finishes_nothing() -> None:
    end = DoneEnd(1)
    assert end.feed(chunk(0)) == 0
    for data in (
        b'{"choices":[{"finish_reason":""}]}',
        b'"finish_reason":"x"',
        b'{"choices":[5],"finish_reason":"x"}',
        b'{"finish_reason":"x"}',
    ):
        assert end.feed(sse.encode_event(data)) == 0
    assert not end.is_whole


def test_done_ends_everything_that_may_have_it() -> None:
    assert DoneEnd(5).feed(chunk(0) + sse.DONE + chunk(0)) == len(chunk(0) + sse.DONE)
    thread = end_of("threads/t/runs")
    thread.feed(chunk(0, "stop"))
    assert not thread.is_whole
    assert thread.feed(sse.DONE) == len(sse.DONE)
    assert thread.is_whole
    assert not thread.adds_done


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("responses", "response.completed"),
        ("responses/resp_1", "response.incomplete"),
        ("messages", "message_stop"),
        ("audio/transcriptions", "transcript.text.done"),
        ("audio/speech", "speech.audio.done"),
        ("images/generations", "image_generation.completed"),
        ("images/edits", "image_edit.completed"),
    ],
)
def test_terminal_events(path: str, kind: str) -> None:
    end = end_of(path)
    assert end.feed(typed("something.else")) == 0
    assert end.feed(sse.encode_event(json.dumps({"delta": f'"type":"{kind}"'}).encode())) == 0
    assert not end.is_whole
    last = typed("x") + typed(kind)
    assert end.feed(last + typed("ping")) == len(last)
    assert end.is_whole
    assert end_of(path).feed(sse.DONE) == len(sse.DONE)


def test_several_images_end_with_the_last_of_them() -> None:
    end = end_of("images/generations", '{"n": 2}')
    assert end.feed(typed("image_generation.completed")) == 0
    assert not end.is_whole
    assert end.feed(typed("image_generation.completed"))


def test_other_streams_may_end_anywhere() -> None:
    assert isinstance(end_of("fine_tuning/jobs/x/events"), NoEnd)


@pytest.mark.parametrize(("body", "wanted"), [('{"stream": true}', True), ('{"stream": false}', False), ("{}", False)])
def test_who_wants_a_stream(body: str, wanted: bool) -> None:
    assert wants_stream(ProviderRequest("POST", "messages", fields=parse_object(body.encode()))) is wanted
