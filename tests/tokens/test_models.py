"""A record's status and its allow-list."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.tokens.models import Status, allows_model
from tests.support.tokens import NOW, record

TIMES = st.integers(0, 4_000_000_000)


def test_a_token_expires_at_its_very_second() -> None:
    token = record(expires_at="2027-01-15T08:00:00Z")
    assert token.expires_at == NOW
    assert token.status(NOW - 0.001) is Status.ACTIVE
    assert token.status(NOW) is Status.EXPIRED


def test_revoked_is_for_ever_and_counts_before_expired() -> None:
    token = record(expires_at="2027-01-15T08:00:00Z", revoked_at="2099-01-01T00:00:00Z")
    assert {token.status(now) for now in (0, NOW, 10**10)} == {Status.REVOKED}


def test_a_token_revoked_in_the_first_second_of_the_epoch_is_revoked() -> None:
    assert record(revoked_at="1970-01-01T00:00:00Z").status(NOW) is Status.REVOKED


@given(TIMES, TIMES)
def test_without_an_expiry_a_token_is_active_at_any_time(created: int, now: int) -> None:
    assert record().status(now + created) is Status.ACTIVE


@pytest.mark.parametrize(
    ("patterns", "model", "allowed"),
    [
        (None, "anything", True),
        ((), "gpt-4o", False),
        (("gpt-4o",), "gpt-4o", True),
        (("gpt-4o",), "gpt-4o-mini", False),
        (("gpt-4o",), "GPT-4o", False),
        (("gpt-*", "o1"), "gpt-4o-mini", True),
        (("gpt-*", "o1"), "o1", True),
        (("*",), "", True),
        (("*mini",), "gpt-4o-mini", True),
    ],
)
def test_models_by_name_and_by_glob(patterns: tuple[str, ...] | None, model: str, allowed: bool) -> None:
    assert allows_model(patterns, model) is allowed


@pytest.mark.parametrize("model", ["llama-3[70b]", "what?"])
def test_only_the_star_is_a_wildcard(model: str) -> None:
    """The contract knows `*` alone: a name with other signs means itself."""
    assert allows_model((model,), model)
    assert not allows_model((model,), "llama-37")
    assert not allows_model((model,), "whatX")


@pytest.mark.parametrize(
    ("pattern", "model", "fits"),
    [
        ("*", "", True),
        ("a*b*c", "abc", True),
        ("a*b*c", "a-b-b-c", True),
        ("a*b*c", "a-c", False),
        ("a*b*c", "acb", False),
        ("ab*ba", "aba", False),
        ("*a*a*", "a", False),
        ("*llama*instruct", "llama" * 60_000, False),
    ],
)
def test_stars_between_parts(pattern: str, model: str, fits: bool) -> None:
    assert allows_model((pattern,), model) is fits
