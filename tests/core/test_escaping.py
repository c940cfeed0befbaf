"""What is shown is visible and acts on nothing."""

import json
import sys

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.escaping import for_display, for_json, is_shown

ANY_TEXT = st.text(st.characters(), max_size=20)
ACTING = [
    ("\x1b]52;c;aGk=\x07", r"\x1b]52;c;aGk=\x07"),
    ("a\nb\r\tc", r"a\nb\r\tc"),
    ("\x00\x7f", r"\x00\x7f"),
    ("\x9b31m", r"\x9b31m"),
    ("\x85", r"\x85"),
    ("\u202egnp.exe", r"\u202egnp.exe"),
    ("\u2066\u2069\u200e\u200f\u061c", r"\u2066\u2069\u200e\u200f\u061c"),
    ("a\u200b\ufeff\u2060\u00ad", r"a\u200b\ufeff\u2060\xad"),
    ("\u200d\u200c", r"\u200d\u200c"),
    ("\u2028\u2029", r"\u2028\u2029"),
    ("\u00a0\u3000", r"\xa0\u3000"),
    ("\ue000\U000e0041\U0010ffff", r"\ue000\U000e0041\U0010ffff"),
    ("\ud800", r"\ud800"),
    ("\u3164\u2800\ufe00", r"\u3164\u2800\ufe00"),
]


@pytest.mark.parametrize(("text", "shown"), ACTING)
def test_people_see_an_escape_for_what_acts_or_is_invisible(text: str, shown: str) -> None:
    assert for_display(text) == shown


@pytest.mark.parametrize("text", [
    "\U0001f468\u200d\U0001f469\u200d\U0001f467", "\u2764\ufe0f\u200d\U0001f525", "\U0001f468\U0001f3fd\u200d\U0001f4bb",
    "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645", "\u0915\u094d\u200d\u0937",
])  # fmt: skip
def test_joiners_stay_where_they_join(text: str) -> None:
    """Emoji of several, Persian, Hindi: names may have them."""
    assert for_display(text) == text
    document = msgspec.json.encode([text])
    assert for_json(document) == document


@pytest.mark.parametrize("text", [
    "a\u200db", "\u00e9\u200d\u00e9", "\u0430\u200d\u0431", "\u65e5\u200d\u672c", "\u0645\u200c", "\u0645\u200d\u200d\u0645",
    "\u0645\u200d\u202e\u0645", "\u0645\u200ca", "\U0001f468\u200c\U0001f469", "\U0001f468\u200dx", "x\u200d\U0001f468",
])  # fmt: skip
def test_joiners_that_join_nothing_are_escaped(text: str) -> None:
    shown = for_display(text)
    assert not any(joiner in shown for joiner in "\u200c\u200d")
    assert all(map(is_shown, for_json(msgspec.json.encode(text)).decode()))


@pytest.mark.parametrize(
    "text", ["", "gpt-4o: 10 €", "日本語のモデル", "naïve Ünïcode", "модель", "नमूना", "نموذج", "👩🏽 ⚠️ ✓", "\\x1b"]
)
def test_ordinary_text_of_every_language_stays(text: str) -> None:
    assert for_display(text) == text


@given(ANY_TEXT)
def test_whatever_is_given_one_line_of_shown_characters_comes_out(text: str) -> None:
    shown = for_display(text)
    assert all(is_shown(char) or char in "\u200c\u200d" for char in shown)
    assert len(shown.splitlines()) <= 1
    shown.encode()


@pytest.mark.parametrize("text", [text for text, _ in ACTING if text != "\ud800"])
def test_programs_read_the_same_and_a_terminal_does_nothing(text: str) -> None:
    document = for_json(msgspec.json.encode({text: [text]}))
    assert json.loads(document) == {text: [text]}
    assert all(map(is_shown, document.decode()))


def test_layout_of_json_stays() -> None:
    document = msgspec.json.format(msgspec.json.encode({"a": "\x9b", "b": "é"}), indent=2)
    assert for_json(document) == '{\n  "a": "\\u009b",\n  "b": "é"\n}'.encode()


def test_ascii_is_returned_as_it_is() -> None:
    document = b'{"a":"b"}'
    assert for_json(document) is document


@given(ANY_TEXT.filter(lambda text: not any("\ud800" <= char <= "\udfff" for char in text)))
def test_json_keeps_its_content(text: str) -> None:
    assert json.loads(for_json(msgspec.json.encode(text))) == text


def test_every_control_and_format_character_is_escaped() -> None:
    for code in [*range(0x20), *range(0x7F, 0xA0), *range(0x2028, 0x202F), *range(0x2060, 0x2070), sys.maxunicode]:
        assert not is_shown(chr(code)), hex(code)
