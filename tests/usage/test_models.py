"""The values of usage: what is added to what."""

from gateway.usage.models import BUCKET_SECONDS, NO_TOTALS, NOTHING_USED, Usage, UsageTotals


def test_details_are_parts_of_the_total() -> None:
    assert Usage(10, 5, 4, 3, 2, 1, 1).total_tokens == 15
    assert NOTHING_USED.total_tokens == 0


def test_totals_are_added_one_by_one() -> None:
    one = UsageTotals(1, 2, 3, 4, 5, 6, 7, 8, 9)
    assert one.plus(one) == UsageTotals(2, 4, 6, 8, 10, 12, 14, 16, 18)
    assert NO_TOTALS.plus(one) == one


def test_a_day_has_its_hours() -> None:
    assert BUCKET_SECONDS == {"hour": 3600, "day": 86_400}
