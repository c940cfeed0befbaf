"""Rules that values from outside have to meet, each written once.

A function whose name begins with ``is_`` answers a question. Every other one returns the value that it was given, or raises
ValueError with the rule as a phrase that begins with "must be", so that the caller puts the name of the field before it.
"""

import re
from collections.abc import Callable
from typing import Any, TypeGuard

MAX_SECRET_LENGTH = 512
SECRET_TEXT = re.compile(rf"[!-~]{{1,{MAX_SECRET_LENGTH}}}")
"""What ``is_secret_text`` matches, for code that runs on every request."""
_WHOLE_NUMBER = re.compile(r"[0-9]{1,10}")


def is_whole_number(value: object, low: int, high: int) -> TypeGuard[int]:
    """Returns whether ``value`` is an int from ``low`` to ``high``. True and False are not, though ints."""
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def whole_number(value: object, low: int, high: int) -> int:
    """Returns ``value`` if it is an int from ``low`` to ``high``. Raises ValueError."""
    if not is_whole_number(value, low, high):
        raise ValueError(f"must be a whole number, {low} to {high}")
    return value


def parse_whole_number(text: str, low: int, high: int) -> int | None:
    """Returns the number that decimal digits spell, None where ``text`` is not one from ``low`` to ``high``.

    No sign, no space, ASCII digits only, ten at most: ``int`` would also take ``+1``, `` 1``, ``1_0`` and Arabic digits.
    """
    if not _WHOLE_NUMBER.fullmatch(text):
        return None
    number = int(text)
    return number if low <= number <= high else None


def string(value: object) -> str:
    """Returns ``value`` if it is a string. Raises ValueError."""
    if not isinstance(value, str):
        raise ValueError("must be a string")
    return value


def one_of(*allowed: str) -> Callable[[Any], str]:
    """Returns a function that returns its argument if that is among ``allowed``, and raises ValueError otherwise."""

    def check(value: Any) -> str:
        if value not in allowed:
            raise ValueError(f"must be one of {', '.join(allowed)}")
        return str(value)

    return check


def is_printable(value: object, max_length: int) -> TypeGuard[str]:
    """Returns whether ``value`` is a string of 1 to ``max_length`` printable characters; the space is one of them."""
    return isinstance(value, str) and 1 <= len(value) <= max_length and value.isprintable()


def is_secret_text(text: str) -> bool:
    """Returns whether ``text`` could be a secret: 1 to 512 characters of printable ASCII without spaces."""
    return SECRET_TEXT.fullmatch(text) is not None
