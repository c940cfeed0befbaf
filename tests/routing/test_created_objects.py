"""Which ids of objects a response tells of."""

import json

import pytest

from gateway.routing.created_objects import ids_in_events, ids_in_list, ids_in_object, own_entries


def test_the_ids_of_what_was_made() -> None:
    assert ids_in_object(b'{"id":"file-1","object":"file"}') == ["file-1"]
    batch = {"id": "batch_1", "output_file_id": "file-2", "error_file_id": None, "metadata": {"id": "no"}}
    assert ids_in_object(json.dumps(batch).encode()) == ["batch_1", "file-2"]
    run = {"id": "run_1", "thread_id": "thread_1", "result_files": ["file-3"], "file": {"id": "file-4"}}
    assert ids_in_object(json.dumps(run).encode()) == ["run_1", "thread_1", "file-3", "file-4"]
    items = [{"id": "msg_1", "content": [{"id": "no"}]}, {"id": "ci_1", "container_id": "cntr_1"}, "odd"]
    assert ids_in_object(json.dumps({"id": "resp_1", "output": items}).encode()) == [
        "resp_1", "msg_1", "ci_1", "cntr_1",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"null",
        b'{"id":1}',
        b'{"id":""}',
        b'{"id":null,"output":3,"file":4}',
        b"\xff",
        b'{"id":"%b"}' % (b"x" * 257),
    ],
)
def test_what_has_no_ids(body: bytes) -> None:
    assert ids_in_object(body) == ids_in_events(b"data: " + body + b"\n\n") == ids_in_list(body) == []
    assert own_entries(body, frozenset()) is None


def test_the_ids_in_a_stream_of_a_response() -> None:
    created = b'event: response.created\ndata: {"type":"response.created","response":{"id":"resp_1","output":[]}}\n\n'
    delta = b'data: {"type":"response.output_text.delta","item_id":"msg_1","delta":"x"}\n\n'
    completed = b'data: {"type":"response.completed","response":{"id":"resp_1","output":[{"id":"msg_1"}]}}\n\n'
    assert ids_in_events(created + delta) == ["resp_1"]
    assert ids_in_events(delta) == []
    assert ids_in_events(completed) == ["resp_1", "msg_1"]
    assert ids_in_events(b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk"}\n\n') == ["chatcmpl-1"]


def test_a_list_keeps_only_what_is_owned() -> None:
    listed = b'{"object":"list","data":[{"id":"a", "x": 1.0},{"id":"b"},{"id":"c"},{}],"last_id":"c","has_more":true,"b":"b"}'
    assert ids_in_list(listed) == ["a", "b", "c"]
    kept = own_entries(listed, frozenset({"a"}))
    assert kept is not None
    assert b"1.0" in kept
    assert json.loads(kept) == {
        "object": "list", "data": [{"id": "a", "x": 1.0}], "first_id": "a", "last_id": "a", "has_more": True,
    }  # fmt: skip
    none = own_entries(listed, frozenset())
    assert none is not None
    assert json.loads(none)["data"] == []
