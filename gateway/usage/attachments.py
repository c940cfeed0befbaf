"""Finds pictures and files that a request has in it as base64, and counts their tokens. Pure.

Text of many megabytes is searched in slices: while a search goes on, no other thread of the process does.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

BYTES_PER_TOKEN = 4
"""Of text."""
BYTES_PER_ATTACHED_TOKEN = 256
TOKENS_PER_ATTACHMENT = 1000
_MARKS = (b"base64,", b'"data"')
_BEGINNING = re.compile(rb'base64,|"data"\s*:\s*"')
_NOT_BASE64 = re.compile(rb"[^A-Za-z0-9+/=]")
_MIN_BASE64_BYTES = 32
_SLICE = 1024 * 1024


class Attachments(NamedTuple):
    """What a value has besides text."""

    text: bytes
    """The value without what is in base64."""
    number: int
    tokens: int
    """The tokens that the attachments have more than text of their size, or fewer."""


def split_attachments(raw: bytes) -> Attachments:
    """Returns the text of a value, and the number and the tokens of its attachments."""
    texts: list[bytes] = []
    tokens = end = 0
    for start, data_start, data_end in _find(raw):
        texts.append(raw[end:data_start])
        end, size = data_end, data_end - start
        tokens += max(TOKENS_PER_ATTACHMENT, size // BYTES_PER_ATTACHED_TOKEN) - size // BYTES_PER_TOKEN
    if not texts:
        return Attachments(raw, 0, 0)
    return Attachments(b"".join((*texts, raw[end:])), len(texts), tokens)


def _find(raw: bytes) -> Iterator[tuple[int, int, int]]:
    """Yields where the mark of each attachment begins, and where its data begin and end."""
    at = 0
    nexts = {mark: raw.find(mark) for mark in _MARKS}  # each mark is looked for once from where it was found last
    while (start := min((found for found in nexts.values() if found >= 0), default=-1)) >= 0:
        beginning = _BEGINNING.match(raw, start)
        at = start + 1  # what is no attachment may have the mark of one in it
        if (
            beginning is not None
            and (end := _end_of_base64(raw, beginning.end())) - beginning.end() >= _MIN_BASE64_BYTES
        ):
            yield start, beginning.end(), end
            at = end
        nexts.update((mark, raw.find(mark, at)) for mark, found in nexts.items() if 0 <= found < at)


def _end_of_base64(raw: bytes, start: int) -> int:
    while start < len(raw):
        if found := _NOT_BASE64.search(raw, start, start + _SLICE):
            return found.start()
        start += _SLICE
    return len(raw)
