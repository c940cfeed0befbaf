"""Secrets: what a new one looks like, how a mistyped one is told, what is shown of it."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.tokens import secret
from tests.support.tokens import KEY

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


@pytest.mark.parametrize(("prefix", "length"), [("sk-", 52), ("sk_live_", 57), ("sk_test_", 57)])
def test_a_new_secret_has_the_contracts_form(prefix: str, length: int) -> None:
    made = secret.generate(prefix)
    assert made.startswith(prefix)
    assert len(made) == length
    assert set(made.removeprefix(prefix)) <= set(ALPHABET)
    assert not secret.has_bad_checksum(made)


def test_no_two_secrets_are_alike() -> None:
    assert len({secret.generate() for _ in range(500)}) == 500


def test_a_foreign_prefix_is_refused() -> None:
    with pytest.raises(ValueError, match="sk-, sk_live_, sk_test_"):
        secret.generate("pk-")


@given(place=st.integers(3, 51), other=st.sampled_from(ALPHABET))
def test_every_single_mistyped_character_is_noticed(place: int, other: str) -> None:
    made = KEY
    typed = made[:place] + other + made[place + 1 :]
    assert secret.has_bad_checksum(typed) == (typed != made)


@pytest.mark.parametrize("text", ["", "sk-", "sk-short", "hf_" + "a" * 49, "sk-" + "a" * 48, "sk-" + "a" * 50])
def test_a_secret_of_another_form_is_never_called_mistyped(text: str) -> None:
    assert not secret.has_bad_checksum(text)


def test_what_is_stored_is_sha_256() -> None:
    assert secret.digest("sk-abc") == hashlib.sha256(b"sk-abc").hexdigest()


@pytest.mark.parametrize(
    ("text", "kind"),
    [("sk-0QmZpYBuz", "sk-"), ("sk_live_7vKd2", "sk_live_"), ("sk_test_7vKd2", "sk_test_"), ("company-key-1", "sk-")],
)
def test_a_secret_from_elsewhere_counts_as_a_plain_one(text: str, kind: str) -> None:
    assert secret.kind(text) == kind


@given(st.text(min_size=2))
def test_a_display_prefix_never_shows_more_than_half(text: str) -> None:
    shown = secret.display_prefix(text)
    assert text.startswith(shown)
    assert len(shown) <= 14
    assert len(shown) * 2 <= len(text)
