"""Relation: a child ends with its parent, may do no more than it, and a broken line is the end of the line."""

import msgspec
import pytest

from gateway.tokens import secret
from gateway.tokens.hierarchy import TokenHierarchy
from gateway.tokens.models import PreviousSecret, Role, SecretMatch, Status, TokenRecord
from gateway.tokens.rights import rights_of
from tests.support.tokens import NOW, record


def token(name: str, parent: str | None = None, **fields: object) -> TokenRecord:
    return record(
        f"sk-made-up-secret-of-{name}", id=f"tok_{name}", name=name, parent_id=parent and f"tok_{parent}", **fields
    )


def view(*tokens: TokenRecord) -> TokenHierarchy:
    return TokenHierarchy(tokens)


def test_the_line_upwards_has_the_nearest_first() -> None:
    family = view(token("a"), token("b", "a"), token("c", "b"))
    assert [parent.name for parent in family.parents(token("c", "b")) or ()] == ["b", "a"]
    assert family.parents(token("a")) == ()


def test_a_view_finds_tokens_by_hash_and_by_id() -> None:
    one = token("a")
    found = view(one)
    assert found.find_by_digest(one.hash) == SecretMatch(one, None)
    assert found.find_by_id("tok_a") is one
    assert found.find_by_digest("") is found.find_by_id("") is None
    assert len(found) == 1


@pytest.mark.parametrize(
    "tokens",
    [
        [token("b", "gone")],
        [token("b", "b")],
        [token("b", "c"), token("c", "b")],
        [token("b", "c"), token("c", "gone")],
        [token("a", "b"), token("b", "c"), token("c", "b")],
    ],
)
def test_a_broken_line_is_none_and_ends_the_token(tokens: list[TokenRecord]) -> None:
    family = view(*tokens)
    assert family.parents(tokens[0]) is None
    assert family.status(tokens[0], NOW) is Status.REVOKED


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({}, Status.ACTIVE),
        ({"revoked_at": "2026-01-01T00:00:00Z"}, Status.REVOKED),
        ({"expires_at": "2027-01-15T08:00:00Z"}, Status.EXPIRED),
        ({"expires_at": "2027-01-15T08:00:01Z"}, Status.ACTIVE),
    ],
)
def test_a_grandchild_ends_with_its_grandparent(fields: dict[str, str], status: Status) -> None:
    family = view(token("a", **fields), token("b", "a"), token("c", "b"))
    assert family.status(token("c", "b"), NOW) is status


def test_its_own_end_goes_first() -> None:
    child = token("b", "a", revoked_at="2026-01-01T00:00:00Z")
    assert view(token("a", expires_at="2026-01-01T00:00:00Z"), child).status(child, NOW) is Status.REVOKED


@pytest.mark.parametrize(
    ("roles", "role"),
    [
        (("member", "admin"), Role.MEMBER),
        (("admin", "admin"), Role.ADMIN),
        (("service", "member"), Role.SERVICE),
        (("member", "service"), Role.SERVICE),
    ],
)
def test_the_lowest_role_of_the_chain_counts(roles: tuple[str, str], role: Role) -> None:
    child = token("b", "a", role=roles[1])
    assert rights_of(SecretMatch(child, None), view(token("a", role=roles[0]), child).parents(child)).role is role


def test_what_is_below_comes_parents_first_and_once() -> None:
    family = view(token("c", "b"), token("b", "a"), token("a"), token("d", "a"), token("x"), token("y", "x"))
    assert [one.name for one in family.descendants(token("a"))] == ["b", "d", "c"]
    assert list(family.descendants(token("c", "b"))) == []
    circle = view(token("p", "q"), token("q", "p"))
    assert [one.name for one in circle.descendants(token("p", "q"))] == ["q"]


def old_secret(**fields: int) -> PreviousSecret:
    known = {"prefix": "sk-old", "hash": secret.digest("sk-old"), "rotated_at": NOW - 60, "valid_until": NOW + 60}
    return PreviousSecret(**{**known, **fields})  # type: ignore[arg-type]


def rotated(old: PreviousSecret, **fields: object) -> TokenRecord:
    return msgspec.structs.replace(token("a", **fields), previous_secrets=(old,))


def test_a_replaced_secret_is_found_as_what_it_is() -> None:
    one = rotated(old_secret())
    assert view(one).find_by_digest(one.hash) == SecretMatch(one, None)
    assert view(one).find_by_digest(secret.digest("sk-old")) == SecretMatch(one, one.previous_secrets[0])


@pytest.mark.parametrize(
    ("old", "fields", "status"),
    [
        (old_secret(), {}, Status.ACTIVE),
        (old_secret(valid_until=NOW), {}, Status.EXPIRED),
        (old_secret(valid_until=NOW + 1), {}, Status.ACTIVE),
        (old_secret(revoked_at=NOW - 1), {}, Status.REVOKED),
        (old_secret(), {"revoked_at": "2026-01-01T00:00:00Z"}, Status.REVOKED),
        (old_secret(), {"expires_at": "2026-01-01T00:00:00Z"}, Status.EXPIRED),
    ],
)
def test_a_replaced_secret_ends_by_itself_or_with_its_token(
    old: PreviousSecret, fields: dict[str, str], status: Status
) -> None:
    one = rotated(old, **fields)
    assert view(one).secret_status(SecretMatch(one, old), NOW) is status
