"""The echo's text: prompts from request bodies, and replies cut from them."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.errors import BadRequest
from gateway.providers.echo.text import Prompt, chat_prompt, completion_prompt, reply, responses_prompt, wants_usage


@pytest.mark.parametrize(
    ("messages", "prompt"),
    [
        ([{"role": "user", "content": "one two"}], Prompt("one two", 2)),
        ([{"role": "system", "content": "be brief"}, {"role": "user", "content": "one"}], Prompt("one", 3)),
        ([{"role": "user", "content": "one"}, {"role": "assistant", "content": "two"}], Prompt("one", 2)),
        ([{"role": "assistant", "content": "only this"}], Prompt("only this", 2)),
        ([{"role": "user", "content": None}], Prompt("", 0)),
        ([{"role": "user", "content": [{"text": "a "}, {"type": "image_url"}, 7, {"text": "b"}]}], Prompt("a b", 2)),
    ],
)  # fmt: skip
def test_the_last_message_of_the_user_is_the_prompt_and_all_words_count(messages: list[Any], prompt: Prompt) -> None:
    assert chat_prompt({"messages": messages}) == prompt
    assert responses_prompt({"input": messages}) == prompt


@pytest.mark.parametrize("messages", [None, [], {}, "text", [1], ["text"]])
def test_invalid_messages_are_refused(messages: object) -> None:
    with pytest.raises(BadRequest) as caught:
        chat_prompt({"messages": messages})
    assert (caught.value.param, caught.value.code) == ("messages", "invalid_type")


def test_the_input_of_responses_may_be_a_string() -> None:
    assert responses_prompt({"input": "one two"}) == Prompt("one two", 2)
    with pytest.raises(BadRequest) as caught:
        responses_prompt({})
    assert caught.value.param == "input"


@pytest.mark.parametrize(("prompt", "text"), [("a b", "a b"), (["x", "a b"], "a b")])
def test_a_prompt_may_be_a_list_whose_last_is_taken(prompt: object, text: str) -> None:
    assert completion_prompt({"prompt": prompt}) == Prompt(text, 2)
    assert completion_prompt({}) == Prompt("", 0)


@pytest.mark.parametrize("prompt", [5, [], [1], None, {"a": "b"}])
def test_an_invalid_prompt_is_refused(prompt: object) -> None:
    with pytest.raises(BadRequest, match="must be a string or a list of strings"):
        completion_prompt({"prompt": prompt})


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens", "max_output_tokens"])
@pytest.mark.parametrize(
    ("limit", "text", "finish"),
    [(0, "", "length"), (1, "one ", "length"), (2, "one two", "stop"), (3, "one two", "stop")],
)
def test_a_reply_is_cut_at_the_limit(name: str, limit: int, text: str, finish: str) -> None:
    found = reply(Prompt("one two", 5), {name: limit})
    assert (found.choices[0].text, found.choices[0].finish_reason) == (text, finish)
    assert (found.prompt_tokens, found.completion_tokens) == (5, len(text.split()))


def test_the_newer_name_of_a_limit_wins() -> None:
    assert reply(Prompt("a b c", 3), {"max_tokens": 1, "max_completion_tokens": 2}).choices[0].text == "a b "


@pytest.mark.parametrize(
    ("stop", "text"), [(None, "one two"), ("", "one two"), (" two", "one"), (["x", "two", "one"], ""), ([], "one two")]
)
def test_a_reply_ends_before_the_first_stop(stop: object, text: str) -> None:
    found = reply(Prompt("one two", 2), {"stop": stop}).choices[0]
    assert (found.text, found.finish_reason) == (text, "stop")


def test_several_choices_are_alike_and_all_count() -> None:
    found = reply(Prompt("a b", 2), {"n": 3})
    assert [choice.text for choice in found.choices] == ["a b"] * 3
    assert found.completion_tokens == 6
    assert len(reply(Prompt("a", 1), {"n": 128}).choices) == 128


@pytest.mark.parametrize(
    ("field", "value"),
    [("n", 0), ("n", 129), ("n", True), ("n", "1"), ("max_tokens", -1), ("max_tokens", 2**31 + 1), ("stop", 5), ("stop", [1])],
)  # fmt: skip
def test_invalid_fields_are_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(BadRequest) as caught:
        reply(Prompt("a", 1), {field: value})
    assert caught.value.param == field


@pytest.mark.parametrize(
    ("options", "wanted"), [({"include_usage": True}, True), ({"include_usage": 1}, False), ({}, False), (None, False)]
)  # fmt: skip
def test_usage_is_wanted_only_if_true(options: object, wanted: bool) -> None:
    assert wants_usage({"stream_options": options}) is wanted


@given(st.text(max_size=200))
def test_any_text_comes_back_whole(text: str) -> None:
    fields = {"messages": [{"role": "user", "content": text}]}
    assert reply(chat_prompt(fields), fields).choices[0].text == text
