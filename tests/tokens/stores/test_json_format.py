"""The token file's content: what is read, what is refused and with which words, what a write keeps."""

import json
from typing import Any

import pytest

from gateway.limits.config import LimitSet
from gateway.tokens.models import Role, Status
from gateway.tokens.stores import json_format as codec
from gateway.tokens.stores.json_format import TokenDocument, TokensDamaged
from tests.support.tokens import NOW, content, entry, freegpt

OLD = "sk-old-secret-that-freegpt-made"


def _old(*tokens: dict[str, Any]) -> bytes:
    return json.dumps({key: value for token in tokens for key, value in token.items()}).encode()


def _rewritten(data: bytes) -> TokenDocument:
    return codec.decode(codec.encode(codec.decode(data)))


def test_every_field_is_read() -> None:
    full = entry(
        owner="ann@example.com",
        role="service",
        parent_id="tok_parent",
        expires_at="2027-01-15T08:00:00Z",
        revoked_at="2026-01-01T00:00:00Z",
        last_used="2025-12-01T00:00:00Z",
        usage_count=7,
        models=["gpt-*"],
        limits={"rpm": 60},
        metadata={"team": "red"},
    )
    token = codec.decode(content(full)).tokens[0]
    assert (token.owner, token.role, token.parent_id) == ("ann@example.com", Role.SERVICE, "tok_parent")
    assert (token.expires_at, token.usage_count, token.models) == (NOW, 7, ("gpt-*",))
    assert (token.limits, token.metadata) == (LimitSet(rpm=60), {"team": "red"})
    assert token.status(0) is Status.REVOKED
    assert json.loads(codec.encode(codec.decode(content(full))))["tokens"] == [full]


def test_fields_that_are_not_there_have_their_defaults() -> None:
    token = codec.decode(content(entry())).tokens[0]
    assert (token.owner, token.role, token.models, token.limits) == (None, Role.MEMBER, None, None)
    assert (token.last_used, token.usage_count, token.metadata) == (None, 0, {})


def test_unknown_fields_are_kept_through_a_write() -> None:
    data = content(entry(colour="red", nested={"a": [1, None, 2.5, "é"]}), comment="by hand", extra=[{}])
    written = json.loads(codec.encode(codec.decode(data)))
    assert written["comment"] == "by hand"
    assert written["extra"] == [{}]
    assert written["tokens"][0]["colour"] == "red"
    assert written["tokens"][0]["nested"] == {"a": [1, None, 2.5, "é"]}


def test_a_written_file_ends_with_a_line_end_and_can_be_read_by_people() -> None:
    written = codec.encode(codec.decode(content(entry())))
    assert written.startswith(b'{\n  "version": 1,\n  "tokens": [\n    {\n')
    assert written.endswith(b"}\n")
    assert written.count(b"\n") > 10


@pytest.mark.parametrize("data", [b"{}", b" \n{ }\n", b'{"version": 1, "tokens": []}'])
def test_a_file_may_hold_no_token(data: bytes) -> None:
    assert codec.decode(data).tokens == ()


def test_a_byte_order_mark_is_passed_over() -> None:
    assert codec.decode(b"\xef\xbb\xbf" + content(entry())) == codec.decode(content(entry()))


REFUSED = [
    (b"", "line 1, column 1"),
    (b"[]", "expected a JSON object, found list"),
    (b"null", "found NoneType"),
    (b'{"version": 1,\n "tokens": [}', "line 2, column 13"),
    (b'{"version": 1,\n "tokens": "\xff"}', "line 2: not UTF-8"),
    ('{"version": 1, "tokens": []}'.encode("utf-16"), "not UTF-8"),
    (b"[" * 100_000, "nested too deeply"),
    (b'{"version": 1, "tokens": [], "x": NaN}', "NaN is not JSON"),
    (b'{"version": 1, "tokens": [], "x": -Infinity}', "-Infinity is not JSON"),
    (b'{"version": 1, "tokens": [], "tokens": []}', "'tokens' appears twice"),
    (b'{"version": 1, "version": 1, "tokens": []}', "'version' appears twice"),
    (b'{"tokens": []}', "version is None"),
    (b'{"version": 2, "tokens": []}', "version is 2"),
    (b'{"version": true, "tokens": []}', "version is True"),
    (b'{"version": "1", "tokens": []}', "version is a str"),
    (b'{"version": 1}', "`tokens` must be a list"),
    (b'{"version": 1, "tokens": {}}', "`tokens` must be a list"),
    (b'{"version": 1, "tokens": [null]}', r"tokens\[0\]: expected an object"),
]


@pytest.mark.parametrize(("data", "reason"), REFUSED)
def test_damage_is_refused_with_its_place_and_reason(data: bytes, reason: str) -> None:
    with pytest.raises(TokensDamaged, match=reason):
        codec.decode(data)


@pytest.mark.parametrize("field", ["id", "name", "prefix", "hash", "created_at"])
def test_a_field_that_must_be_there_is_missed_by_name(field: str) -> None:
    token = entry()
    del token[field]
    with pytest.raises(TokensDamaged, match=rf"tokens\[1\]: `{field}`"):
        codec.decode(content(entry("sk-another-made-up-secret"), token))


def test_a_key_that_stands_twice_could_hide_a_revocation() -> None:
    data = content(entry(revoked_at="2026-01-01T00:00:00Z")).replace(
        b'"revoked_at"', b'"revoked_at": null, "revoked_at"'
    )
    with pytest.raises(TokensDamaged, match="'revoked_at' appears twice"):
        codec.decode(data)


def test_the_message_about_a_secret_that_stands_twice_does_not_show_it() -> None:
    data = _old(freegpt(OLD))
    with pytest.raises(TokensDamaged, match=r"the key sk-old-secret-\.\.\. appears twice") as caught:
        codec.decode(data[:-1] + b"," + data[1:])
    assert OLD not in str(caught.value)


@pytest.mark.parametrize(
    "field",
    ["revoked", "revoked_att", "revokedAt", "expires", "expire_at", "model", "modles", "roles", "limit", "parent"],
)
def test_a_misspelt_field_that_guards_is_refused(field: str) -> None:
    with pytest.raises(TokensDamaged, match=f"unknown field '{field}'; did you mean"):
        codec.decode(content(entry(**{field: "2020-01-01T00:00:00Z"})))


@pytest.mark.parametrize("field", ["rotated_at", "limit_notes"])
def test_a_field_that_is_only_a_little_like_one_that_guards_is_kept(field: str) -> None:
    assert codec.decode(content(entry(**{field: "mine"}))).tokens[0].unknown == {field: "mine"}


@pytest.mark.parametrize(
    ("number", "shown"),
    [("1" * 400 + ".5", "1" * 40), ("1" * 41, "1" * 40), ("1e999", "1e999")],
)
def test_a_number_that_is_too_large_is_shown_by_its_first_40_characters(number: str, shown: str) -> None:
    with pytest.raises(TokensDamaged, match=rf"^the number {shown} is too large$"):
        codec.decode(content(entry(note=0)).replace(b'"note": 0', f'"note": {number}'.encode()))


@pytest.mark.parametrize("field", ["REVOKED_AT", "Revoked_At", "EXPIRES_AT", "Models"])
def test_a_field_that_guards_is_refused_in_other_letters(field: str) -> None:
    with pytest.raises(TokensDamaged, match="unknown field"):
        codec.decode(content(entry(**{field: "2020-01-01T00:00:00Z"})))


@pytest.mark.parametrize("fields", [{"active": False}, {"status": "revoked"}])
def test_a_token_that_says_it_is_ended_never_counts_as_active(fields: dict[str, Any]) -> None:
    """FreeGPT's `active` and the API's `status`, written into the file by hand."""
    try:
        token = codec.decode(content(entry(**fields))).tokens[0]
    except TokensDamaged:
        return
    assert token.status(NOW) is not Status.ACTIVE


@pytest.mark.parametrize("what", ["id", "hash"])
def test_two_tokens_never_share_an_id_or_a_hash(what: str) -> None:
    first, second = entry("sk-one-made-up-secret-here"), entry("sk-two-made-up-secret-here")
    second[what] = first[what]
    with pytest.raises(TokensDamaged, match=rf"tokens\[1\]: its {what} appears twice"):
        codec.decode(content(first, second))
