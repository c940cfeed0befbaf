"""The offline provider, as OpenAI's own client sees it."""

import base64
import math
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest
import pytest_asyncio

from gateway.providers.echo.provider import EchoProvider
from tests.support.gateway import KEY, running_gateway

HI: list[Any] = [{"role": "user", "content": "one two three four"}]


@pytest_asyncio.fixture
async def client(tmp_path: Path) -> AsyncIterator[openai.AsyncOpenAI]:
    async with (
        running_gateway(tmp_path, FREEGPT_API_KEY=KEY) as gateway,
        openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=KEY, max_retries=0) as client,
    ):
        yield client


async def test_chat(client: openai.AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(model="any", messages=HI)
    assert answer.choices[0].message.content == "one two three four"
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.model == "any"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (4, 4, 8)


async def test_the_last_user_message_comes_back(client: openai.AsyncOpenAI) -> None:
    messages: list[Any] = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "in "}, {"type": "image_url", "image_url": {"url": "x"}},
                                     {"type": "text", "text": "parts 😀"}]},
        {"role": "assistant", "content": None},
    ]  # fmt: skip
    answer = await client.chat.completions.create(model="m", messages=messages)
    assert answer.choices[0].message.content == "in parts 😀"


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
async def test_token_limits_cut(client: openai.AsyncOpenAI, name: str) -> None:
    limit: dict[str, Any] = {name: 2}
    answer = await client.chat.completions.create(model="m", messages=HI, **limit)
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == ("one two ", "length")
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 2


async def test_an_exact_limit_does_not_cut(client: openai.AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(model="m", messages=HI, max_tokens=4)
    assert answer.choices[0].finish_reason == "stop"


@pytest.mark.parametrize(
    ("stop", "text"), [(" three", "one two"), (["four", "two"], "one "), ([], "one two three four")]
)
async def test_stop(client: openai.AsyncOpenAI, stop: Any, text: str) -> None:
    answer = await client.chat.completions.create(model="m", messages=HI, stop=stop)
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == (text, "stop")


async def test_several_choices(client: openai.AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(model="m", messages=HI, n=3)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 12
    stream = await client.chat.completions.create(model="m", messages=HI, n=2, stream=True)
    texts = ["", ""]
    async for chunk in stream:
        texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert texts == ["one two three four"] * 2


async def test_chat_stream(client: openai.AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(model="m", messages=HI, stream=True, max_tokens=3)
    chunks = [chunk async for chunk in stream]
    assert [chunk.choices[0].delta.content for chunk in chunks] == ["", "one ", "two ", "three ", None]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None] * 4 + ["length"]
    assert len({chunk.id for chunk in chunks}) == 1
    assert all(chunk.object == "chat.completion.chunk" for chunk in chunks)


async def test_usage_comes_last_when_asked_for(client: openai.AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        model="m", messages=HI, stream=True, stream_options={"include_usage": True}
    )
    *before, last = [chunk async for chunk in stream]
    assert all(chunk.usage is None for chunk in before)
    assert last.choices == []
    assert last.usage is not None
    assert last.usage.total_tokens == 8


async def test_completions(client: openai.AsyncOpenAI) -> None:
    whole = await client.completions.create(model="m", prompt="a b c", max_tokens=2)
    assert (whole.choices[0].text, whole.choices[0].finish_reason) == ("a b ", "length")
    stream = await client.completions.create(model="m", prompt=["x", "a b"], stream=True)
    chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].text for chunk in chunks) == "a b"
    assert chunks[-1].choices[0].finish_reason == "stop"


async def test_embeddings(client: openai.AsyncOpenAI) -> None:
    answer = await client.embeddings.create(model="m", input=["Hello", "Hello", "there"])
    vectors = [item.embedding for item in answer.data]
    assert [item.index for item in answer.data] == [0, 1, 2]
    assert {len(vector) for vector in vectors} == {1536}
    assert vectors[0] == vectors[1] != vectors[2]
    for vector in vectors:
        assert math.isclose(math.hypot(*vector), 1, abs_tol=1e-5)


async def test_embeddings_as_numbers_and_as_base64(client: openai.AsyncOpenAI) -> None:
    numbers = await client.embeddings.create(model="m", input="Hi", encoding_format="float", dimensions=8)
    packed = await client.embeddings.create(model="m", input="Hi", encoding_format="base64", dimensions=8)
    raw: Any = packed.data[0].embedding
    unpacked = struct.unpack("<8f", base64.b64decode(raw))
    assert numbers.data[0].embedding == pytest.approx(unpacked, abs=1e-6)
    assert len(numbers.data[0].embedding) == 8


@pytest.mark.parametrize("given_input", [[1, 2, 3], [[1, 2], [3]], ["a"]])
async def test_kinds_of_embedding_inputs(client: openai.AsyncOpenAI, given_input: Any) -> None:
    answer = await client.embeddings.create(model="m", input=given_input)
    assert len(answer.data) == (2 if given_input == [[1, 2], [3]] else 1)


@pytest.mark.parametrize(("field", "value"), [("input", []), ("input", {}), ("input", [1, "a"]), ("dimensions", 0.5),
                                              ("dimensions", 99999), ("dimensions", True)])  # fmt: skip
async def test_bad_embedding_requests(client: openai.AsyncOpenAI, field: str, value: Any) -> None:
    body = {"model": "m", "input": "x", field: value}
    with pytest.raises(openai.BadRequestError) as caught:
        await client.post("/embeddings", cast_to=object, body=body)
    assert caught.value.param == field


async def test_responses(client: openai.AsyncOpenAI) -> None:
    answer = await client.responses.create(model="m", input="one two three", max_output_tokens=2)
    assert answer.output_text == "one two "
    assert answer.status == "incomplete"
    assert answer.incomplete_details is not None
    assert answer.incomplete_details.reason == "max_output_tokens"
    whole = await client.responses.create(model="m", input=[{"role": "user", "content": "one two"}])
    assert (whole.output_text, whole.status) == ("one two", "completed")
    assert whole.usage is not None
    assert whole.usage.total_tokens == 4


async def test_responses_stream(client: openai.AsyncOpenAI) -> None:
    stream = await client.responses.create(model="m", input="one two", stream=True)
    events = [event async for event in stream]
    assert events[0].type == "response.created"
    assert events[-1].type == "response.completed"
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == "one two"
    assert [event.sequence_number for event in events] == list(range(len(events)))
    async with client.responses.stream(model="m", input="one two") as manager:
        async for _ in manager:
            pass
        assert (await manager.get_final_response()).output_text == "one two"


async def test_models(client: openai.AsyncOpenAI) -> None:
    assert [model.id async for model in client.models.list()] == ["echo"]
    assert (await client.models.retrieve("echo")).owned_by == "gateway"
    with pytest.raises(openai.NotFoundError) as caught:
        await client.models.retrieve("none")
    assert caught.value.code == "model_not_found"


async def test_what_it_does_not_have(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        await client.moderations.create(input="x")
    assert "GATEWAY_UPSTREAM_URL" in caught.value.message


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("chat/completions", "POST"),
        ("completions", "POST"),
        ("embeddings", "POST"),
        ("responses", "POST"),
        ("models", "GET, HEAD"),
    ],
)
async def test_methods_that_it_does_not_have(client: openai.AsyncOpenAI, path: str, allowed: str) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        await client.put(f"/{path}", cast_to=object, body={"model": "echo"})
    assert (caught.value.status_code, caught.value.code) == (405, "method_not_supported")
    assert caught.value.response.headers["Allow"] == allowed


@pytest.mark.parametrize(
    ("field", "value"),
    [("messages", []), ("messages", "text"), ("messages", [1]), ("n", 0), ("n", 129), ("n", "2"), ("n", True),
     ("max_tokens", -1), ("max_tokens", 1.5), ("stop", 5), ("stop", [1])],
)  # fmt: skip
async def test_bad_chat_requests(client: openai.AsyncOpenAI, field: str, value: Any) -> None:
    body = {"model": "m", "messages": HI, field: value}
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError) as caught:
            await client.post("/chat/completions", cast_to=object, body={**body, "stream": stream})
        assert caught.value.param == field


async def test_a_bad_prompt(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError):
        await client.post("/completions", cast_to=object, body={"model": "m", "prompt": 5})


async def test_it_can_be_closed() -> None:
    await EchoProvider().aclose()
