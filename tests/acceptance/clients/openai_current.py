"""The current official Python client; it reads OPENAI_BASE_URL and OPENAI_API_KEY by itself."""

from __future__ import annotations

import asyncio
import os
import sys

from checks import (
    PROMPT,
    TIMEOUT_SECONDS,
    WRONG_KEY,
    expect_error_code,
    expect_stream,
    expect_text,
    expect_vector,
    run_checks,
)
from openai import AsyncOpenAI, AuthenticationError, DefaultHttpxClient, OpenAI, RateLimitError
from openai.types.chat import ChatCompletionChunk, ChatCompletionMessageParam

MODEL = os.environ["MODEL"]
EMBEDDING_MODEL = os.environ.get("EMBEDDING_MODEL", MODEL)
MESSAGES: list[ChatCompletionMessageParam] = [{"role": "user", "content": PROMPT}]

client = OpenAI(max_retries=0, timeout=TIMEOUT_SECONDS)


def expect_chat_stream(chunks: list[ChatCompletionChunk]) -> None:
    choices = [chunk.choices[0] for chunk in chunks if chunk.choices]
    # A usage chunk may follow the last real one, and some servers give it a choice without a reason.
    reasons = [choice.finish_reason for choice in choices if choice.finish_reason]
    expect_stream([choice.delta.content for choice in choices], reasons[-1] if reasons else None)


def check_models() -> None:
    assert MODEL in [model.id for model in client.models.list()]


def check_chat() -> None:
    answer = client.chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=24)
    expect_text(answer.choices[0].message.content)
    assert answer.choices[0].finish_reason in ("stop", "length")
    assert answer.model == MODEL
    assert answer.usage is not None and answer.usage.completion_tokens > 0


def check_chat_stream() -> None:
    chunks = list(client.chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=24, stream=True))
    expect_chat_stream(chunks)
    assert {chunk.model for chunk in chunks} == {MODEL}
    assert not any(chunk.usage for chunk in chunks), "usage was sent that nobody had asked for"


def check_chat_stream_usage() -> None:
    stream = client.chat.completions.create(
        model=MODEL,
        messages=MESSAGES,
        max_tokens=24,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    expect_chat_stream(chunks)
    assert chunks[-1].usage is not None and chunks[-1].usage.completion_tokens > 0


async def async_chat_stream() -> None:
    async with AsyncOpenAI(max_retries=0, timeout=TIMEOUT_SECONDS) as asynchronous:
        stream = await asynchronous.chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=24, stream=True)
        expect_chat_stream([chunk async for chunk in stream])


def check_completion() -> None:
    answer = client.completions.create(model=MODEL, prompt=PROMPT, max_tokens=24)
    expect_text(answer.choices[0].text)


def check_completion_stream() -> None:
    stream = client.completions.create(model=MODEL, prompt=PROMPT, max_tokens=24, stream=True)
    choices = [chunk.choices[0] for chunk in stream if chunk.choices]
    expect_stream([choice.text for choice in choices], choices[-1].finish_reason)


def check_embedding() -> None:
    answer = client.embeddings.create(model=EMBEDDING_MODEL, input=PROMPT)
    expect_vector(answer.data[0].embedding)


def check_wrong_key() -> None:
    try:
        OpenAI(api_key=WRONG_KEY, max_retries=0, timeout=TIMEOUT_SECONDS).models.list()
    except AuthenticationError as error:
        assert error.status_code == 401
        expect_error_code(error.code)
    else:
        raise AssertionError("a wrong key was accepted")


def check_refusals() -> None:
    """At the second request at the latest there is no more for one key, and never anything for the other. The client comes
    back by itself where that helps: it must not where it does not."""
    try:
        for _ in range(2):
            hurried = OpenAI(api_key=os.environ["RATE_KEY"], max_retries=0, timeout=TIMEOUT_SECONDS)
            hurried.chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=24)
    except RateLimitError as error:
        assert error.code == "rate_limit_exceeded"
        assert float(error.response.headers["retry-after-ms"]) > 0
    else:
        raise AssertionError("nothing was refused")
    asked: list[object] = []
    hooks = {"request": [asked.append]}
    with DefaultHttpxClient(event_hooks=hooks, timeout=TIMEOUT_SECONDS) as counting:
        poor = OpenAI(api_key=os.environ["POOR_KEY"], max_retries=2, http_client=counting)
        try:
            poor.chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=24)
        except RateLimitError as error:
            assert error.code == "insufficient_quota"
        else:
            raise AssertionError("nothing was refused")
    assert len(asked) == 1, f"it asked {len(asked)} times"


if __name__ == "__main__":
    sys.exit(
        run_checks(
            [
                ("models", check_models),
                ("chat", check_chat),
                ("chat_stream", check_chat_stream),
                ("chat_stream_usage", check_chat_stream_usage),
                ("chat_stream_async", lambda: asyncio.run(async_chat_stream())),
                ("completion", check_completion),
                ("completion_stream", check_completion_stream),
                ("embedding", check_embedding),
                ("wrong_key", check_wrong_key),
                ("refusals", check_refusals),
            ]
        )
    )
