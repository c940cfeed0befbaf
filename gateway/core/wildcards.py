"""Matches names against patterns in which ``*`` stands for any characters, and nothing else is special."""

import re


def matches(pattern: str, text: str) -> bool:
    """Returns whether the whole text fits the pattern; case counts.

    Not ``fnmatch``, because names of models contain brackets and question marks; not a regular expression, because this one takes
    linear time whatever the pattern.
    """
    first, *rest = pattern.split("*")
    if not rest:
        return text == pattern
    *middle, last = rest
    if len(text) < len(first) + len(last) or not (text.startswith(first) and text.endswith(last)):
        return False
    start, end = len(first), len(text) - len(last)
    for part in middle:
        found = text.find(part, start, end)
        if found < 0:
            return False
        start = found + len(part)
    return True


def canonical(pattern: str) -> str:
    """Returns the one spelling of a pattern of model names: in lower case, as names are compared, with single stars."""
    return re.sub(r"\*+", "*", pattern.lower())
