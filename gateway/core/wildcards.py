"""Patterns in which ``*`` stands for anything, and nothing else is special."""


def matches(pattern: str, text: str) -> bool:
    """Only the star is special: names of models hold brackets and question marks. Takes linear time, unlike a regex."""
    first, *rest = pattern.split("*")
    if not rest:
        return text == pattern
    *middle, last = rest
    if len(text) < len(first) + len(last) or not (text.startswith(first) and text.endswith(last)):
        return False
    at, end = len(first), len(text) - len(last)
    for part in middle:
        found = text.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return True
