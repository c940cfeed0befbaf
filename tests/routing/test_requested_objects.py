"""Which ids of stored objects a body refers to."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.errors import BadRequest
from gateway.routing import requested_objects
from gateway.routing.requested_objects import find_references


def ids(body: Any) -> set[str]:
    return {reference.id for reference in find_references(json.dumps(body).encode()) if reference.is_needed}


@pytest.mark.parametrize(
    "body",
    [
        {"previous_response_id": "x"},
        {"conversation": "x"},
        {"conversation": {"id": "x"}},
        {"prompt": {"id": "x", "version": "1"}},
        {"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "x"}]}]},
        {"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "x"}]}]},
        {"messages": [{"role": "user", "content": [{"type": "file", "file": {"file_id": "x"}}]}]},
        {"tools": [{"type": "file_search", "vector_store_ids": ["x"]}]},
        {"tools": [{"type": "code_interpreter", "container": "x"}]},
        {"tools": [{"type": "code_interpreter", "container": {"type": "auto", "file_ids": ["x"]}}]},
        {"tool_resources": {"code_interpreter": {"file_ids": ["x"]}}},
        {"input": [{"type": "item_reference", "id": "x"}]},
        {"input": [{"id": "x"}]},
        {"input": [{"type": "reasoning", "id": "x", "summary": []}]},
        {"input": [{"type": "image_generation_call", "id": "x"}]},
        {"input_file_id": "x", "endpoint": "/v1/chat/completions"},
        {"training_file": "x"},
        {"assistant_id": "x", "thread": {"messages": []}},
        {"container": {"id": "x"}},
        {"Previous_Response_ID": "x"},
        {"previou\u017f_re\u017fponse_id": "x"},
        [{"file_id": "x"}],
    ],
)
def test_ids_are_found_wherever_an_upstream_looks_for_them(body: Any) -> None:
    assert ids(body) == {"x"}
    assert {found.id for found in find_references(json.dumps(body, ensure_ascii=False).encode())} == {"x"}


@pytest.mark.parametrize(
    "body",
    [
        {"model": "m", "messages": [{"role": "user", "content": "my file_id is x, previous_response_id is y"}]},
        {"messages": [{"role": "assistant", "tool_calls": [{"id": "call_1", "function": {"arguments": "{}"}}]}]},
        {"messages": [{"role": "tool", "tool_call_id": "call_1", "content": "x"}]},
        {"tools": [{"function": {"parameters": {"properties": {"file_id": {"type": "string"}}}}}]},
        {"metadata": {"thread_id": "mine", "conversation": {"id": "mine"}}},
        {"prompt": "a text", "model": "m"},
        {"previous_response_id": None, "conversation": None, "file_ids": []},
        {"input": "caf\u00e9"},
    ],
)
def test_what_is_no_reference(body: Any) -> None:
    assert ids(body) == set()


def test_what_says_everything_itself_need_not_be_known() -> None:
    items = [
        {"type": "message", "id": "msg_1", "role": "assistant", "content": [{"type": "output_text", "text": "x"}]},
        {"type": "function_call", "id": "fc_1", "call_id": "c", "name": "f", "arguments": "{}"},
        {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "x"},
    ]
    found = find_references(json.dumps({"input": items}).encode())
    assert {(reference.id, reference.is_needed) for reference in found} == {
        ("msg_1", False), ("fc_1", False), ("rs_1", False),
    }  # fmt: skip


def test_of_two_equal_names_both_count() -> None:
    body = b'{"input":[{"file_id":"mine","file_id":"theirs"}],"conversation":{"id":"mine","id":"other"}}'
    assert {found.id for found in find_references(body)} == {"mine", "theirs", "other"}


def test_a_name_can_be_escaped() -> None:
    for name in (rb"file\u005fid", rb"\u0066ile_id", rb"file\u005Fid", "file_\u0131d".encode()):
        found = find_references(b'{"input":[{"%b":"theirs"}]}' % name)
        assert [reference.id for reference in found] == ([] if b"\xc4" in name else ["theirs"])


def test_a_body_that_cannot_be_searched_in_bounds_is_refused() -> None:
    many = [{"file_id": "x"}] * (requested_objects.MAX_REFERENCES + 1)
    brackets = b'{"file_id":"x","input":[' + b"[]," * requested_objects.MAX_BRACKETS + b"[]]}"
    for body in (json.dumps(many).encode(), brackets, b'{"file_id":"x"', b'{"file_id":"x","a":' + b"[" * 100_000):
        with pytest.raises(BadRequest):
            find_references(body)


names = st.sampled_from(["file_id", "input", "a", "conversation", "id", "metadata", "type"])
bodies = st.recursive(
    st.one_of(st.text(max_size=3), st.integers(), st.none()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(names, inner, max_size=3)),
    max_leaves=12,
)


@given(bodies, st.booleans())
def test_no_spelling_of_a_body_hides_an_id(body: Any, is_spaced: bool) -> None:
    plain = json.dumps({"x": body}, separators=None if is_spaced else (",", ":")).encode()
    escaped = plain.replace(b"_id", rb"\u005fid")
    assert set(find_references(plain)) == set(find_references(escaped))
    assert bool(find_references(plain)) <= (b"id" in plain or b"conversation" in plain)
