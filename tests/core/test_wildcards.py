"""Patterns in which ``*`` stands for any characters."""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core import wildcards
from gateway.core.wildcards import matches


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("gpt-4o", "gpt-4o"),
        ("*", ""),
        ("*", "anything"),
        ("gpt-*", "gpt-"),
        ("gpt-*", "gpt-4o"),
        ("*-mini", "gpt-4o-mini"),
        ("*4o*", "gpt-4o-mini"),
        ("a*b*c", "abbbc"),
        ("a**b", "ab"),
        ("ab*ba", "abba"),
        ("a[1]?*", "a[1]?x"),
    ],
)
def test_a_star_stands_for_any_characters_even_none(pattern: str, text: str) -> None:
    assert matches(pattern, text)


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("gpt-4o", "gpt-4o-mini"),
        ("gpt-4o", "GPT-4o"),
        ("gpt-*", "my-gpt-4o"),
        ("*-mini", "gpt-4o-mini-2024"),
        ("aba*aba", "ababa"),
        ("a*bc*bc", "abc"),
        ("a*b*a", "aab"),
        ("gpt-?", "gpt-4"),
        ("[ab]", "a"),
        ("", "x"),
    ],
)
def test_everything_else_stands_for_itself(pattern: str, text: str) -> None:
    assert not matches(pattern, text)


@given(st.text("ab*", max_size=8), st.text("ab", max_size=12))
def test_it_agrees_with_a_regular_expression(pattern: str, text: str) -> None:
    regex = ".*".join(map(re.escape, pattern.split("*")))
    assert matches(pattern, text) == (re.fullmatch(regex, text) is not None)


def test_a_pattern_that_makes_a_regular_expression_explode_takes_no_time() -> None:
    began = time.process_time()
    assert not matches("a*" * 100 + "b", "a" * 250)
    assert time.process_time() - began < 0.5


@pytest.mark.parametrize(
    ("pattern", "canonical"), [("gpt-4*", "gpt-4*"), ("GPT-4**", "gpt-4*"), ("***", "*"), ("a*b**c", "a*b*c"), ("", "")]
)
def test_a_pattern_has_one_spelling(pattern: str, canonical: str) -> None:
    assert wildcards.canonical(pattern) == canonical
