"""What a caller may do to which tokens: reach by role and relation, and never more than the caller has."""

import msgspec
import pytest

from gateway.admin.authorizer import Authorizer, authorizer_for, relation
from gateway.auth.principal import ANONYMOUS, ENVIRONMENT_KEY, Principal
from gateway.auth.roles import ROLES, Action, Relation, Scope, allows
from gateway.core.errors import Forbidden, NotFound, Unauthenticated
from gateway.http.error_formats import openai_error
from gateway.tokens.hierarchy import TokenHierarchy
from gateway.tokens.models import Role, SecretMatch, TokenRecord
from tests.support.tokens import NOW
from tests.tokens.test_changes import rotate
from tests.tokens.test_hierarchy import token, view

ANN, BOB = "ann@example.com", "bob@example.com"


def caller(family: TokenHierarchy, record: TokenRecord, now: float = NOW) -> Authorizer:
    return authorizer_for(family, Principal.of(SecretMatch(record, None)), now)


def test_every_role_has_a_word_on_every_verb() -> None:
    assert {role: set(row) for role, row in ROLES.items()} == {role: set(Action) for role in Role}
    assert set(ROLES[Role.ADMIN].values()) == {Scope.ALL}
    assert {action for action, scope in ROLES[Role.SERVICE].items() if scope is not Scope.NOTHING} == {
        Action.INFER,
        Action.READ,
    }


FAMILY = view(
    token("a", owner=ANN), token("sister", owner=ANN), token("child", "a", owner=ANN), token("bob", owner=BOB),
    token("free"), token("free_too"), token("kid", "free"), token("grandkid", "kid"),
)  # fmt: skip
KIN = [
    ("a", "a", Relation.ITSELF),
    ("a", "sister", Relation.OWN),
    ("a", "child", Relation.OWN),
    ("child", "a", Relation.OWN),
    ("a", "bob", Relation.UNRELATED),
    ("a", "free", Relation.UNRELATED),
    ("free", "free_too", Relation.UNRELATED),
    ("free", "kid", Relation.OWN),
    ("free", "grandkid", Relation.OWN),
    ("kid", "free", Relation.UNRELATED),
    ("free_too", "kid", Relation.UNRELATED),
]


@pytest.mark.parametrize(("one", "other", "expected"), KIN)
def test_relations(one: str, other: str, expected: Relation) -> None:
    records = {record.name: record for record in FAMILY.records}
    assert relation(FAMILY, records[one], records[other]) is expected
    assert relation(FAMILY, None, records[other]) is Relation.UNRELATED


@pytest.mark.parametrize("action", Action)
def test_scopes_by_relation(action: Action) -> None:
    assert all(allows(Role.ADMIN, action, one) for one in Relation)
    assert allows(Role.SERVICE, action, Relation.ITSELF) == (action in (Action.READ, Action.INFER))
    assert allows(Role.SERVICE, action, Relation.OWN) == (action is Action.INFER)
    assert allows(Role.MEMBER, action, Relation.OWN) == (action is not Action.ADMINISTER)
    assert allows(Role.MEMBER, action, Relation.UNRELATED) == (action is Action.INFER)


def test_what_cannot_be_seen_is_not_there() -> None:
    may = caller(FAMILY, token("a", owner=ANN))
    messages = set()
    for token_id in ("tok_bob", "tok_nowhere"):
        with pytest.raises(NotFound) as caught:
            may.find(Action.READ, token_id)
        messages.add(openai_error(caught.value, str))
    assert len(messages) == 1


def test_a_mightier_token_can_only_be_seen_and_revoked() -> None:
    family = view(token("a", owner=ANN, models=["x"]), token("wide", owner=ANN), token("boss", owner=ANN, role="admin"))
    may = caller(family, family.records[0])
    for mightier in ("tok_wide", "tok_boss"):
        for action in (Action.UPDATE, Action.ROTATE, Action.DELETE):
            with pytest.raises(Forbidden):
                may.find(action, mightier)
        for action in (Action.READ, Action.REVOKE):
            assert may.find(action, mightier).id == mightier


def test_a_service_is_told_what_it_may_not_do_to_itself() -> None:
    family = view(token("s", role="service"))
    with pytest.raises(Forbidden, match="`service` may not rotate"):
        caller(family, family.records[0]).find(Action.ROTATE, "tok_s")


@pytest.mark.parametrize("now", [NOW, NOW + 59.9])
def test_a_replaced_secret_is_told_to_use_the_new_one(now: float) -> None:
    current = rotate(token("a"), 60)
    principal = Principal.of(SecretMatch(current, current.previous_secrets[0]))
    may = authorizer_for(view(current), principal, now)
    with pytest.raises(Forbidden, match="has been replaced: send the new one") as caught:
        may.find(Action.ROTATE, "tok_a")
    assert caught.value.param == "expires_at"
    assert may.find(Action.REVOKE, "tok_a") is current


def test_whoever_has_ended_meanwhile_has_no_authority() -> None:
    alive = token("a")
    for family in (view(), view(token("a", revoked_at="2026-01-01T00:00:00Z")), view(rotate(alive, 0))):
        with pytest.raises(Unauthenticated, match="it has just ended"):
            caller(family, alive)


def test_open_mode_is_over_with_the_first_token() -> None:
    assert authorizer_for(view(), ANONYMOUS, NOW).scope(Action.CREATE) is Scope.ALL
    with pytest.raises(Unauthenticated, match="the first token"):
        authorizer_for(view(token("a")), ANONYMOUS, NOW)
    assert authorizer_for(view(token("a")), ENVIRONMENT_KEY, NOW).allows(Action.DELETE, token("a"))


def test_only_who_creates_everywhere_picks_an_owner() -> None:
    member = caller(FAMILY, token("a", owner=ANN))
    member.require_owner(ANN, ANN)
    with pytest.raises(Forbidden) as caught:
        member.require_owner(BOB, ANN)
    assert caught.value.param == "owner"
    authorizer_for(FAMILY, ENVIRONMENT_KEY, NOW).require_owner(BOB, ANN)


@pytest.mark.parametrize("role", Role)
def test_what_may_be_read_is_what_each_token_allows(role: Role) -> None:
    for record in FAMILY.records:
        asking = msgspec.structs.replace(record, role=role)
        family = view(*(asking if one is record else one for one in FAMILY.records))
        may = caller(family, asking)
        allowed = frozenset(one.id for one in family.records if may.allows(Action.READ, one))
        ids = may.readable_ids()
        assert (frozenset(one.id for one in family.records) if ids is None else ids) == allowed
    assert authorizer_for(view(), ENVIRONMENT_KEY, NOW).readable_ids() is None
