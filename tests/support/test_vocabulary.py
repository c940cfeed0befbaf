"""What is found in texts and in code, and above all what is not."""

import pytest

from tests.support import vocabulary


@pytest.mark.parametrize(
    "text",
    [
        "The rooms of the house.",
        "secrets_room.kind(prefix)",
        "class TokenTicket: ...",
        "`x` stands twice in the query.",
        "it must be a text",
        'log.exception("a bug")',
        "a name that is none",
        "rights along the line",
        "Code below the HTTP floor",
    ],
)
def test_text_that_is_refused(text: str) -> None:
    assert list(vocabulary.find_in_text(text))


@pytest.mark.parametrize(
    "text",
    [
        "a chatroom, warehouses and outdoor benches",
        "a text/event-stream, a text file",
        "it is a bug in their parser",
        "that is None",
        "math.floor(x), and floor division",
        "the lock is held, which holds true at log levels above the coverage gate",
        "each line of the file",
        "The specification demands it.",
    ],
)
def test_text_that_passes(text: str) -> None:
    assert not list(vocabulary.find_in_text(text))


@pytest.mark.parametrize(
    ("source", "word"),
    [
        ("is_held = 1\n", "is_held"),
        ("def f(floor): ...\n", "floor"),
        ("class HeldByOthers: ...\n", "HeldByOthers"),
        ("from gateway.http import gate\n", "gate"),
        ("x = made.TokenWish()\n", "TokenWish"),
        ("class Line: ...\n", "Line"),
    ],
)
def test_identifiers_that_are_refused(source: str, word: str) -> None:
    assert {found.word for found in vocabulary.find_in_code(source)} == {word}


@pytest.mark.parametrize(
    "source",
    [
        "from math import floor\nx = floor(2.5)\n",
        "log_levels = LOG_LEVELS\n",
        "import gateway\nline = gateway.lines\n",
        "def test_what_is_held_by_others(): ...\n",
        "x = 'the lock is held'  # until it is not held\n",
    ],
)
def test_code_that_passes(source: str) -> None:
    assert not list(vocabulary.find_in_code(source))


def test_a_finding_says_where_it_is_and_what_to_say_instead() -> None:
    assert list(vocabulary.find_in_code("a = 1\nratchet = 2\n")) == [vocabulary.Finding(2, "ratchet", "latch")]
