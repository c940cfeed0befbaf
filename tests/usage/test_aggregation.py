"""How one entry is added up: under its hour, in bounded numbers, with names that can be stored."""

import pytest

from gateway.usage.aggregation import MAX_AMOUNT, bounded, encodable, hour_key, totals_of
from gateway.usage.models import Usage, UsageTotals
from tests.support.tokens import NOW
from tests.support.usage import ledger_entry


@pytest.mark.parametrize(
    ("milliseconds", "hour"), [(0, NOW), (3_599_999, NOW), (3_600_000, NOW + 3600), (-1, NOW - 3600)]
)
def test_an_entry_belongs_to_the_hour_in_which_it_began(milliseconds: int, hour: int) -> None:
    assert hour_key(ledger_entry(at=NOW * 1000 + milliseconds)) == (hour, "tok_1", "ann@example.com", "gpt-4o")


def test_what_is_not_known_has_an_empty_name() -> None:
    assert hour_key(ledger_entry(owner=None, model=None))[2:] == ("", "")


def test_each_number_is_added_to_its_own_sum() -> None:
    usage = Usage(1, 2, 3, 4, 5, 6, 7)
    assert totals_of(ledger_entry(1, usage, cost=8)) == UsageTotals(1, 1, 2, 3, 5, 8, 0, 0, 0)
    assert totals_of(ledger_entry(1, usage, status=400))[6:] == (1, 0, 0)
    assert totals_of(ledger_entry(1, usage, status=399, partial=True))[6:] == (0, 1, 0)
    assert totals_of(ledger_entry(1, usage, estimated=True))[6:] == (0, 0, 1)


@pytest.mark.parametrize(
    ("amount", "stored"),
    [(-1, 0), (0, 0), (1, 1), (MAX_AMOUNT, MAX_AMOUNT), (MAX_AMOUNT + 1, MAX_AMOUNT), (10**30, MAX_AMOUNT)],
)
def test_an_amount_is_bounded(amount: int, stored: int) -> None:
    assert bounded(amount) == stored


def test_a_sum_of_nine_million_entries_of_the_largest_amount_fits_into_64_bits() -> None:
    assert MAX_AMOUNT == 10**12
    assert 9_000_000 * MAX_AMOUNT < 2**63


@pytest.mark.parametrize(("text", "stored"), [("", ""), ("plain", "plain"), ("é€", "é€"), ("half \ud800", "half ?")])
def test_a_name_can_always_be_encoded(text: str, stored: str) -> None:
    assert encodable(text) == stored
