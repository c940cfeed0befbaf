"""Uses, merged and added to records."""

from gateway.tokens import changes
from gateway.tokens.models import UseKey
from gateway.tokens.uses import Use, add_uses
from tests.support.tokens import KEY, LIVE_KEY, NOW, record
from tests.tokens.test_hierarchy import view


def test_two_uses_count_together_and_the_newest_is_the_last() -> None:
    first, later = Use(1, NOW, "::1"), Use(2, NOW + 1, "::2")
    assert first.and_then(later) == later.and_then(first) == Use(3, NOW + 1, "::2")
    assert Use(1, NOW, "a").and_then(Use(1, NOW, "b")).address == "b"


def test_uses_are_added_to_their_tokens_alone() -> None:
    one, two = record(id="tok_1", usage_count=5), record("sk-second-made-up-secret", id="tok_2")
    used, other = add_uses((one, two), {UseKey("tok_1"): Use(3, NOW), UseKey("tok_gone"): Use(1, NOW)})
    assert (used.usage_count, used.last_used) == (8, NOW)
    assert other is two


def test_a_later_use_that_is_stored_already_stays() -> None:
    one = record(id="tok_1", last_used="2099-01-01T00:00:00Z")
    assert add_uses((one,), {UseKey("tok_1"): Use(1, NOW)})[0].last_used == one.last_used


def test_a_use_in_the_first_second_of_the_epoch_is_noted() -> None:
    """As on a machine whose clock was never set."""
    assert add_uses((record(id="tok_1"),), {UseKey("tok_1"): Use(1, 0)})[0].last_used == 0


def test_a_use_of_the_present_secret_is_not_one_of_the_replaced() -> None:
    before = record(KEY, id="tok_1")
    current = changes.rotate(view(before), before, LIVE_KEY, 60, NOW)[0].record
    used = add_uses((current,), {UseKey("tok_1"): Use(2, NOW + 1)})[0]
    assert (used.usage_count, used.previous_secrets) == (2, current.previous_secrets)


def test_a_use_of_a_replaced_secret_is_noted_with_its_address() -> None:
    before = record(KEY, id="tok_1")
    current = changes.rotate(view(before), before, LIVE_KEY, 60, NOW)[0].record
    key = UseKey("tok_1", before.hash)
    used = add_uses((current,), {key: Use(2, NOW + 5, "::1"), UseKey("tok_1"): Use(1, NOW + 1)})[0]
    old = used.previous_secrets[0]
    assert (used.usage_count, used.last_used) == (3, NOW + 5)
    assert (old.usage_count, old.last_used, old.last_used_from) == (2, NOW + 5, "::1")
    same = add_uses((used,), {key: Use(1, NOW + 5, "::3")})[0].previous_secrets[0]
    assert same.last_used_from == "::3", "of two uses in one second the one that is written later counts as the last"
    older = add_uses((used,), {key: Use(1, NOW + 4, "::2")})[0].previous_secrets[0]
    assert (older.usage_count, older.last_used, older.last_used_from) == (3, NOW + 5, "::1")
