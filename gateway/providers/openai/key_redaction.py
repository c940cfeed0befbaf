"""Redacts the upstream's key in what the upstream sends, so that a route that echoes its headers shows it to no client. Pure."""

import re
from collections.abc import AsyncIterator

from gateway.observability.redaction import spellings

MIN_KEY_LENGTH = 20
"""Shorter keys are placeholders such as `EMPTY` or `ollama`, which are also words of ordinary responses."""
_ESCAPED_ASCII = re.compile(rb"\\u00[2-7]")
_UNFINISHED_ESCAPE = re.compile(rb"(?:\\{1,4}(?:u0{0,2}[2-7]?)?|%[2-7]?)\Z")
_LONGEST_ESCAPE = 9


class KeyRedactor:
    """Replaces a key by as many asterisks, so that lengths and positions stay right. Without a key it changes nothing."""

    def __init__(self, key: str | None) -> None:
        secret = key if key and len(key) >= MIN_KEY_LENGTH else ""
        forms = (
            {written for form in spellings(secret) for written in (form, form.replace("/", "\\/"))} if secret else set()
        )
        self._forms = [form.encode() for form in sorted(forms, key=len, reverse=True)]
        self._characters = [re.compile(_character_pattern(byte)) for byte in secret.encode()]
        self._escaped = re.compile(b"".join(pattern.pattern for pattern in self._characters))
        self._first = re.compile(b"[" + re.escape(secret[:1].encode()) + rb"\\%]") if secret else None
        self._secret = secret.encode()
        self._escapes = [(escape, bytes([byte])) for byte in {*self._secret} for escape in _escapes_of(byte)]
        self._longest = len(self._characters) * _LONGEST_ESCAPE

    def redact(self, data: bytes) -> bytes:
        """Returns ``data`` without the key, as it is or with any of its characters escaped as in JSON."""
        for form in self._forms:
            if form in data:
                data = data.replace(form, b"*" * len(form))
        if self._forms and b"\\u00" in data and _ESCAPED_ASCII.search(data) and self._is_escaped_in(data):
            data = self._escaped.sub(lambda match: b"*" * len(match.group()), data)
        return data

    def redact_text(self, text: str) -> str:
        """Returns the value of a header without the key."""
        return self.redact(text.encode("utf-8", "surrogateescape")).decode("utf-8", "surrogateescape")

    async def redact_chunks(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Yields a body without the key, also where it lies across chunks: the beginning of a key waits for what follows."""
        kept = b""
        async for chunk in chunks:
            data = self.redact(kept + chunk)
            end = self._end_of_certain(data)
            kept = data[end:]
            if end:
                yield data[:end]
        if kept:
            yield kept

    def _is_escaped_in(self, data: bytes) -> bool:
        """Returns whether the key is in ``data`` without its escapes: far faster than the pattern that finds out where."""
        plain = data.replace(b"\\\\", b"\\").replace(b"\\\\", b"\\")
        for escape, character in self._escapes:
            plain = plain.replace(escape, character)
        return self._secret in plain.replace(b"\\/", b"/")

    def _end_of_certain(self, data: bytes) -> int:
        """Returns the index in ``data`` at which a key begins whose end has not come, or the length."""
        if self._first is None:
            return len(data)
        start = max(0, len(data) - self._longest)
        for found in self._first.finditer(data, start):
            if self._may_become_key(data, found.start()):
                return found.start()
        return len(data)

    def _may_become_key(self, data: bytes, position: int) -> bool:
        for character in self._characters:
            if position == len(data):
                return True
            if (found := character.match(data, position)) is None:
                return _UNFINISHED_ESCAPE.match(data, position) is not None
            position = found.end()
        return False


def _escapes_of(byte: int) -> set[bytes]:
    return {b"\\u00%02x" % byte, b"\\u00%02X" % byte}


def _character_pattern(byte: int) -> bytes:
    """Returns a pattern for a character of the key: as it is, escaped in JSON, which may be quoted in JSON, or in a URL."""
    character = re.escape(bytes([byte]))
    digits = b"".join(b"[%c%c]" % (digit, digit - 32) if digit > 0x60 else b"%c" % digit for digit in b"%02x" % byte)
    short = rb"\\{0,4}" + character if byte in b'"\\/' else character
    return rb"(?:%b|\\{1,4}u00%b|%%%b)" % (short, digits, digits)
