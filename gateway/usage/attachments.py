"""Counts the tokens of pictures and files that a request has in it as base64. Pure."""

import re

BYTES_PER_TOKEN = 4
"""Of text."""
BYTES_PER_ATTACHED_TOKEN = 256
TOKENS_PER_ATTACHMENT = 1000
_ATTACHMENT = re.compile(rb'(?:base64,|"data"\s*:\s*")[A-Za-z0-9+/=]{32,}')
_MIN_BYTES_WITH_ATTACHMENT = 64


def count_attachments(raw: bytes) -> tuple[int, int]:
    """Returns the tokens that attachments have more than text of their size, or fewer, and the number of attachments."""
    attached = count = 0
    if len(raw) > _MIN_BYTES_WITH_ATTACHMENT and (b"base64," in raw or b'"data"' in raw):
        for found in _ATTACHMENT.finditer(raw):
            size = found.end() - found.start()
            attached += max(TOKENS_PER_ATTACHMENT, size // BYTES_PER_ATTACHED_TOKEN) - size // BYTES_PER_TOKEN
            count += 1
    return attached, count
