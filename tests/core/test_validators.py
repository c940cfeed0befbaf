"""The rules that values from outside have to meet."""

import pytest

from gateway.core.validators import (
    is_printable,
    is_secret_text,
    is_whole_number,
    one_of,
    parse_whole_number,
    string,
    whole_number,
)


@pytest.mark.parametrize("value", [1, 2, 9, 10])
def test_a_whole_number_lies_within_its_range_and_both_ends_belong_to_it(value: int) -> None:
    assert is_whole_number(value, 1, 10)
    assert whole_number(value, 1, 10) == value


@pytest.mark.parametrize("value", [0, 11, True, False, 1.0, "1", None, [1]])
def test_anything_else_is_no_whole_number(value: object) -> None:
    assert not is_whole_number(value, 0 if value is False else 1, 10)
    with pytest.raises(ValueError, match=r"^must be a whole number, 1 to 10$"):
        whole_number(value, 1, 10)


@pytest.mark.parametrize(("text", "number"), [("1", 1), ("10", 10), ("007", 7), ("0000000010", 10)])
def test_digits_spell_a_whole_number(text: str, number: int) -> None:
    assert parse_whole_number(text, 1, 10) == number


@pytest.mark.parametrize(
    "text",
    ["", "0", "11", "+1", "-1", " 1", "1 ", "1\n", "1_0", "1.0", "1e1", "x", "٣", "²", "00000000001", "9" * 5000],
)
def test_no_other_text_spells_one(text: str) -> None:
    assert parse_whole_number(text, 1, 10) is None


def test_a_string_is_returned() -> None:
    assert string("") == ""


@pytest.mark.parametrize("value", [None, 1, b"x", ["x"], {"x": "x"}])
def test_what_is_not_a_string_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"^must be a string$"):
        string(value)


def test_one_of_the_allowed_strings_is_returned() -> None:
    assert one_of("hour", "day")("day") == "day"


@pytest.mark.parametrize("value", ["", "Day", "hour, day", None, 1, ["day"], {"day": 1}])
def test_any_other_value_is_refused_with_the_list_of_those_allowed(value: object) -> None:
    with pytest.raises(ValueError, match=r"^must be one of hour, day$"):
        one_of("hour", "day")(value)


@pytest.mark.parametrize("value", ["x", "two words", "ü", "x" * 20])
def test_printable_strings_are_accepted_up_to_their_length(value: str) -> None:
    assert is_printable(value, 20)


@pytest.mark.parametrize("value", ["", "x" * 21, "line\nend", "\x1b[31m", "\u202e", None, 1, b"x"])
def test_empty_long_and_unprintable_values_are_not_accepted(value: object) -> None:
    assert not is_printable(value, 20)


@pytest.mark.parametrize("text", ["x", "!", "~", "sk-" + "a" * 509])
def test_a_secret_is_printable_ascii_of_at_most_512_characters(text: str) -> None:
    assert is_secret_text(text)


@pytest.mark.parametrize("text", ["", " ", "two words", "x\n", "ü", "\x7f", "x" * 513])
def test_any_other_text_cannot_be_a_secret(text: str) -> None:
    assert not is_secret_text(text)
