"""Reads again a large token file of which few records have changed. Pure.

Reading a file of 100,000 tokens takes seconds, and pieces of work among them that no other thread can interrupt. A file that the
gateway has written has each record at the same places of lines, so records that are known already are found by their bytes.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from gateway.tokens.models import TokenRecord
from gateway.tokens.store import TokensDamaged
from gateway.tokens.stores import json_format
from gateway.tokens.stores.json_format import TokenDocument


class _Identified(msgspec.Struct):
    """The id of a record; its other fields are not looked at."""

    id: str


MIN_BYTES = 256 * 1024
"""A smaller file is read at once."""
_BEGIN = b'{\n  "version": 1,\n  "tokens": [\n    {'
_BETWEEN = b"\n    },\n    {"
_END = b"\n    }\n  ]\n}\n"
_decode_id = msgspec.json.Decoder(_Identified).decode
_BRACE = len(b"\n    }")

KnownRecords = Mapping[bytes, TokenRecord]
"""Records by the SHA-256 of their bytes in a file."""


def decode(data: bytes, known: KnownRecords) -> tuple[TokenDocument, KnownRecords]:
    """Returns what ``json_format.decode`` returns, and the records that are known from now on. Raises TokensDamaged."""
    if len(data) < MIN_BYTES or not data.startswith(_BEGIN) or not data.endswith(_END):
        return json_format.decode(data), {}
    if known:
        try:
            return _decode_changed(data, known)
        except TokensDamaged:
            pass  # said below, with its place in the file
    document = json_format.decode(data)
    return document, _known_of(data, document.tokens)


def _known_of(data: bytes, tokens: Sequence[TokenRecord]) -> KnownRecords:
    """Returns the records of a file by their bytes; none where its pieces are not one whole object for each token."""
    known: dict[bytes, TokenRecord] = {}
    ids = {record.id: record for record in tokens}
    try:
        for piece in _pieces(data):
            known[hashlib.sha256(piece).digest()] = ids.pop(_decode_id(piece).id)
    except (msgspec.DecodeError, KeyError):
        return {}
    return {} if ids else known


def _decode_changed(data: bytes, known: KnownRecords) -> tuple[TokenDocument, KnownRecords]:
    """Reads the records that are not known. Each piece is a whole JSON object, or an error: then together they are the list that
    the file has. Raises TokensDamaged.
    """
    records: list[TokenRecord] = []
    found: dict[bytes, TokenRecord] = {}
    for piece in _pieces(data):
        key = hashlib.sha256(piece).digest()
        record = known.get(key)
        if record is None:
            record = json_format.decode_record(len(records), json_format.parse(piece))
        found[key] = record
        records.append(record)
    json_format.require_unique(records)
    return TokenDocument(tuple(records)), found


def _pieces(data: bytes) -> Iterator[bytes]:
    """Yields the bytes of each record. No text in JSON has a line end, so those between two records are nowhere else."""
    start, last = len(_BEGIN) - 1, len(data) - len(_END)
    while start < last:
        end = data.find(_BETWEEN, start, last)
        if end < 0:
            end = last
        yield data[start : end + _BRACE]
        start = end + len(_BETWEEN) - 1
