"""Nobody can give more than they have: what counts as more."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.limits.config import LimitSet
from gateway.tokens.models import PreviousSecret, Role, allows_model
from gateway.tokens.rights import EVERYTHING, Rights, rights_of_chain
from tests.support.tokens import record

OWN = Rights(Role.MEMBER, (("gpt-4o*", "o1"),), (LimitSet(rpm=60),), 1000, True)


def changed(**fields: object) -> Rights:
    known = {name: getattr(OWN, name) for name in Rights.__struct_fields__}
    return Rights(**{**known, **fields})


@pytest.mark.parametrize(
    ("wanted", "excess"),
    [
        (OWN, []),
        (changed(role=Role.SERVICE), []),
        (changed(role=Role.ADMIN), ["role"]),
        (changed(is_test=False), ["prefix"]),
        (changed(models=(("gpt-4o-mini",),)), []),
        (changed(models=(("gpt-4*",),)), ["models"]),
        (changed(models=(("gpt-4*",), ("o1",))), []),
        (changed(models=((),)), []),
        (changed(models=()), ["models"]),
        (changed(limits=(LimitSet(rpm=61),)), ["limits"]),
        (changed(limits=(LimitSet(rpm=61), LimitSet(rpm=1))), []),
        (changed(limits=()), ["limits"]),
        (changed(expires_at=1001), ["expires_at"]),
        (changed(expires_at=None), ["expires_at"]),
        (changed(expires_at=999), []),
        (EVERYTHING, ["role", "prefix", "models", "limits", "expires_at"]),
    ],
)
def test_what_goes_beyond(wanted: Rights, excess: list[str]) -> None:
    assert wanted.fields_exceeding(OWN) == excess
    assert wanted.fields_exceeding(EVERYTHING) == []


def test_a_line_gives_the_least_of_all() -> None:
    line = (
        record("sk-made-up-child", role="admin", models=["a*"], expires_at="2027-01-15T08:00:00Z"),
        record("sk_test_made-up-parent-secret", role="service", limits={"rpm": 5}, expires_at="2026-01-15T08:00:00Z"),
    )
    found = rights_of_chain(line)
    assert (found.role, found.is_test, found.models, found.limits) == (
        Role.SERVICE,
        True,
        (("a*",),),
        (LimitSet(rpm=5),),
    )
    assert found.expires_at == line[1].expires_at


def test_a_replaced_secret_gives_nothing_that_outlasts_it() -> None:
    old = PreviousSecret(prefix="sk-old", hash="0" * 64, rotated_at=0, valid_until=77)
    assert rights_of_chain((record(),), old).expires_at == 77
    assert rights_of_chain((record(),)).expires_at is None


@pytest.mark.parametrize(
    ("lists", "common"),
    [
        ((), None),
        ((("a", "b*"),), ("a", "b*")),
        ((("a", "b*"), ("b1", "a")), ("a", "b1")),
        ((("a",), ("b",)), ()),
        ((("*",), ("x*",)), ("x*",)),
        ((("gpt-4o*", "o1"), ("*mini", "o*")), ("gpt-4o*mini", "o1")),
        ((("a*b",), ("ab*b", "b*")), ("ab*b",)),
        ((("a*b*",), ("*c",)), ()),
        ((("x*b",), ("*ab",)), ("x*ab",)),
        ((("*a",), ("b*c",)), ()),
    ],
)
def test_the_models_that_every_list_lets_through(lists: tuple[tuple[str, ...], ...], common: object) -> None:
    assert Rights(Role.MEMBER, lists).common_models == common


@pytest.mark.parametrize(
    ("sets", "tightest"),
    [
        ((), None),
        ((LimitSet(rpm=5),), LimitSet(rpm=5)),
        ((LimitSet(rpm=5), LimitSet(rpm=3)), LimitSet(rpm=3)),
        ((LimitSet(rpm=5), LimitSet(tpm=3)), LimitSet(rpm=5, tpm=3)),
    ],
)
def test_the_tightest_limits(sets: tuple[LimitSet, ...], tightest: LimitSet | None) -> None:
    assert Rights(Role.MEMBER, (), sets).tightest_limits == tightest


PATTERNS = st.text("ab*", max_size=5)
LISTS = st.lists(PATTERNS, max_size=3).map(tuple)
NAMES = st.text("ab", max_size=8)


@given(LISTS, LISTS, st.lists(NAMES, max_size=20))
def test_a_covered_list_lets_nothing_through_that_the_other_would_not(
    mine: tuple[str, ...], theirs: tuple[str, ...], names: list[str]
) -> None:
    if not Rights(Role.MEMBER, (mine,)).fields_exceeding(Rights(Role.MEMBER, (theirs,))):
        assert all(allows_model(theirs, name) for name in names if allows_model(mine, name))


@given(st.lists(LISTS, min_size=1, max_size=3).map(tuple), st.lists(NAMES, max_size=20))
def test_common_models_are_in_every_list(lists: tuple[tuple[str, ...], ...], names: list[str]) -> None:
    common = Rights(Role.MEMBER, lists).common_models
    for name in names:
        if allows_model(common, name):
            assert all(allows_model(one, name) for one in lists)
