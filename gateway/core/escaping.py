"""Escapes text from clients and upstreams for whoever reads it: ``for_display`` for people, ``for_json`` for programs.

Names of models, metadata and messages may contain anything. On a terminal an escape sequence writes the clipboard or the title,
a line end makes a row that looks real, and a bidirectional control reverses what is read. Every place that shows text uses
one of these functions; ``tests/test_outputs.py`` lists those places. Pure.
"""

import re
import unicodedata
from collections.abc import Callable

_IGNORABLE = frozenset(
    map(chr, (0x34F, 0x115F, 0x1160, 0x17B4, 0x17B5, *range(0x180B, 0x1810), 0x2800, 0x3164, 0xFFA0,
              *range(0xFE00, 0xFE0E), *range(0xE0100, 0xE01F0)))
)  # fmt: skip
"""Characters that are shown as nothing or as a blank, though Unicode calls them letters, marks or symbols. The two variation
selectors that ordinary emoji contain, U+FE0E and U+FE0F, are not among them."""


def is_shown(character: str) -> bool:
    """Returns whether a character can be shown as it is: it is visible or a space, and controls nothing."""
    return character.isprintable() and character not in _IGNORABLE


def for_display(text: str) -> str:
    """Returns the text as one line for a person: whatever is not shown becomes an escape such as ``\\x1b`` or ``\\u202e``.

    Line ends and tabs are escaped, too. Letters, digits, punctuation and emoji of every language stay, and joiners where they
    join something.
    """
    if text.isascii() and text.isprintable():
        return text
    return _escaped(text, lambda char: char.encode("unicode_escape").decode())


def _escaped(text: str, escape: Callable[[str], str]) -> str:
    """Returns the text with whatever is not shown escaped, but for joiners between two characters that they may join."""
    pieces = [char if is_shown(char) else escape(char) for char in text]
    if "\u200d" in text or "\u200c" in text:
        for found in _JOINING.finditer(text):
            if _joins(text[found.start() - 1], found.group(), text[found.end()]):
                pieces[found.start()] = found.group()
    return "".join(pieces)


_JOINING = re.compile(r"(?<=[^\x00-\x7f])[\u200c\u200d](?=[^\x00-\x7f])")
_JOINED_SCRIPTS = (
    (0x0600, 0x08FF),  # Arabic and Persian, Syriac, Mandaic
    (0x0900, 0x0DFF),  # the scripts of India and Sri Lanka
    (0x1780, 0x18AF),  # Khmer, Mongolian
)


def _joins(before: str, joiner: str, behind: str) -> bool:
    """Returns whether a joiner between these two is ordinary writing: letters of a script that has them, or emoji."""
    for first, last in _JOINED_SCRIPTS:
        if first <= ord(before) <= last:
            return first <= ord(behind) <= last and is_shown(before) and is_shown(behind)
    if joiner != "\u200d" or not _is_emoji(behind):
        return False
    return _is_emoji(before) or before == "\ufe0f" or "\U0001f3fb" <= before <= "\U0001f3ff"


def _is_emoji(character: str) -> bool:
    return unicodedata.category(character) == "So" and is_shown(character)


def for_json(document: bytes) -> bytes:
    """Returns a JSON document, in UTF-8, with the same content and without characters that act on a terminal.

    Those within strings become ``\\u`` escapes, as in ``for_display``. What JSON itself does not allow within strings, such as a
    line end, is layout and stays.
    """
    if document.isascii() and b"\x7f" not in document:
        return document
    return _escaped(document.decode("utf-8", "surrogatepass"), _json_character).encode()


def _json_character(character: str) -> str:
    if character < " ":
        return character
    units = character.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[start : start + 4]}" for start in range(0, len(units), 4))
