"""Guesses at what a request will use: never nothing, never without bounds."""

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.schema import read_object
from gateway.usage.estimate import Estimate, estimate, prompt_tokens


def guess(endpoint: str = "chat/completions", **fields: Any) -> Estimate:
    return estimate(endpoint, read_object(json.dumps({"model": "m", **fields}).encode()))


@pytest.mark.parametrize(
    ("fields", "completion"),
    [
        ({}, None),
        ({"max_tokens": 10}, 10),
        ({"max_completion_tokens": 20, "max_tokens": 10}, 20),
        ({"max_output_tokens": 30}, 30),
        ({"max_tokens": 10, "n": 3}, 30),
        ({"max_tokens": 10, "best_of": 4, "n": 2}, 40),
        ({"max_tokens": None}, None),
        ({"max_tokens": "10"}, None),
        ({"max_tokens": True}, None),
        ({"max_tokens": -1}, None),
        ({"max_tokens": 0}, 0),
        ({"max_tokens": 10**9, "n": 128}, 10**9),
    ],
)
def test_the_bound_of_an_answer_is_what_the_request_says(fields: dict[str, Any], completion: int | None) -> None:
    assert guess(**fields).completion == completion


@pytest.mark.parametrize("endpoint", ["embeddings", "moderations", "rerank"])
def test_some_answers_have_no_completion(endpoint: str) -> None:
    assert guess(endpoint, input="Hello", max_tokens=7).completion == 0


def test_every_kind_of_prompt_counts() -> None:
    for name in ("messages", "input", "prompt", "instructions", "tools", "system"):
        assert guess(**{name: "x" * 398}).prompt == 100


def test_attachments_do_not_count_by_their_bytes() -> None:
    picture = base64.b64encode(bytes(range(256)) * 4096).decode()
    content = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{picture}"}},
        {"type": "input_audio", "input_audio": {"data": picture, "format": "wav"}},
    ]
    assert 2000 < guess(messages=[{"role": "user", "content": content}]).prompt < 2200


def test_without_json_nothing_is_known() -> None:
    assert estimate("files", None) == Estimate(0, 0)


@given(st.text(), st.none() | st.integers(0, 10**6))
def test_the_least_is_not_above_the_guess(text: str, bound: int | None) -> None:
    found = guess(messages=[{"role": "user", "content": text}], max_tokens=bound)
    assert 1 <= found.least_prompt <= found.prompt
    assert found.least_completion <= found.completion_or(1000)


def test_a_long_prompt_takes_linear_time() -> None:
    assert prompt_tokens(read_object(json.dumps({"prompt": "ab " * 10**6}).encode())) == 750_001
