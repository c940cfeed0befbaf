"""Each field of a token takes what fits and says its rule for all else."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.limits.config import LimitSet
from gateway.tokens import validation
from gateway.tokens.models import PreviousSecret, Role
from gateway.tokens.validation import READERS, FieldError

OLD = {
    "prefix": "sk-old",
    "hash": "0" * 64,
    "rotated_at": "1970-01-01T00:00:00Z",
    "valid_until": "1970-01-01T00:01:00Z",
}

GOOD: list[tuple[str, Any, Any]] = [
    ("id", "tok_1", "tok_1"),
    ("name", "my application", "my application"),
    ("name", "é" * 200, "é" * 200),
    ("prefix", "sk-a", "sk-a"),
    ("hash", "0f" * 32, "0f" * 32),
    ("owner", None, None),
    ("owner", "ann@example.com", "ann@example.com"),
    ("role", None, Role.MEMBER),
    ("role", "admin", Role.ADMIN),
    ("parent_id", None, None),
    ("parent_id", "tok_2", "tok_2"),
    ("created_at", "1970-01-01T00:00:00Z", 0),
    ("created_at", "9999-12-31T23:59:59Z", 253_402_300_799),
    ("created_at", "2026-01-31T10:30:00+01:00", 1_769_851_800),
    ("created_at", "2026-01-31", 1_769_817_600),
    ("expires_at", None, None),
    ("revoked_at", "2026-01-31", 1_769_817_600),
    ("last_used", None, None),
    ("usage_count", None, 0),
    ("usage_count", 2**63 - 1, 2**63 - 1),
    ("models", None, None),
    ("models", [], ()),
    ("models", ["a", "b*"], ("a", "b*")),
    ("models", ["a"] * 200, ("a",) * 200),
    ("models", ["a" * 256], ("a" * 256,)),
    ("limits", None, None),
    ("limits", {"rpm": 1}, LimitSet(rpm=1)),
    ("limits", {}, None),
    ("previous_secrets", None, ()),
    ("previous_secrets", [OLD], (PreviousSecret(prefix="sk-old", hash="0" * 64, rotated_at=0, valid_until=60),)),
    ("metadata", None, {}),
    ("metadata", {"a": 1}, {"a": 1}),
]

BAD: dict[str, list[Any]] = {
    "id": [None, "", 1, "a\nb", [], {}],
    "name": [None, "", "   ", 1, "a" * 201, "tab\there", "\x1b[2J", ["n"]],
    "prefix": [None, "", 1, "\x00"],
    "hash": [None, "", "0F" * 32, "0" * 63, "0" * 65, "g" * 64, 0, "0" * 64 + "\n"],
    "owner": ["", "ann", "a@b@c", "a b@c.d", 1, [], "@example.com", "ann@", "a\x00@b"],
    "role": ["", "root", "Admin", 1, [], {}, True],
    "parent_id": ["", 1, []],
    "created_at": [None, "", "soon", 0, 1.5, [], "1969-12-31T23:59:59Z", "9999-12-31T23:59:59-01:00", "2026-13-01"],
    "expires_at": ["", "never", 0, False, {}],
    "revoked_at": ["", "no", 0, False, [], {}],
    "last_used": ["", "Never", 0],
    "usage_count": [-1, 1.0, "1", True, 2**63, []],
    "models": ["gpt-4o", [""], [1], [None], {}, 0, False, ["a", ["b"]], ["a"] * 201, ["a" * 257]],
    "limits": [[], "", 0, False, "rpm=1"],
    "metadata": [[], "", 0, False, "x"],
    "previous_secrets": [{}, "", 0, [1], [None]],
}


STRING = "must be a string"
TIME = "must be a time such as 2026-01-31T10:30:00Z"

RULES = {
    "id": STRING,
    "name": "must be a printable string of 1 to 200 characters",
    "prefix": STRING,
    "hash": "must be 64 hexadecimal digits in lower case",
    "owner": "must be an e-mail address or null",
    "role": "must be one of admin, member, service",
    "parent_id": STRING,
    "created_at": TIME,
    "expires_at": TIME,
    "revoked_at": TIME,
    "last_used": TIME,
    "usage_count": "must be a whole number, 0 or above",
    "models": "must be null or a list of at most 200 model names, in which * stands for anything",
    "metadata": "must be an object or null",
    "previous_secrets": "must be a list of objects",
}


@pytest.mark.parametrize(("field", "value", "read"), GOOD)
def test_what_fits_is_read(field: str, value: Any, read: Any) -> None:
    assert READERS[field](value) == read


@pytest.mark.parametrize(("field", "value"), [(field, value) for field, values in BAD.items() for value in values])
def test_what_does_not_fit_is_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(FieldError, match=f"^`{field}` must be") as caught:
        READERS[field](value)
    assert caught.value.field == field
    assert caught.value.rule == RULES.get(field, caught.value.rule)
    assert str(caught.value) == f"`{field}` {caught.value.rule}"


@pytest.mark.parametrize(
    ("value", "fits"),
    [
        (None, True),
        ({"team": ["red", {"x": [1, 2.5, None, True, "a"]}]}, True),
        ({"n": 2**63 - 1, "m": -(2**63)}, True),
        ({"n": 2**63}, False),
        ({"n": [float("inf")]}, False),
        ({"n": -(2**63) - 1}, False),
        ({"text": "x" * 4085}, True),
        ({"text": "x" * 4086}, False),
        ({"a": {"b": {"c": {"d": {"e": {"f": {"g": {}}}}}}}}, True),
        ({"a": {"b": {"c": {"d": {"e": {"f": {"g": {"h": {}}}}}}}}}, False),
        ({"a": [[[[[[[]]]]]]]}, True),
        ({"a": [[[[[[[[]]]]]]]]}, False),
        ([], False),
    ],
)
def test_metadata_is_small_and_fit_to_be_written(value: Any, fits: bool) -> None:
    if fits:
        assert validation.new_metadata(value) == (value or {})
    else:
        with pytest.raises(FieldError) as caught:
            validation.new_metadata(value)
        assert caught.value.field == "metadata"
        at_most = "must be an object of at most 4096 bytes"
        assert caught.value.rule.startswith("must be an object or null" if value == [] else at_most)


def test_nothing_unknown_is_kept_of_a_replaced_secret() -> None:
    with pytest.raises(FieldError) as caught:
        READERS["previous_secrets"]([{**OLD, "revoked": "2026-01-01"}])
    assert str(caught.value) == "`previous_secrets.revoked` is not known"


def test_every_field_is_tried_here() -> None:
    assert set(BAD) == set(READERS)


@given(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.lists(st.integers() | st.text(), max_size=2)
)
def test_no_value_makes_a_reader_fail_otherwise(value: Any) -> None:
    for read in READERS.values():
        try:
            read(value)
        except FieldError:
            continue


def test_a_name_of_blanks_around_words_is_a_name() -> None:
    assert validation.name("a b") == "a b"


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("cafe\u0301", "caf\u00e9"),
        ("e\u0301" * 200, "\u00e9" * 200),
        ("team \U0001f468\u200d\U0001f469\u200d\U0001f467", "team \U0001f468\u200d\U0001f469\u200d\U0001f467"),
        ("\u2764\ufe0f\u200d\U0001f525", "\u2764\ufe0f\u200d\U0001f525"),
        ("\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645", "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"),
    ],
)
def test_a_name_is_composed_and_may_have_joiners(given: str, kept: str) -> None:
    assert validation.name(given) == kept


@pytest.mark.parametrize(
    "given",
    ["admin\u200d", "\u200cadmin", "ad\u200dmin", "\u200d", "é\u200d\u200dé", "é\u200d", "é\u200bé", "a\u202eb"],
)
def test_a_joiner_that_joins_nothing_is_refused(given: str) -> None:
    with pytest.raises(FieldError):
        validation.name(given)
