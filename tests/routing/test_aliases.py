"""Models under another name: the provider sees its own, the client sees the one that it used."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway.core.upstream_errors import UpstreamRefused
from gateway.providers.base import EVENT_STREAM, JSON, ProviderRequest, ProviderResponse
from gateway.routing import aliases
from gateway.routing.aliases import rename_request, rename_response
from tests.support.inference import chat, post


def renamed(body: bytes) -> Any:
    return rename_response(ProviderResponse(200, JSON, body), lambda _: "alias").body


async def renamed_stream(*blocks: bytes, content_type: str = EVENT_STREAM) -> list[bytes]:
    async def stream() -> AsyncIterator[bytes]:
        for block in blocks:
            yield block

    body = rename_response(ProviderResponse(200, content_type, stream()), lambda _: "alias").body
    assert not isinstance(body, bytes)
    return [block async for block in body]


def test_a_request_gets_the_providers_name_and_keeps_everything_else() -> None:
    request = rename_request(post("chat/completions", b'{"a": 1.0, "model":"alias","b":[ ]}'), "real")
    assert request.body == b'{"a":1.0,"model":"real","b":[ ]}'
    assert (request.model, request.fields) == ("real", {"a": 1.0, "model": "real", "b": []})


def test_a_body_that_is_not_bytes_names_no_model() -> None:
    request = rename_request(ProviderRequest("GET", "files", model="alias"), "real")
    assert (request.body, request.fields, request.model) == (None, None, "real")


def test_the_original_request_is_unchanged() -> None:
    request = chat("alias")
    rename_request(request, "real")
    assert (request.model, b"alias" in request.body) == ("alias", True)  # type: ignore[operator]


@pytest.mark.parametrize(
    "body", [b"", b"not JSON real", b"[]", b'{"x":"real"}', b'{"response":"real"}', b"\xff\xfe", b'{"model":"real"']
)
def test_a_response_that_names_no_model_is_unchanged(body: bytes) -> None:
    assert renamed(body) == body


@pytest.mark.parametrize("name", ["real", "real-2024-07-18", "another"])
def test_the_client_sees_its_own_name_whatever_the_provider_says(name: str) -> None:
    """OpenAI answers with dated names."""
    assert renamed(f'{{"id":1, "model":"{name}"}}'.encode()) == b'{"id":1,"model":"alias"}'
    nested = f'{{"x":{{"model":"{name}"}},"response":{{"model":"{name}"}}}}'.encode()
    assert renamed(nested) == f'{{"x":{{"model":"{name}"}},"response":{{"model":"alias"}}}}'.encode()


async def test_events_are_renamed_one_by_one() -> None:
    assert await renamed_stream(
        b'data: {"model":"real"}\n\n: real\n\n',
        b'data:{"model":"real"}\r\n\r\n',
        b"data: [DONE]\n\n",
        b'event: x\ndata: {"response":{"model":"real","a":"real"}}\n\n',
        b'data: {"model":\ndata: "real"}\n\n',
        b'retry: "real"\n\n',
        content_type=EVENT_STREAM + "; charset=utf-8",
    ) == [
        b'data: {"model":"alias"}\n\n: real\n\n',
        b'data: {"model":"alias"}\r\n\r\n',
        b"data: [DONE]\n\n",
        b'event: x\ndata: {"response":{"model":"alias","a":"real"}}\n\n',
        b'data: {"model":"alias"}\n\n',
        b'retry: "real"\n\n',
    ]


async def test_other_streams_are_unchanged() -> None:
    assert await renamed_stream(b'{"model":"real"}', content_type="audio/mpeg") == [b'{"model":"real"}']


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (b'data: {"model":"real"}\nid: 3\n\n', b'data: {"model":"alias"}\nid: 3\n\n'),
        (b'data: {"model":"real",\ndata: "x":[1,\ndata: 2]}\n\n', b'data: {"model":"alias","x":[1,\ndata: 2]}\n\n'),
        (b'data: {"model":"real","x":NaN}\n\n', b'data: {"model": "alias", "x": NaN}\n\n'),
        (b'data: {"model":"real","x":"\\ud83d"}\n\n', b'data: {"model": "alias", "x": "\\ud83d"}\n\n'),
        (b'data: {"message":{"model":"real"}}\n\n', b'data: {"message":{"model":"alias"}}\n\n'),
        (b'data: {"message":{"model":"real"},"x":NaN}\n\n', b'data: {"message": {"model": "alias"}, "x": NaN}\n\n'),
        (b'data: {"model":5}\n\n', b'data: {"model":5}\n\n'),
        (b'data: ["model", NaN]\n\n', b'data: ["model", NaN]\n\n'),
        (b'data: {"x":{"model":NaN}}\n\n', b'data: {"x":{"model":NaN}}\n\n'),
    ],
)
async def test_odd_events_are_renamed(event: bytes, expected: bytes) -> None:
    assert await renamed_stream(event) == [expected]


async def test_documents_in_chunks_are_renamed(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = (b'{"model":', b'"real", "x":1}')
    assert await renamed_stream(*parts, content_type=JSON) == [b'{"model":"alias","x":1}']
    assert await renamed_stream(content_type=JSON) == []
    monkeypatch.setattr(aliases, "MAX_DOCUMENT_BYTES", 10)
    assert b"".join(await renamed_stream(*parts, content_type=JSON)) == b"".join(parts)


async def test_a_renamed_document_has_not_the_length_that_was_announced() -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b'{"model":"real"}'

    given = ProviderResponse(200, JSON, chunks(), {"Content-Length": "16", "etag": "x"})
    assert rename_response(given, lambda _: "alias").headers == {"etag": "x"}


def test_a_name_may_be_left() -> None:
    body = b'{"model":"other", "x":1}'
    assert rename_response(ProviderResponse(200, JSON, body), lambda _: None).body == body


@pytest.mark.parametrize(("body", "expected"), [
    (b'{"object":"list","data":[{"id":"1","model":"real"},{"id":"2"},5,{"model":7}]}',
     b'{"object":"list","data":[{"id":"1","model":"alias"},{"id":"2"},5,{"model":7}]}'),
    (b'{"data":[{"model":"real"}],"x":NaN}', b'{"data": [{"model": "alias"}], "x": NaN}'),
    (b'{"data":[{"x":{"model":"real"}}]}', b'{"data":[{"x":{"model":"real"}}]}'),
    (b'{"data":[["model"]],"model":"real"}', b'{"data":[["model"]],"model":"alias"}'),
    (b'{"data":{"model":"real"}}', b'{"data":{"model":"real"}}'),
])  # fmt: skip
def test_each_entry_of_a_list_is_renamed(body: bytes, expected: bytes) -> None:
    """Stored responses and chats, batches, jobs."""
    assert renamed(body) == expected


def refused(message: str, openai_body: bytes | None = None, original: bytes | None = None) -> UpstreamRefused:
    error = UpstreamRefused(404, message, {}, openai_body, original)
    aliases.rename_error(error, "gpt-4o", 'my "4"')
    return error


def test_an_error_has_the_name_that_the_client_used() -> None:
    own = b'{"error":{"message":"The model `gpt-4o` is \\"gpt-4o\\"","model":"gpt-4o","param":null}}'
    error = refused("The model `gpt-4o` does not exist", own)
    assert error.message == 'The model `my "4"` does not exist'
    assert b"gpt-4o" not in (error.openai_body or b"")
    assert json.loads(error.openai_body or b"")["error"]["model"] == 'my "4"'
    assert error.original_body == error.openai_body


@pytest.mark.parametrize(("message", "is_renamed"), [
    ("Rate limit reached for gpt-4o in organization x", True),
    ("Use gpt-4o.", True),
    ("gpt-4o: too long", False),
    ("The model gpt-4o-mini is another one", False),
    ("x/gpt-4o and gpt-4o.5 are, too", False),
    ("nothing of it", False),
])  # fmt: skip
def test_only_the_whole_name_is_replaced(message: str, is_renamed: bool) -> None:
    assert ('my "4"' in refused(message).message) is is_renamed


def test_a_name_that_is_a_word_is_replaced_in_quotation_marks_alone() -> None:
    error = UpstreamRefused(404, "a small error: 'small' is unknown", {})
    aliases.rename_error(error, "small", "big")
    assert error.message == "a small error: 'big' is unknown"
