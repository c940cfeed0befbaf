"""The contract of a provider, which every implementation has to meet: add it to the fixture."""

from collections.abc import AsyncIterator

import msgspec
import pytest
import pytest_asyncio

from gateway.core import sse
from gateway.core.errors import GatewayError
from gateway.providers import registry
from gateway.providers.base import EVENT_STREAM, JSON, Provider, ProviderConfig, ProviderRequest, ProviderResponse
from tests.support.upstream import Connection, Received, answer, running_upstream

CHAT = {"model": "m", "messages": [{"role": "user", "content": "one two"}]}


async def upstream_acts(received: Received, connection: Connection) -> None:
    if received.target == "/v1/models":
        await connection.send(
            answer(b'{"object":"list","data":[{"id":"m","object":"model","created":1,"owned_by":"x"}]}')
        )
    elif received.target != "/v1/chat/completions":
        await connection.send(answer(b'{"error":{"message":"no such thing"}}', "404 Not Found"))
    elif b'"stream":true' in received.body:
        await connection.start_stream()
        await connection.chunk(b'data: {"choices":[{"delta":{"content":"one "}}]}\n\ndata: {"choices":[{"del')
        await connection.chunk(b'ta":{"content":"two"},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n')
        await connection.end_stream()
    else:
        await connection.send(answer(b'{"choices":[{"message":{"content":"one two"}}]}'))


@pytest_asyncio.fixture(params=["echo", "openai"])
async def provider(request: pytest.FixtureRequest) -> AsyncIterator[Provider]:
    async with running_upstream(upstream_acts) as upstream:
        found = registry.find(request.param)(ProviderConfig(upstream.url, "sk-upstream", 30, 30, 30))
        yield found
        await found.aclose()


def chat(**more: object) -> ProviderRequest:
    fields = {**CHAT, **more}
    stream = fields.get("stream") is True
    return ProviderRequest("POST", "chat/completions", "", {}, msgspec.json.encode(fields), fields, "m", stream)


def close(response: ProviderResponse) -> None:
    if response.close is not None:
        response.close()


async def read(response: ProviderResponse) -> list[bytes]:
    try:
        return [response.body] if isinstance(response.body, bytes) else [chunk async for chunk in response.body]
    finally:
        close(response)


async def test_it_has_a_name(provider: Provider) -> None:
    assert provider.name in registry.names()


async def test_a_request_gets_a_response(provider: Provider) -> None:
    response = await provider.send(chat())
    assert (response.status, response.content_type) == (200, JSON)
    content = msgspec.json.decode(b"".join(await read(response)))
    assert content["choices"][0]["message"]["content"] == "one two"


async def test_a_stream_is_made_of_chunks_that_end_behind_whole_events(provider: Provider) -> None:
    response = await provider.send(chat(stream=True))
    assert (response.status, response.content_type) == (200, EVENT_STREAM)
    chunks = await read(response)
    assert all(chunk.endswith(b"\n\n") for chunk in chunks)
    events = [sse.event_data(event) or b"" for event in sse.split_events(b"".join(chunks))]
    assert events[-1] == b"[DONE]"
    texts = [msgspec.json.decode(event)["choices"][0]["delta"].get("content") or "" for event in events[:-1]]
    assert "".join(texts) == "one two"


async def test_an_endpoint_that_it_does_not_have_is_an_error_with_a_status(provider: Provider) -> None:
    with pytest.raises(GatewayError) as caught:
        await provider.send(ProviderRequest("GET", "no/such/endpoint"))
    assert caught.value.status == 404


async def test_it_lists_its_models(provider: Provider) -> None:
    for model in await provider.models():
        assert set(model) == {"id", "object", "created", "owned_by"}
        assert model["object"] == "model"


async def test_a_response_can_be_closed_before_it_was_read(provider: Provider) -> None:
    response = await provider.send(chat(stream=True))
    close(response)
    assert (await provider.send(chat())).status == 200
