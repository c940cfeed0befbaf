"""A large token file is read again as if it were read for the first time, however it was changed."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.tokens.models import TokenRecord
from gateway.tokens.store import TokensDamaged
from gateway.tokens.stores import json_format, json_records
from gateway.tokens.stores.json_format import TokenDocument
from tests.support.tokens import content, entry


def file_of(*entries: dict[str, Any], **top: Any) -> bytes:
    """A token file as the gateway writes it."""
    return json_format.encode(json_format.decode(content(*entries, **top)))


ENTRIES = [entry(f"sk-made-up-{number}", id=f"tok_{number}", name=f"app {number}") for number in range(5)]


@pytest.fixture(autouse=True)
def every_file_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_records, "MIN_BYTES", 0)


def records_after(first: bytes, second: bytes) -> tuple[TokenRecord, ...]:
    _, known = json_records.decode(first, {})
    document, _ = json_records.decode(second, known)
    return document.tokens


def test_only_what_has_changed_is_read() -> None:
    first, known = json_records.decode(file_of(*ENTRIES), {})
    changed = [{**ENTRIES[0], "name": "another"}, *ENTRIES[1:4], entry("sk-new", id="tok_new")]
    second, now_known = json_records.decode(file_of(*changed), known)
    assert [record.name for record in second.tokens] == ["another", "app 1", "app 2", "app 3", "application"]
    assert all(new is old for new, old in zip(second.tokens[1:4], first.tokens[1:4], strict=True))
    assert len(now_known) == 5
    assert json_records.decode(file_of(*changed), now_known)[0] == second


def test_a_small_file_is_not_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_records, "MIN_BYTES", 10**6)
    document, known = json_records.decode(file_of(*ENTRIES), {})
    assert (len(document.tokens), known) == (5, {})


@pytest.mark.parametrize(
    "data",
    [
        content(*ENTRIES),
        file_of(*ENTRIES, later="field"),
        file_of(*ENTRIES).replace(b"\n    },\n    {", b"\n    }, {", 1),
        file_of(*ENTRIES).replace(b'"name": "app 1",', b'"name": "app 1", "extra": [{\n    },\n    {}],'),
        file_of(*ENTRIES)
        .replace(b'"name": "app 1",', b'"name": "app 1", "extra": [{\n    },\n    {}],')
        .replace(b"\n    },\n    {\n      \"id\": \"tok_3\"", b"\n    }, {\n      \"id\": \"tok_3\""),
        file_of(),
    ],
    ids=["other form", "unknown field", "other lines", "nested", "as many pieces", "empty"],
)  # fmt: skip
def test_a_file_in_any_other_form_is_read_as_a_whole(data: bytes) -> None:
    document, known = json_records.decode(data, {})
    assert document == json_format.decode(data)
    assert not known
    assert json_records.decode(data, json_records.decode(file_of(*ENTRIES), {})[1])[0] == document


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b'"app 3"', b"7", "tokens\\[3\\]"),
        (b'"id": "tok_3"', b'"id": "tok_1"', "its id appears twice"),
        (b'"name": "app 3"', b'"revoked_at": null, "revoked_at": null', "revoked_at"),
        (b'"name": "app 3"', b'"revokd_at": null, "name": "app 3"', "did you mean"),
        (b'"name": "app 3"', b"\x00", "line 57"),
    ],
)
def test_damage_is_told_as_for_a_file_that_is_read_first(old: bytes, new: bytes, message: str) -> None:
    _, known = json_records.decode(file_of(*ENTRIES), {})
    with pytest.raises(TokensDamaged, match=message):
        json_records.decode(file_of(*ENTRIES).replace(old, new), known)


PIECES = st.sampled_from(
    [
        b"{",
        b"}",
        b"\n    },\n    {",
        b"\n    }",
        b'"',
        b",",
        b"[",
        b"]",
        b'"id": "tok_1",',
        b'"role": "admin",',
        b"\n",
        b" ",
    ]
)


def outcome(data: bytes, known: json_records.KnownRecords) -> TokenDocument | str:
    try:
        return json_records.decode(data, known)[0]
    except TokensDamaged as error:
        return str(error)


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 60), PIECES), min_size=1, max_size=4))
def test_any_change_of_bytes_has_the_same_outcome(edits: list[tuple[float, int, bytes]]) -> None:
    first = file_of(*ENTRIES)
    _, known = json_records.decode(first, {})
    data = first
    for place, length, piece in edits:
        start = int(place * len(data))
        data = data[:start] + piece + data[start + length :]
    assert outcome(data, known) == outcome(data, {})
