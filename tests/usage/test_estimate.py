"""Guesses at what a request will use: never nothing, never without bounds."""

import base64
import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.json_body import parse_object
from gateway.core.sound_length import SoundLength
from gateway.usage.estimate import NOTHING_ESTIMATED, Estimate, estimate, estimate_bounds
from gateway.usage.models import Usage


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


TEXT = [{"role": "user", "content": 'see "file_id": "x" and "url": "https://example.com"'}]
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 32}}
SCHEMA = {"type": "object", "properties": {"url": {"type": "string"}, "file_id": {"type": "string"}}}
WHOLE: list[tuple[str, dict[str, Any]]] = [
    ("chat/completions", {"messages": TEXT, "temperature": 1, "anything": 5, "whatever": None}),
    ("chat/completions", {"messages": [{"role": "user", "content": [PICTURE]}]}),
    ("chat/completions", {"messages": [{"role": "tool", "tool_call_id": "call_1", "content": "x"}]}),
    ("chat/completions", {"messages": [], "tools": [{"type": "function", "function": {"name": "f", "parameters": SCHEMA}}]}),
    ("messages", {"messages": TEXT, "tools": [{"name": "f", "input_schema": SCHEMA}]}),
    ("responses", {"input": "https://example.com", "tools": [{"type": "custom", "name": "f"}]}),
    ("completions", {"prompt": ["a", "b"]}),
]  # fmt: skip
ELSEWHERE: list[tuple[str, dict[str, Any]]] = [
    ("responses", {"previous_response_id": "resp_1"}),
    ("responses", {"conversation": {"id": "conv_1"}}),
    ("responses", {"prompt": {"id": "pmpt_1"}}),
    ("responses", {"input": [{"id": "msg_1"}]}),
    ("responses", {"input": [{"type": "item_reference"}]}),
    ("responses", {"input": [{"content": [{"type": "input_image", "image_url": "https://example.com/a.png"}]}]}),
    ("responses", {"input": [{"content": [{"type": "input_file", "FILE_ID": "file-1"}]}]}),
    ("chat/completions", {"messages": [{"content": [{"image_url": {"url" : "HTTPS://example.com/a.png"}}]}]}),
    ("chat/completions", {"messages": [{"content": [{"file": {"file_id": "file-1"}}]}]}),
    ("chat/completions", {"messages": [{"role": "assistant", "audio": {"id": "audio_1"}}]}),
    ("chat/completions", {"contents": [{"parts": [{"fileData": {"fileUri": "gs://a/b"}}]}]}),
    ("messages", {"messages": [{"content": [{"source": {"type": "url", "url": "https://example.com/a.pdf"}}]}]}),
    ("chat/completions", {"unknown": "by a name"}),
    ("chat/completions", {"unknown": [1]}),
    ("chat/completions", {"unknown": {"a": 1}}),
]  # fmt: skip


@pytest.mark.parametrize(("endpoint", "fields"), WHOLE)
def test_a_prompt_that_is_in_the_body_is_bounded_by_its_bytes(endpoint: str, fields: dict[str, Any]) -> None:
    found = guess(endpoint, **fields)
    assert found.max_prompt is not None
    assert found.prompt <= found.max_prompt
    assert not found.has_provider_tools


@pytest.mark.parametrize(("endpoint", "fields"), ELSEWHERE)
def test_a_prompt_that_is_elsewhere_has_the_length_of_the_context_window(endpoint: str, fields: dict[str, Any]) -> None:
    found = guess(endpoint, **fields, max_tokens=5, max_output_tokens=5)
    assert found.max_prompt is None
    assert found.most(7000) == found.expected(7000) == Usage(7000, 5)
    assert found.most(None) == Usage(1_000_000, 5)


def test_a_key_that_is_written_with_escapes_is_not_missed() -> None:
    body = b'{"model":"m","messages":[{"content":[{"file\\u005fid":"file-1"}]}]}'
    assert estimate("chat/completions", parse_object(body)).max_prompt is None


def test_tools_of_the_provider_have_no_bound() -> None:
    found = guess("responses", input="x", max_output_tokens=5, tools=[{"type": "web_search"}])
    assert found.most(7000) == Usage(10**9, 5)


@pytest.mark.parametrize(
    "name", ["prediction", "response_format", "suffix", "contents", "anything", "temperature", "user"]
)
def test_every_byte_counts_that_is_no_short_setting(name: str) -> None:
    found = guess(**{name: "x" * 398})
    assert found.prompt == 100
    assert found.max_prompt in (400, None)


def test_a_setting_is_no_prompt_up_to_256_bytes() -> None:
    assert guess(user="x" * 254).prompt == 0
    assert guess(user="x" * 255).prompt == 65


def test_the_most_is_what_the_window_holds() -> None:
    found = guess(messages="x" * 398, n=2)
    assert (found.prompt, found.max_prompt, found.completion) == (100, 400, None)
    assert found.most(None) == Usage(400, 2 * 128 * 1024)
    assert found.most(1000) == Usage(400, 2000)
    assert found.most(300) == Usage(300, 600)
    assert found.expected(300) == Usage(100, 600)
    assert guess(messages="x" * 398, max_tokens=9).most(300) == Usage(300, 9)


def test_the_smallest_picture_may_be_billed_as_much_as_a_large_one() -> None:
    text = json.dumps([PICTURE, PICTURE])
    found = guess(messages=[PICTURE, PICTURE])
    assert found.max_prompt == len(text) + 2 * 50_000
    assert found.prompt == -(-len(text) // 4) + 2 * (1000 - (len("base64,") + 32) // 4)


@pytest.mark.parametrize("endpoint", ["messages/count_tokens", "responses/input_tokens"])
def test_counting_tokens_uses_none(endpoint: str) -> None:
    assert guess(endpoint, messages="x" * 400) == NOTHING_ESTIMATED


def test_speech_and_images_are_counted_by_their_units() -> None:
    assert guess("audio/speech", input="h\u00e9llo").characters == 5
    assert guess("audio/speech", input=["x"]).characters == len('["x"]')
    assert guess("audio/speech").characters == 0
    assert guess("images/generations", prompt="x", n=3).images == 3
    assert guess("images/generations", prompt="x").most(None) == Usage(3, 0, images=1)


def test_rates_take_an_estimate_and_budgets_the_most() -> None:
    bounds = estimate_bounds(
        "chat/completions", parse_object(b'{"model":"m","messages":"%s"}' % (b"x" * 398)), 1000, 8000
    )
    assert bounds.tokens == Usage(100, 1000)
    assert bounds.money == Usage(400, 8000)
    assert bounds.least == Usage(13, 1)
    unknown = estimate_bounds("responses", parse_object(b'{"model":"m","previous_response_id":"r"}'), 1000, 8000)
    assert unknown.tokens == Usage(8000, 1000)


def test_sound_is_bounded_by_its_length_for_money_alone() -> None:
    fields = parse_object(b'{"model":"m","prompt":"x"}')
    bounds = estimate_bounds("audio/transcriptions", fields, 1000, 16_000, SoundLength(2, 60))
    assert bounds.tokens == Usage(1, 0), "tokens are counted when they are reported"
    assert bounds.money == Usage(3 + 1200, 600, seconds=60, audio_prompt_tokens=1200)
    assert bounds.least.seconds == 2
    assert bounds.estimate.used(7) == Usage(1 + 1200, 7, seconds=60, audio_prompt_tokens=1200)
    assert bounds.estimate.with_units(Usage(5, 5, seconds=9)).seconds == 9
    assert bounds.estimate.heard(3) == Usage(1 + 60, 0, seconds=3, audio_prompt_tokens=60)
    long = estimate("audio/transcriptions", fields, SoundLength(10, 10_000)).most(16_000)
    assert (long.prompt_tokens, long.audio_prompt_tokens) == (16_000, 15_997), "a window bounds what is heard"
    assert estimate("chat/completions", fields, SoundLength(1, 1)).most(100).seconds == 0


@pytest.mark.parametrize("endpoint", ["images/generations", "images/edits", "images/variations"])
def test_images_are_counted_wherever_they_are_made(endpoint: str) -> None:
    assert guess(endpoint, prompt="x", n=3).used(0).images == 3
