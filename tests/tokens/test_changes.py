"""What a change does to the tokens, without writing anything."""

from typing import Any

import msgspec
import pytest

from gateway.limits.config import LimitSet
from gateway.tokens import changes, secret
from gateway.tokens.changes import ChangeRefused, TokenSpec
from gateway.tokens.hierarchy import TokenHierarchy
from gateway.tokens.models import RecordChange, Role, SecretMatch, Status, TokenRecord
from gateway.tokens.rights import EVERYTHING, Rights
from tests.support.tokens import KEY, LIVE_KEY, NOW, record
from tests.tokens.test_hierarchy import token, view

DEFAULTS = Rights(Role.SERVICE, (("a*", "b"), ("a1", "b")), (LimitSet(rpm=5),), NOW + 100, True)


def applied(before: TokenHierarchy, record_changes: tuple[RecordChange, ...]) -> TokenHierarchy:
    return TokenHierarchy(changes.apply(before.records, record_changes))


def test_fields_that_are_not_given_get_the_inherited_defaults() -> None:
    made = changes.new_token(TokenSpec(name="n"), DEFAULTS, "ann@example.com", NOW + 0.9)
    found = made.record
    assert (found.role, found.models, found.limits, found.expires_at) == (
        Role.SERVICE, ("a1", "b"), LimitSet(rpm=5), NOW + 100
    )  # fmt: skip
    assert (found.owner, found.created_at, secret.kind(found.prefix)) == ("ann@example.com", NOW, secret.TEST)
    assert found.hash == secret.digest(made.secret)


def test_given_fields_win_over_the_defaults_even_where_they_are_null() -> None:
    spec = TokenSpec(
        name="n", owner=None, role=Role.ADMIN, expires_at=None, models=None, limits=None, prefix="sk_live_"
    )
    found = changes.new_token(spec, DEFAULTS, "ann@example.com", NOW).record
    assert (found.owner, found.role, found.expires_at, found.models, found.limits) == (
        None,
        Role.ADMIN,
        None,
        None,
        None,
    )
    assert found.prefix.startswith("sk_live_")


def test_whoever_may_do_everything_gives_a_member_without_limits() -> None:
    found = changes.new_token(TokenSpec(name="n"), EVERYTHING, None, NOW).record
    assert (found.role, found.models, found.limits, found.expires_at) == (Role.MEMBER, None, None, None)
    assert found.prefix.startswith("sk-")


PARENT = {"owner": "ann@example.com", "models": ["a*"], "limits": {"rpm": 5}, "expires_at": "2027-02-01T00:00:00Z"}


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"role": "admin"}, "role"),
        ({"models": ["b"]}, "models"),
        ({"models": None}, "models"),
        ({"limits": {"rpm": 6}}, "limits"),
        ({"expires_at": None}, "expires_at"),
        ({"expires_at": "2027-02-01T00:00:01Z"}, "expires_at"),
        ({"owner": "bob@example.com"}, "owner"),
        ({"owner": None}, "owner"),
    ],
)
def test_a_child_gets_no_more_than_its_parent(fields: dict[str, Any], field: str) -> None:
    family = view(token("p", **PARENT))
    changes.create(family, token("c", "p", **PARENT), NOW)
    with pytest.raises(ChangeRefused) as caught:
        changes.create(family, token("c", "p", **{**PARENT, **fields}), NOW)
    owners, rights = "A child has the owner of its parent.", "A child may not have more than its parent."
    assert (caught.value.field, str(caught.value)) == (field, owners if field == "owner" else rights)


def test_a_new_token_has_its_metadata() -> None:
    spec = TokenSpec(name="n", metadata={"team": "red"})
    assert changes.new_token(spec, EVERYTHING, None, NOW).record.metadata == {"team": "red"}


def test_a_child_inherits_what_its_grandparent_narrows() -> None:
    family = view(token("a", models=["a*"], limits={"rpm": 3}), token("b", "a", limits={"rpm": 5}))
    defaults, _ = changes.inherited_defaults(family, "tok_b", EVERYTHING, NOW)
    assert (defaults.common_models, defaults.tightest_limits) == (("a*",), LimitSet(rpm=3))


def test_a_child_of_a_test_token_is_one() -> None:
    family = view(record("sk_test_made-up-parent", id="tok_p"))
    with pytest.raises(ChangeRefused) as caught:
        changes.create(family, token("c", "p"), NOW)
    assert caught.value.field == "prefix"
    changes.create(family, record("sk_test_made-up-child-one", id="tok_c", parent_id="tok_p"), NOW)


@pytest.mark.parametrize("fields", [{"revoked_at": "2026-01-01T00:00:00Z"}, {"expires_at": "2026-01-01T00:00:00Z"}])
def test_what_has_ended_gets_no_children(fields: dict[str, str]) -> None:
    for family in (view(token("p", **fields)), view()):
        with pytest.raises(ChangeRefused) as caught:
            changes.create(family, token("c", "p"), NOW)
        assert (caught.value.field, str(caught.value)) == ("parent_id", "There is no active token with this id.")
        with pytest.raises(ChangeRefused):
            changes.inherited_defaults(family, "tok_p", EVERYTHING, NOW)


def test_revoking_takes_all_that_is_below_and_keeps_earlier_times() -> None:
    family = view(token("a"), token("b", "a", revoked_at="2026-01-01T00:00:00Z"), token("c", "b"), token("x"))
    record_changes = changes.revoke(family, token("a"), NOW)
    assert [(change.action, change.record.name) for change in record_changes] == [
        ("token.revoke", "a"),
        ("token.revoke", "c"),
    ]
    after = {one.name: one.revoked_at for one in applied(family, record_changes).records}
    assert after == {"a": NOW, "b": token("b", "a", revoked_at="2026-01-01T00:00:00Z").revoked_at, "c": NOW, "x": None}


def test_deleting_leaves_children_as_revoked_records() -> None:
    family = view(token("a"), token("b", "a"))
    record_changes = changes.delete(family, token("a"), NOW)
    assert [(change.action, change.record.name) for change in record_changes] == [
        ("token.revoke", "b"), ("token.delete", "a")
    ]  # fmt: skip
    after = applied(family, record_changes)
    assert [(one.name, one.revoked_at) for one in after.records] == [("b", NOW)]


def test_a_whole_tree_is_deleted_from_its_leaves_upwards() -> None:
    family = view(token("a"), token("b", "a"), token("c", "b"), token("x"))
    record_changes = changes.delete_tree(family, token("a"))
    assert [(change.action, change.record.name) for change in record_changes] == [
        ("token.delete", "c"), ("token.delete", "b"), ("token.delete", "a")
    ]  # fmt: skip
    assert applied(family, record_changes).records == (token("x"),)


def test_a_patch_that_changes_nothing_touches_nothing() -> None:
    assert changes.update(view(token("a")), token("a"), {"name": "a", "models": None}) == ()


def test_a_new_owner_gets_what_is_below() -> None:
    family = view(token("a"), token("b", "a"), token("c", "b"))
    record_changes = changes.update(family, token("a"), {"owner": "bob@example.com"})
    assert [change.action for change in record_changes] == ["token.update"] * 3
    after = applied(family, record_changes)
    assert [(one.name, one.owner) for one in after.records] == [(name, "bob@example.com") for name in "abc"]
    with pytest.raises(ChangeRefused) as caught:
        changes.update(family, token("b", "a"), {"owner": "bob@example.com"})
    assert (caught.value.field, str(caught.value)) == ("owner", "A child has the owner of its parent.")


def test_a_child_that_its_parent_has_outgrown_can_still_be_renamed() -> None:
    family = view(token("p", models=["a"]), token("c", "p"))
    assert changes.update(family, token("c", "p"), {"name": "new"})[0].record.name == "new"
    with pytest.raises(ChangeRefused):
        changes.update(family, token("c", "p"), {"models": ("b",)})


def rotate(before: TokenRecord, grace: int, now: float = NOW, new: str = LIVE_KEY) -> TokenRecord:
    [change] = changes.rotate(view(before), before, new, grace, now)
    assert change.action == "token.rotate"
    return change.record


def test_rotating_keeps_everything_but_the_secret() -> None:
    before = record(KEY, usage_count=5, owner="ann@example.com")
    after = rotate(before, 60)
    assert (after.hash, after.prefix) == (secret.digest(LIVE_KEY), LIVE_KEY[:14])
    assert msgspec.structs.replace(after, hash=before.hash, prefix=before.prefix, previous_secrets=()) == before
    old = after.previous_secrets[0]
    assert (old.hash, old.prefix, old.rotated_at, old.valid_until) == (before.hash, before.prefix, NOW, NOW + 60)
    assert (old.status(NOW + 59.999), old.status(NOW + 60)) == (Status.ACTIVE, Status.EXPIRED)


def test_a_grace_ends_with_the_token_at_the_latest() -> None:
    after = rotate(record(KEY, expires_at="2027-01-15T08:00:30Z"), 60)
    assert after.previous_secrets[0].valid_until == after.expires_at == NOW + 30


def test_without_grace_every_older_secret_ends_now() -> None:
    after = rotate(rotate(record(KEY), 600), 0, NOW + 1, "sk-third-made-up-secret")
    assert [old.status(NOW + 1) for old in after.previous_secrets] == [Status.REVOKED, Status.REVOKED]


def test_what_has_ended_is_forgotten_at_the_next_rotation() -> None:
    after = rotate(rotate(record(KEY), 10), 60, NOW + 10, "sk-third-made-up-secret")
    assert [old.hash for old in after.previous_secrets] == [secret.digest(LIVE_KEY)]


def test_there_are_only_so_many_secrets_at_a_time() -> None:
    current = record(KEY)
    for number in range(changes.MAX_PREVIOUS_SECRETS):
        current = rotate(current, 600, new=f"sk-made-up-secret-{number}")
    with pytest.raises(ChangeRefused) as caught:
        rotate(current, 600, new="sk-one-too-many-made-up")
    assert (caught.value.field, str(caught.value)) == (
        "grace",
        "5 older secrets of this token are still valid. Wait until one has ended, or rotate without grace.",
    )
    assert len(rotate(current, 0, new="sk-one-too-many-made-up").previous_secrets) == changes.MAX_PREVIOUS_SECRETS + 1


@pytest.mark.parametrize(("grace", "fits"), [(changes.MAX_GRACE_SECONDS, True), (changes.MAX_GRACE_SECONDS + 1, False)])
def test_a_grace_has_an_end(grace: int, fits: bool) -> None:
    if fits:
        rotate(record(KEY), grace)
    else:
        with pytest.raises(ChangeRefused) as caught:
            rotate(record(KEY), grace)
        reason = "A grace is at most a year: two secrets for ever would be one too many."
        assert (caught.value.field, str(caught.value)) == ("grace", reason)


@pytest.mark.parametrize("fields", [{"revoked_at": "2026-01-01T00:00:00Z"}, {"expires_at": "2026-01-01T00:00:00Z"}])
def test_what_has_ended_cannot_be_rotated(fields: dict[str, str]) -> None:
    with pytest.raises(ChangeRefused, match="a new secret would not work either") as caught:
        rotate(record(KEY, **fields), 60)
    assert caught.value.field is None


def test_ending_a_replaced_secret_leaves_the_token() -> None:
    current = rotate(record(KEY), 600)
    family = view(current)
    record_changes = changes.revoke_match(family, SecretMatch(current, current.previous_secrets[0]), NOW + 5)
    after = record_changes[0].record
    assert (record_changes[0].action, after.revoked_at, after.previous_secrets[0].revoked_at) == (
        "token.end_secret",
        None,
        NOW + 5,
    )
    assert changes.revoke_match(view(after), SecretMatch(after, after.previous_secrets[0]), NOW + 6) == ()
    twice = rotate(current, 600, new="sk-third-made-up-secret")
    [change] = changes.revoke_secret(twice, twice.previous_secrets[0], NOW + 5)
    assert [old.revoked_at for old in change.record.previous_secrets] == [NOW + 5, None]
    assert changes.revoke_match(family, SecretMatch(current, None), NOW)[0].action == "token.revoke"


def test_an_import_passes_over_known_ids_and_secrets_replaced_ones_too() -> None:
    here = rotate(record(KEY, id="tok_here"), 600)
    offered = [
        record(KEY, id="tok_1"),
        record(LIVE_KEY, id="tok_2"),
        record("sk-new-made-up", id="tok_here"),
        token("n"),
    ]
    imported = changes.import_records(view(here), offered)
    assert [(change.action, change.record.name) for change in imported] == [("token.import", "n")]


def test_a_change_keeps_the_order_and_puts_what_is_new_last() -> None:
    before = view(token("a"), token("b"), token("c"))
    record_changes = (*changes.create(before, token("d"), NOW), *changes.delete(before, token("b"), NOW))
    assert [one.name for one in changes.apply(before.records, record_changes)] == ["a", "c", "d"]


def test_a_change_is_of_a_record() -> None:
    with pytest.raises(ValueError, match="a change of no record"):
        _ = RecordChange("token.update", None, None).record


@pytest.mark.parametrize("field", ["models", "metadata"])
def test_a_record_is_small_and_the_error_names_the_field_that_takes_most(field: str) -> None:
    large = {"models": tuple(f"model-{number}-" + "x" * 200 for number in range(100)), "metadata": {"a": "x" * 20_000}}
    one = token("a")
    too_large = msgspec.structs.replace(one, **{field: large[field]})
    with pytest.raises(ChangeRefused, match=f"may have 16384. `{field}` takes most") as caught:
        changes.create(view(), too_large, NOW)
    assert caught.value.field == field
    with pytest.raises(ChangeRefused):
        changes.update(view(one), one, {field: large[field]})
    assert changes.update(view(too_large), too_large, {"name": "old ones can still be renamed"})
