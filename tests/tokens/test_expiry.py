"""How long a token lives, as people say it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.tokens.expiry import expiry, past, span
from tests.support.tokens import NOW

DAY = 86_400


@pytest.mark.parametrize(
    ("text", "seconds"), [("12h", DAY // 2), ("30d", 30 * DAY), ("2w", 14 * DAY), ("1y", 365 * DAY), ("1h", 3600)]
)
def test_a_span_is_added_to_now(text: str, seconds: int) -> None:
    assert expiry(text, NOW) == NOW + seconds


def test_never_is_never() -> None:
    assert expiry("never", NOW) is None


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("2027-01-31", 1_801_353_600),
        ("2027-01-31T12:00:00Z", 1_801_396_800),
        ("2027-01-31T12:00:00+01:00", 1_801_393_200),
    ],
)
def test_a_date_means_its_first_second_in_utc(text: str, at: int) -> None:
    assert expiry(text, NOW) == at


@pytest.mark.parametrize(
    "text", ["", "30", "30mo", "-1d", "1.5d", "soon", "30 d", "1D", "2027-02-30", "1000000d", "d", "Never"]
)
def test_what_is_no_lifetime_is_named_with_examples(text: str) -> None:
    with pytest.raises(ValueError, match="is none of") as caught:
        expiry(text, NOW)
    assert str(caught.value) == f"{text!r} is none of 30d, 12h, 2w, 1y, never or a date such as 2027-01-31"


@pytest.mark.parametrize("text", ["0d", "0h", "2026-12-31", "1970-01-01", "99999y", "9999-12-31T23:59:59-01:00"])
def test_what_lies_not_in_the_future_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="does not lie") as caught:
        expiry(text, NOW)
    assert str(caught.value) == f"{text!r} does not lie in the future (up to the year 9999)"


def test_the_last_second_of_the_year_9999_is_the_latest() -> None:
    assert expiry("9999-12-31T23:59:59Z", NOW) == 253_402_300_799


def test_the_present_second_is_not_the_future() -> None:
    with pytest.raises(ValueError, match="future"):
        expiry("2027-01-15T08:00:00", NOW)


@given(st.text(max_size=12))
def test_every_text_is_a_later_time_or_refused(text: str) -> None:
    try:
        at = expiry(text, NOW)
    except ValueError:
        return
    assert at is None or at > NOW


def test_a_span_of_nothing_and_what_is_no_span() -> None:
    assert span("0") == 0
    with pytest.raises(ValueError, match=r"^'soon' is no time span such as 90s, 30m \(minutes\), 24h, 30d, 2w or 1y$"):
        span("soon")


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("7d", NOW - 7 * DAY),
        ("0", NOW),
        ("9999y", 0),
        ("2026-01-31", 1_769_817_600),
        ("2026-01-31T12:00:00+02:00", 1_769_853_600),
    ],
)
def test_a_beginning_is_a_span_before_now_or_a_date(text: str, at: int) -> None:
    assert past(text, NOW) == at


@pytest.mark.parametrize("text", ["", "yesterday", "7", "1900-01-01", "2026-13-01"])
def test_what_is_no_beginning_is_named_with_examples(text: str) -> None:
    with pytest.raises(ValueError, match="no date or time such as 2027-01-31"):
        past(text, NOW)
