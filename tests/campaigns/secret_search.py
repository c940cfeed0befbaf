"""Searches for pieces of secrets in files, in every form in which they could be written."""

import base64
from collections.abc import Iterator
from urllib.parse import unquote_to_bytes


class SecretSearch:
    """Every piece of 12 characters of many secrets that does not lie within the 14 that are shown: plain, backwards, in Base64
    at any offset, in hexadecimal."""

    SHOWN, PIECE = 14, 12

    def __init__(self, secrets: dict[str, str]) -> None:
        """``secrets`` by a name to report."""
        self._blocks: list[tuple[bytes, str, frozenset[bytes]]] = []
        for name, text in secrets.items():
            hidden = text[self.SHOWN + 1 - self.PIECE :].encode()
            self._add(f"{name}, plain", hidden, self.PIECE)
            self._add(f"{name}, backwards", hidden[::-1], self.PIECE)
            self._add(f"{name}, hexadecimal", hidden.hex().encode(), 2 * self.PIECE)
            for offset in range(3):
                whole = hidden[offset : offset + (len(hidden) - offset) // 3 * 3]
                self._add(f"{name}, Base64", base64.b64encode(whole), 16)
                self._add(f"{name}, Base64", base64.urlsafe_b64encode(whole), 16)

    def _add(self, name: str, text: bytes, length: int) -> None:
        """Wherever a piece begins, one block of half its length, counted from the start of the text, lies within it whole."""
        half = length // 2
        pieces = {start: text[start : start + length] for start in range(len(text) - length + 1)}
        for at in range(0, len(text) - half + 1, half):
            around = frozenset(pieces[start] for start in range(at - half, at + 1) if start in pieces)
            self._blocks.append((text[at : at + half], name, around))

    def found(self, data: bytes) -> set[str]:
        """The names of what stands in it: as it is, behind percent signs, or behind JSON's backslashes."""
        forms = {data, unquote_to_bytes(data), data.replace(b'\\"', b'"').replace(b"\\\\", b"\\")}
        return {name for form in forms for name in self._in(form)}

    def _in(self, data: bytes) -> Iterator[str]:
        for block, name, around in self._blocks:
            if block in data and any(piece in data for piece in around):
                yield name
