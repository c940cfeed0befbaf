"""Guesses at what a request will use: never nothing, never without bounds."""

import base64
import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.json_body import parse_object
from gateway.usage.estimate import NOTHING_ESTIMATED, Estimate, estimate


def guess(endpoint: str = "chat/completions", **fields: Any) -> Estimate:
    return estimate(endpoint, parse_object(json.dumps({"model": "m", **fields}).encode()))


@pytest.mark.parametrize(
    ("fields", "completion"),
    [
        ({}, None),
        ({"max_tokens": 10}, 10),
        ({"max_completion_tokens": 20, "max_tokens": 30}, 30),
        ({"max_output_tokens": 30}, None),
        ({"max_tokens": 10, "n": 3}, 30),
        ({"max_tokens": 10, "best_of": 4, "n": 2}, 40),
        ({"max_completion_tokens": 0, "max_tokens": 50}, 50),
        ({"max_tokens": 1000.0}, 1000),
        ({"max_tokens": 10**12}, 10**9),
        ({"max_tokens": None}, None),
        ({"max_tokens": "10"}, None),
        ({"max_tokens": True}, None),
        ({"max_tokens": -1}, None),
        ({"max_tokens": 0}, None),
        ({"max_tokens": 10**9, "n": 128}, 10**9),
    ],
)
def test_the_bound_of_an_answer_is_what_the_request_says(fields: dict[str, Any], completion: int | None) -> None:
    assert guess(**fields).completion == completion


@pytest.mark.parametrize("endpoint", ["embeddings", "moderations", "rerank"])
def test_some_answers_have_no_completion(endpoint: str) -> None:
    assert guess(endpoint, input="Hello", max_tokens=7).completion == 0


def test_each_prompt_of_a_list_is_answered() -> None:
    assert guess("completions", prompt=["a"] * 1000, max_tokens=8).completion == 8000
    assert guess("completions", prompt=[[1, 2], [3]], max_tokens=8).completion == 16
    assert guess("completions", prompt=[1, 2, 3], max_tokens=8).completion == 8
    assert guess("completions", prompt=['a "quoted" one [1] \\', "", "\\\\"], max_tokens=8).completion == 24
    assert guess("completions", prompt="one [1] text", max_tokens=8).completion == 8
    assert guess("completions", prompt=[], max_tokens=8).completion == 8
    assert guess("embeddings", input=["a"] * 1000).completion == 0


def test_each_answer_without_a_bound_is_guessed() -> None:
    assert guess(n=128).completion_or(1000) == 128_000
    assert guess(n=128).min_completion == 128


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
    assert 2000 < guess(messages=[{"role": "user", "content": content}]).prompt < 12_000


def test_without_json_nothing_is_known() -> None:
    assert estimate("files", None) == NOTHING_ESTIMATED


@given(st.text(), st.none() | st.integers(0, 10**6))
def test_the_least_is_not_above_the_guess(text: str, bound: int | None) -> None:
    found = guess(messages=[{"role": "user", "content": text}], max_tokens=bound)
    assert 1 <= found.min_prompt <= found.prompt
    assert found.min_completion <= found.completion_or(1000)


@pytest.mark.parametrize("name", ["n", "best_of", "max_tokens", "prompt"])
def test_many_small_values_are_not_decoded(name: str) -> None:
    """They would take thirty times their size."""
    body = b'{"model":"m","%s":[%s""]}' % (name.encode(), (b"[]," if name != "prompt" else b'"a",') * 2**19)
    fields = parse_object(body)
    tracemalloc.start()
    estimate("completions", fields)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 3 * len(body)


def test_a_long_prompt_takes_linear_time() -> None:
    assert guess("completions", prompt="ab " * 10**6).prompt == 750_001


@pytest.mark.parametrize("word", ["x" * 1023 + " ", "base64," * 200, '"data":"' + "a" * 1023 + '"'])
def test_no_prompt_takes_longer_than_its_length_allows(word: str) -> None:
    """Sixteen megabytes of what a pattern might try again and again; pytest's own time-out is the bound."""
    assert guess(messages=word * (16 * 2**20 // len(word))).prompt > 10**6


def test_a_text_without_spaces_is_no_attachment() -> None:
    assert guess(messages="the_cat_sat_on_the_mat-" * 20_000).prompt > 100_000


@pytest.mark.parametrize("number", ["1e999", "1" * 5000, "1e-999"])
def test_numbers_that_no_machine_can_hold_are_no_bounds(number: str) -> None:
    body = f'{{"model":"m","messages":[],"max_tokens":{number},"n":{number}}}'.encode()
    assert estimate("chat/completions", parse_object(body)).choices == 1
