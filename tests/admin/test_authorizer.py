"""What a caller may do to which tokens: reach by role and kinship, and never more than the caller has."""

import pytest

from gateway.admin.authorizer import Authority, authority_of
from gateway.auth.principal import ANYBODY, ENVIRONMENT, Principal
from gateway.auth.roles import ROLES, Kinship, Reach, Verb, kinship, reaches
from gateway.core.errors import Forbidden, NotFound, Unauthenticated
from gateway.tokens.hierarchy import Held, TokenView
from gateway.tokens.models import Role, TokenRecord
from tests.support.tokens import NOW
from tests.tokens.test_changes import rotate
from tests.tokens.test_hierarchy import token, view

ANN, BOB = "ann@example.com", "bob@example.com"


def caller(family: TokenView, record: TokenRecord, now: float = NOW) -> Authority:
    return authority_of(family, Principal(record.name, record.role, Held(record, None), (), record.hash), now)


def test_every_role_has_a_word_on_every_verb() -> None:
    assert {role: set(row) for role, row in ROLES.items()} == {role: set(Verb) for role in Role}
    assert set(ROLES[Role.ADMIN].values()) == {Reach.ALL}
    assert {verb for verb, reach in ROLES[Role.SERVICE].items() if reach is not Reach.NOTHING} == {
        Verb.INFER,
        Verb.READ,
    }


FAMILY = view(
    token("a", owner=ANN), token("sister", owner=ANN), token("child", "a", owner=ANN), token("bob", owner=BOB),
    token("free"), token("free_too"), token("kid", "free"), token("grandkid", "kid"),
)  # fmt: skip
KIN = [
    ("a", "a", Kinship.ITSELF),
    ("a", "sister", Kinship.OWN),
    ("a", "child", Kinship.OWN),
    ("child", "a", Kinship.OWN),
    ("a", "bob", Kinship.STRANGER),
    ("a", "free", Kinship.STRANGER),
    ("free", "free_too", Kinship.STRANGER),
    ("free", "kid", Kinship.OWN),
    ("free", "grandkid", Kinship.OWN),
    ("kid", "free", Kinship.STRANGER),
    ("free_too", "kid", Kinship.STRANGER),
]


@pytest.mark.parametrize(("one", "other", "kin"), KIN)
def test_kinship(one: str, other: str, kin: Kinship) -> None:
    records = {record.name: record for record in FAMILY.document.tokens}
    assert kinship(FAMILY, records[one], records[other]) is kin
    assert kinship(FAMILY, None, records[other]) is Kinship.STRANGER


@pytest.mark.parametrize("verb", Verb)
def test_reach_by_kinship(verb: Verb) -> None:
    assert all(reaches(Role.ADMIN, verb, kin) for kin in Kinship)
    assert reaches(Role.SERVICE, verb, Kinship.ITSELF) == (verb in (Verb.READ, Verb.INFER))
    assert reaches(Role.SERVICE, verb, Kinship.OWN) == (verb is Verb.INFER)
    assert reaches(Role.MEMBER, verb, Kinship.OWN) == (verb is not Verb.ADMINISTER)
    assert reaches(Role.MEMBER, verb, Kinship.STRANGER) == (verb is Verb.INFER)


def test_what_cannot_be_seen_is_not_there() -> None:
    may = caller(FAMILY, token("a", owner=ANN))
    messages = set()
    for token_id in ("tok_bob", "tok_nowhere"):
        with pytest.raises(NotFound) as caught:
            may.find(Verb.READ, token_id)
        messages.add(caught.value.body())
    assert len(messages) == 1


def test_a_mightier_token_can_only_be_seen_and_revoked() -> None:
    family = view(token("a", owner=ANN, models=["x"]), token("wide", owner=ANN), token("boss", owner=ANN, role="admin"))
    may = caller(family, family.document.tokens[0])
    for mightier in ("tok_wide", "tok_boss"):
        for verb in (Verb.UPDATE, Verb.ROTATE, Verb.DELETE):
            with pytest.raises(Forbidden):
                may.find(verb, mightier)
        for verb in (Verb.READ, Verb.REVOKE):
            assert may.find(verb, mightier).id == mightier


def test_a_service_is_told_what_it_may_not_do_to_itself() -> None:
    family = view(token("s", role="service"))
    with pytest.raises(Forbidden, match="`service` may not rotate"):
        caller(family, family.document.tokens[0]).find(Verb.ROTATE, "tok_s")


@pytest.mark.parametrize("now", [NOW, NOW + 59.9])
def test_a_replaced_secret_is_told_to_use_the_new_one(now: float) -> None:
    current = rotate(token("a"), 60)
    principal = Principal("a", Role.MEMBER, Held(current, current.previous_secrets[0]), (), token("a").hash)
    may = authority_of(view(current), principal, now)
    with pytest.raises(Forbidden, match="has been replaced: send the new one") as caught:
        may.find(Verb.ROTATE, "tok_a")
    assert caught.value.param == "expires_at"
    assert may.find(Verb.REVOKE, "tok_a") is current


def test_whoever_has_ended_meanwhile_has_no_authority() -> None:
    alive = token("a")
    for family in (view(), view(token("a", revoked_at="2026-01-01T00:00:00Z")), view(rotate(alive, 0))):
        with pytest.raises(Unauthenticated, match="it has just ended"):
            caller(family, alive)


def test_open_mode_is_over_with_the_first_token() -> None:
    assert authority_of(view(), ANYBODY, NOW).reach(Verb.CREATE) is Reach.ALL
    with pytest.raises(Unauthenticated, match="the first token"):
        authority_of(view(token("a")), ANYBODY, NOW)
    assert authority_of(view(token("a")), ENVIRONMENT, NOW).may(Verb.DELETE, token("a"))


def test_only_who_creates_everywhere_picks_an_owner() -> None:
    member = caller(FAMILY, token("a", owner=ANN))
    member.refuse_owner(ANN, ANN)
    with pytest.raises(Forbidden) as caught:
        member.refuse_owner(BOB, ANN)
    assert caught.value.param == "owner"
    authority_of(FAMILY, ENVIRONMENT, NOW).refuse_owner(BOB, ANN)
