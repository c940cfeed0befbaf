"""A token is found by what people have at hand, and never by something that only looks like it."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.observability.redaction import redact_secret
from gateway.tokens.lookup import AmbiguousToken, NoSuchToken, find, find_secret
from gateway.tokens.models import SecretMatch, TokenRecord
from tests.support.tokens import KEY, LIVE_KEY, STRANGE_KEY, record
from tests.tokens.test_changes import rotate

FIRST, SECOND = KEY, LIVE_KEY


@pytest.fixture
def two() -> Sequence[TokenRecord]:
    return record(FIRST, id="tok_one", name="first"), record(SECOND, id="tok_two", name="second")


@pytest.mark.parametrize(
    "reference",
    ["tok_one", "first", FIRST, FIRST[:14], FIRST[:14] + "...", FIRST[:20], FIRST[:51], f"  {FIRST[:14]}...\n"],
)
def test_a_token_is_found_by(two: Sequence[TokenRecord], reference: str) -> None:
    assert find(two, reference).id == "tok_one"


@pytest.mark.parametrize(
    "reference",
    [
        "",
        "...",
        "sk-",
        FIRST[:13],
        FIRST[:13] + "...",
        "tok_on",
        "tok_one2",
        "First",
        "firs",
        "first...",
        STRANGE_KEY,
    ],
)
def test_nothing_is_found_by(two: Sequence[TokenRecord], reference: str) -> None:
    with pytest.raises(NoSuchToken):
        find(two, reference)


def test_a_whole_secret_with_one_wrong_character_is_nobodys(two: Sequence[TokenRecord]) -> None:
    wrong = FIRST[:-1] + ("a" if FIRST[-1] != "a" else "b")
    with pytest.raises(NoSuchToken) as caught:
        find(two, wrong)
    assert wrong not in str(caught.value)
    assert redact_secret(wrong) in str(caught.value)


@pytest.mark.parametrize(
    ("reference", "shown"),
    [
        ("sk-123456789012345678", redact_secret("sk-123456789012345678")),
        ("sk-12345678901234567", "sk-12345678901234567"),
        ("a name that nobody has given yet", "a name that nobody has given yet"),
    ],
)
def test_what_is_not_found_is_shown_unless_it_may_be_a_secret(reference: str, shown: str) -> None:
    with pytest.raises(NoSuchToken) as caught:
        find((), reference)
    assert str(caught.value) == f"no token fits {shown}"


def test_the_whole_secret_beats_a_name_that_looks_like_it(two: Sequence[TokenRecord]) -> None:
    impostor = record("sk-impostor-with-a-long-secret", name=FIRST[:60])
    assert find((impostor, *two), FIRST).id == "tok_one"


def test_two_tokens_of_one_name_are_ambiguous() -> None:
    same = record(FIRST), record(SECOND)
    with pytest.raises(AmbiguousToken, match="'application' fits 2 tokens") as caught:
        find(same, "application")
    assert caught.value.matches == same


def test_a_name_like_another_tokens_beginning_is_ambiguous() -> None:
    tokens = record(FIRST, name="mine"), record(SECOND, name=FIRST[:14])
    with pytest.raises(AmbiguousToken):
        find(tokens, FIRST[:14])


def test_a_token_that_fits_twice_is_one_match() -> None:
    assert find((record(FIRST, name=FIRST[:14]),), FIRST[:14]).name == FIRST[:14]


def test_two_foreign_secrets_with_one_beginning_are_ambiguous() -> None:
    tokens = record("company-key-000001-and-so-on"), record("company-key-000002-and-so-on")
    with pytest.raises(AmbiguousToken):
        find(tokens, "company-key-00")


@pytest.mark.parametrize(("reference", "fits"), [("abc", True), ("abc...", True), ("abcd", False), ("abcdefg", False)])
def test_a_short_foreign_secret_is_found_by_its_very_prefix_alone(reference: str, fits: bool) -> None:
    """Its prefix is so short that many texts begin with it."""
    tokens = (record("abcdef", name="short"),)
    if fits:
        assert find(tokens, reference).name == "short"
    else:
        with pytest.raises(NoSuchToken):
            find(tokens, reference)


def test_a_short_foreign_secret_is_found_by_itself() -> None:
    assert find((record("abcdef", name="short"),), "abcdef").name == "short"


@pytest.mark.parametrize("name", [" padded ", "trailing "])
def test_every_name_that_a_token_may_have_finds_it(name: str) -> None:
    assert find((record(FIRST, name=name),), name).name == name


@given(st.text())
def test_any_text_finds_a_token_or_says_no(reference: str) -> None:
    tokens = record(FIRST, name="first"), record(SECOND, name="second")
    try:
        found = find(tokens, reference)
    except (NoSuchToken, AmbiguousToken):
        return
    assert found in tokens


def test_what_a_shell_passes_for_bytes_that_are_not_utf_8_is_no_token(two: Sequence[TokenRecord]) -> None:
    with pytest.raises(NoSuchToken):
        find(two, b"caf\xe9".decode("utf-8", "surrogateescape"))


@pytest.mark.parametrize("reference", [FIRST, FIRST[:14], FIRST[:14] + "...", FIRST[:30]])
def test_a_replaced_secret_is_known_for_what_it_is(reference: str) -> None:
    current = rotate(record(FIRST, id="tok_one"), 60, new=SECOND)
    assert find_secret([current], reference) == SecretMatch(current, current.previous_secrets[0])
    for present in (SECOND, SECOND[:14], "tok_one", "application"):
        assert find_secret([current], present) == SecretMatch(current, None)


def test_a_replaced_secret_and_another_token_may_be_ambiguous() -> None:
    current = rotate(record(FIRST, id="tok_one"), 60, new=SECOND)
    with pytest.raises(AmbiguousToken) as caught:
        find([current, record("sk-third-made-up-secret", id="tok_x", name=FIRST[:14])], FIRST[:14])
    assert len(caught.value.matches) == 2


def test_a_name_is_found_in_either_form_of_unicode() -> None:
    records = (record(FIRST, id="tok_one", name="caf\u00e9"),)
    assert find(records, "cafe\u0301") is records[0]
