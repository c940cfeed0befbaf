"""The official Python client as it was before version 1, with `openai.api_base`, `model=` and `engine=`."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

import openai
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

MODEL = os.environ["MODEL"]
EMBEDDING_MODEL = os.environ.get("EMBEDDING_MODEL", MODEL)
BY_MODEL = {"model": MODEL}
BY_ENGINE = {"engine": MODEL}
CHAT: dict[str, Any] = {
    "messages": [{"role": "user", "content": PROMPT}],
    "max_tokens": 24,
    "request_timeout": TIMEOUT_SECONDS,
}
COMPLETION: dict[str, Any] = {"prompt": PROMPT, "max_tokens": 24, "request_timeout": TIMEOUT_SECONDS}

# It has no annotations, so a strict type checker would refuse every call.
old: Any = openai
# This client knows OPENAI_API_BASE, not OPENAI_BASE_URL.
old.api_base = os.environ["OPENAI_BASE_URL"]
old.api_key = os.environ["OPENAI_API_KEY"]


def expect_chat_stream(chunks: list[Any]) -> None:
    choices = [chunk["choices"][0] for chunk in chunks if chunk["choices"]]
    reasons = [choice.get("finish_reason") for choice in choices if choice.get("finish_reason")]
    expect_stream([choice["delta"].get("content") for choice in choices], reasons[-1] if reasons else None)


def check_models() -> None:
    listed = old.Model.list()
    assert MODEL in [model["id"] for model in listed["data"]]


def check_chat(target: dict[str, str]) -> None:
    answer = old.ChatCompletion.create(**target, **CHAT)
    expect_text(answer["choices"][0]["message"]["content"])
    # The attribute form is the other way its users read an answer.
    expect_text(answer.choices[0].message.content)


def check_chat_stream(target: dict[str, str]) -> None:
    expect_chat_stream(list(old.ChatCompletion.create(**target, **CHAT, stream=True)))


async def async_chat_stream() -> None:
    """The asynchronous half speaks through another HTTP library, so it is a client of its own."""
    stream = await old.ChatCompletion.acreate(**BY_MODEL, **CHAT, stream=True)
    expect_chat_stream([chunk async for chunk in stream])


def check_completion(target: dict[str, str]) -> None:
    answer = old.Completion.create(**target, **COMPLETION)
    expect_text(answer["choices"][0]["text"])


def check_completion_stream() -> None:
    stream = old.Completion.create(**BY_MODEL, **COMPLETION, stream=True)
    choices = [chunk["choices"][0] for chunk in stream if chunk["choices"]]
    expect_stream([choice.get("text") for choice in choices], choices[-1]["finish_reason"])


def check_embedding(target: dict[str, str]) -> None:
    answer = old.Embedding.create(**target, input=PROMPT, request_timeout=TIMEOUT_SECONDS)
    expect_vector(answer["data"][0]["embedding"])


def check_wrong_key() -> None:
    try:
        old.Model.list(api_key=WRONG_KEY)
    except old.error.AuthenticationError as error:
        assert error.http_status == 401
        expect_error_code(error.json_body["error"].get("code"))
    else:
        raise AssertionError("a wrong key was accepted")


def check_refusals() -> None:
    """At the second request at the latest there is no more for one key, and never anything for the other."""
    for key, code in ((os.environ["RATE_KEY"], "rate_limit_exceeded"), (os.environ["POOR_KEY"], "insufficient_quota")):
        try:
            for _ in range(2):
                old.ChatCompletion.create(**BY_MODEL, **CHAT, api_key=key)
        except old.error.RateLimitError as error:
            assert error.http_status == 429
            assert error.json_body["error"]["code"] == code
        else:
            raise AssertionError(f"{code}: nothing was refused")


if __name__ == "__main__":
    sys.exit(
        run_checks(
            [
                ("models", check_models),
                ("chat", lambda: check_chat(BY_MODEL)),
                ("chat_stream", lambda: check_chat_stream(BY_MODEL)),
                ("chat_stream_async", lambda: asyncio.run(async_chat_stream())),
                ("completion", lambda: check_completion(BY_MODEL)),
                ("completion_stream", check_completion_stream),
                ("embedding", lambda: check_embedding({"model": EMBEDDING_MODEL})),
                ("engine_chat", lambda: check_chat(BY_ENGINE)),
                ("engine_chat_stream", lambda: check_chat_stream(BY_ENGINE)),
                ("engine_completion", lambda: check_completion(BY_ENGINE)),
                ("engine_embedding", lambda: check_embedding({"engine": EMBEDDING_MODEL})),
                ("wrong_key", check_wrong_key),
                ("refusals", check_refusals),
            ]
        )
    )
