"""Decodes what clients of an upstream would: NaN, a byte order mark, half a surrogate pair."""

import math

import pytest

from gateway.core import lenient_json


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b'{"a": 1}', {"a": 1}),
        (b'\xef\xbb\xbf{"a": 1}', {"a": 1}),
        (b'{"a": "\\ud83d"}', {"a": "\ud83d"}),
        (b'{"a": [Infinity, -Infinity]}', {"a": [math.inf, -math.inf]}),
    ],
)
def test_odd_documents_are_decoded_and_encoded_again(data: bytes, value: object) -> None:
    assert lenient_json.decode(data) == value
    assert lenient_json.decode(lenient_json.encode(value)) == value


def test_not_a_number_stays_none() -> None:
    found = lenient_json.decode(b'{"a": NaN}')
    assert math.isnan(found["a"])
    assert lenient_json.encode(found) == b'{"a": NaN}'


@pytest.mark.parametrize(
    "data", [b"", b"{", b"\xff", b'{"a": "\xff"}', b"[" * 100_000, b"<html>", b"1" * 5000 + b"NaN"]
)
def test_what_is_no_json_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        lenient_json.decode(data)


def test_a_large_odd_document_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lenient_json, "MAX_LENIENT_BYTES", 100)
    assert lenient_json.decode(b'"%s"' % (b"x" * 200)) == "x" * 200
    with pytest.raises(ValueError, match="not JSON"):
        lenient_json.decode(b'["%s", NaN]' % (b"x" * 200))
