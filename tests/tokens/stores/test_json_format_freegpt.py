"""The old FreeGPT form: read as it is, written as hashes, and never written so that it cannot be read again."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.clock import to_iso
from gateway.limits.config import Budget, LimitSet
from gateway.tokens import secret
from gateway.tokens.models import PreviousSecret, Role, Status, TokenRecord
from gateway.tokens.stores import json_format as codec
from gateway.tokens.stores.json_format import TokenDocument, TokensDamaged
from tests.support.tokens import NOW, content, entry, freegpt

OLD = "sk-old-secret-that-freegpt-made"
TIMES = st.integers(0, 253_402_300_799)
PRINTABLE = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=512)
TEXTS = st.text(st.characters(categories=["L", "N", "P"]), min_size=1, max_size=20)
HASHES = st.text("0123456789abcdef", min_size=64, max_size=64)
COUNTS = st.none() | st.integers(1, 10**12)
BUDGETS = st.builds(Budget, micro_usd=st.integers(1, 10**15 - 1), per=st.sampled_from([None, "day", "week", "month"]))
LIMITS = st.builds(LimitSet, rpm=COUNTS, tpm=COUNTS, max_parallel=COUNTS, budget=st.none() | BUDGETS).filter(
    lambda limits: limits != LimitSet()
)
PREVIOUS = st.builds(
    PreviousSecret,
    prefix=TEXTS,
    hash=HASHES,
    rotated_at=TIMES,
    valid_until=TIMES,
    revoked_at=st.none() | TIMES,
    last_used=st.none() | TIMES,
    last_used_from=st.none() | TEXTS,
    usage_count=st.integers(0, 2**63 - 1),
)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)


def _old(*tokens: dict[str, Any]) -> bytes:
    return json.dumps({key: value for token in tokens for key, value in token.items()}).encode()


def _rewritten(data: bytes) -> TokenDocument:
    return codec.decode(codec.encode(codec.decode(data)))


def test_an_old_file_keeps_its_tokens_valid() -> None:
    token = codec.decode(_old(freegpt(OLD, last_used="2025-12-01T00:00:00"))).tokens[0]
    assert (token.name, token.hash, token.role) == ("old", secret.digest(OLD), Role.MEMBER)
    assert (to_iso(token.created_at), to_iso(token.last_used)) == ("2025-11-26T10:30:00Z", "2025-12-01T00:00:00Z")
    assert token.status(NOW) is Status.ACTIVE
    assert token.id == "tok_84885eb233d3f634", "what other files say of it goes by this id"


def test_an_inactive_old_token_is_revoked() -> None:
    token = codec.decode(_old(freegpt(OLD, active=False))).tokens[0]
    assert token.status(NOW) is Status.REVOKED
    assert to_iso(token.revoked_at) == "2025-11-26T10:30:00Z"


def test_the_first_write_turns_secrets_into_hashes_under_the_same_ids() -> None:
    data = _old(freegpt(OLD), freegpt("sk-second-old-secret-of-freegpt", active=False))
    before = codec.decode(data)
    written = codec.encode(before)
    assert OLD.encode() not in written
    assert b"sk-second-old-secret-of-freegpt" not in written
    assert json.loads(written)["version"] == 1
    assert codec.decode(written) == before == codec.decode(data)


@pytest.mark.parametrize(
    "token",
    [
        {OLD: None},
        {OLD: {"name": "n", "created_at": "2025-11-26T10:30:00"}},
        freegpt(OLD, active=1),
        freegpt(OLD, active="true"),
        freegpt(OLD, name=""),
        freegpt(OLD, created_at="yesterday"),
        freegpt(OLD, created_at=None),
        freegpt(OLD, last_used="never"),
        freegpt("sk-with a space in the secret"),
        freegpt("sk-" + "a" * 510),
        freegpt(""),
        freegpt("sk-schlüssel-der-nicht-ascii-ist"),
    ],
)
def test_a_damaged_old_file_is_refused_and_no_secret_is_told(token: dict[str, Any]) -> None:
    with pytest.raises(TokensDamaged, match="the token ") as caught:
        codec.decode(_old(token))
    assert OLD not in str(caught.value)


@pytest.mark.parametrize("field", ["created_at", "last_used"])
@pytest.mark.parametrize("time", ["0001-01-01T00:00:00", "1969-12-31T23:59:59", "9999-12-31T23:59:59-10:00"])
def test_an_old_file_with_an_odd_time_is_refused_or_can_be_read_after_a_write(field: str, time: str) -> None:
    try:
        before = codec.decode(_old(freegpt(OLD, **{field: time})))
    except TokensDamaged:
        return
    assert codec.decode(codec.encode(before)) == before


@given(PRINTABLE)
def test_an_old_file_with_any_secret_is_refused_or_can_be_read_after_a_write(text: str) -> None:
    """Found with a secret of one character."""
    try:
        before = codec.decode(_old(freegpt(text)))
    except TokensDamaged:
        return
    assert codec.decode(codec.encode(before)) == before


def are_unique(hashes: list[str]) -> bool:
    return len(set(hashes)) == len(hashes)


@given(
    st.lists(
        st.builds(
            TokenRecord,
            id=TEXTS,
            name=TEXTS,
            prefix=TEXTS,
            hash=HASHES,
            created_at=TIMES,
            role=st.sampled_from(Role),
            parent_id=st.none() | TEXTS,
            expires_at=st.none() | TIMES,
            revoked_at=st.none() | TIMES,
            last_used=st.none() | TIMES,
            usage_count=st.integers(0, 2**63 - 1),
            models=st.none() | st.lists(TEXTS, max_size=3).map(tuple),
            limits=st.none() | LIMITS,
            previous_secrets=st.lists(PREVIOUS, max_size=2, unique_by=lambda old: old.hash).map(tuple),
            metadata=st.dictionaries(TEXTS, JSON, max_size=2),
            unknown=st.dictionaries(st.sampled_from(["x", "colour", "ä"]), JSON, max_size=2),
        ),
        max_size=3,
        unique_by=(lambda token: token.id, lambda token: token.hash),
    ).filter(lambda tokens: are_unique([old.hash for token in tokens for old in (token, *token.previous_secrets)]))
)
def test_what_was_written_is_what_is_read(tokens: list[TokenRecord]) -> None:
    document = TokenDocument(tuple(tokens), {"comment": "kept"})
    assert codec.decode(codec.encode(document)) == document


@pytest.mark.parametrize(
    "data",
    [
        content(entry(metadata={"a": "\ud800"})),
        content(entry(models=["\ud800"])),
        content(entry(note="\udfff")),
        content(entry(), comment="\ud800"),
    ],
)
def test_half_a_character_is_refused_or_can_be_written(data: bytes) -> None:
    """JSON may hold half a surrogate pair, UTF-8 may not: what is read must never make the next write fail."""
    try:
        before = codec.decode(data)
    except TokensDamaged:
        return
    assert _rewritten(data) == before


def test_a_number_too_large_to_hold_is_refused_or_kept() -> None:
    data = content(entry(metadata={"n": 1})).replace(b'"n": 1', b'"n": 1e999')
    try:
        before = codec.decode(data)
    except TokensDamaged:
        return
    assert _rewritten(data) == before


def test_a_field_of_the_new_form_in_the_old_one_is_refused() -> None:
    """Kept as somebody's own, an `expires_at` would end nothing."""
    with pytest.raises(TokensDamaged, match="'expires_at' is no field of FreeGPT's form"):
        codec.decode(json.dumps(freegpt(expires_at="2026-01-01T00:00:00Z")).encode())


@pytest.mark.parametrize("number", [2**64, -(2**63) - 1, 10**30])
def test_a_whole_number_too_large_to_be_written_again_is_refused(number: int) -> None:
    with pytest.raises(TokensDamaged, match="is too large"):
        codec.decode(content(entry(metadata={"n": number})))


@pytest.mark.parametrize(
    ("field", "reason"),
    [
        ("revokd_at", "unknown field 'revokd_at'; did you mean 'revoked_at'?"),
        ("disabled", "unknown field 'disabled'; a token is ended by 'revoked_at'"),
    ],
)
def test_a_misspelt_end_in_the_old_form_is_refused(field: str, reason: str) -> None:
    with pytest.raises(TokensDamaged) as caught:
        codec.decode(json.dumps(freegpt(OLD, **{field: "2026-01-01T00:00:00Z"})).encode())
    assert str(caught.value) == f"the token sk-old-secret-...: {reason}"


def test_what_is_nobodys_field_is_kept_in_the_old_form() -> None:
    record = codec.decode(json.dumps(freegpt(colour="red")).encode()).tokens[0]
    assert record.unknown == {"colour": "red"}
