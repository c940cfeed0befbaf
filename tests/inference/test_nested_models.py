"""Models that are named inside of a field: found in every spelling, and nowhere else."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.errors import BadRequest
from gateway.inference.nested_models import MAX_BYTES, find

TEXT = st.text('model:{}\\"s, ', max_size=12)
VALUES = st.recursive(
    TEXT | st.none() | st.integers(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT.filter(lambda key: "model" not in key), inner, max_size=3),
    max_leaves=12,
)  # fmt: skip


def found(name: str, value: Any) -> list[tuple[str, str | None]]:
    return sorted(find(name, msgspec.Raw(value if isinstance(value, bytes) else json.dumps(value).encode())), key=str)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"model": "a"}, [("model", "a")]),
        ([{"x": [{"model": "a"}]}, {"Model_ID": "b"}], [("Model_ID", "b"), ("model", "a")]),
        (b'{"model":"a","model":"b"}', [("model", "a"), ("model", "b")]),
        (b'{"\\u006Dodel" : "a"}', [("model", "a")]),
        ('{"fallbac\u212a":["a"]}'.encode(), [("fallbac\u212a", None)]),
        ('{"model\u017f":["a"]}'.encode(), [("model\u017f", None)]),
        ({"models": ["a"]}, [("models", None)]),
        ({"fallbacks": {"a": ["b"]}}, [("fallbacks", None)]),
        ({"allow_fallbacks": True, "model": None, "models": 10**400}, []),
        ({"properties": {"model": "a"}, "default": {"model": "a"}}, []),
        (["model", '{"model":"a"}', {"description": 'The "model": a'}], []),
        ("model", []),
        (7, []),
    ],
)  # fmt: skip
def test_what_is_found(value: Any, expected: list[tuple[str, str | None]]) -> None:
    assert found("tools", value) == sorted(expected, key=str)


def test_a_field_can_itself_name_a_model() -> None:
    assert found("draft_model", "a") == [("draft_model", "a")]
    assert found("models", ["a"]) == [("models", None)]
    assert found("enable_fallbacks", False) == []


@given(VALUES, VALUES)
def test_nothing_around_it_hides_a_model(before: Any, after: Any) -> None:
    assert found("x", [before, {"a": before, "model": "dear", "b": after}, after]) == [("model", "dear")]


@pytest.mark.parametrize(
    "raw",
    [b'{"model":"%s"}' % (b"a" * MAX_BYTES), b'{"model":' + b"[" * 10**5 + b"]" * 10**5 + b"}", b'{"model":"\xff"}'],
)
def test_what_cannot_be_looked_at_is_refused(raw: bytes) -> None:
    with pytest.raises(BadRequest, match="`x`"):
        found("x", raw)


def test_a_large_field_without_such_a_key_is_not_decoded() -> None:
    assert found("x", b"[" + b'{"a":"model"},' * (MAX_BYTES // 4) + b"{}]") == []
    assert found("models", b"[" + b"[]," * MAX_BYTES + b"[]]") == [("models", None)]
