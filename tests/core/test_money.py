"""Micro-dollars as text."""

import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.money import MICRO_USD, format_usd


@pytest.mark.parametrize(
    ("micro_usd", "text"),
    [
        (0, "0"),
        (1, "0.000001"),
        (10, "0.00001"),
        (1_500, "0.0015"),
        (999_999, "0.999999"),
        (1_000_000, "1"),
        (10_000_000, "10"),
        (12_345_678, "12.345678"),
        (-1, "-0.000001"),
        (-1_000_000, "-1"),
        (-1_500_000, "-1.5"),
    ],
)
def test_money_is_written_exactly_and_without_needless_zeros(micro_usd: int, text: str) -> None:
    assert format_usd(micro_usd) == text


@given(st.integers(min_value=-(10**18), max_value=10**18))
def test_what_is_written_is_a_json_number_of_the_same_value(micro_usd: int) -> None:
    assert json.loads(format_usd(micro_usd), parse_int=Decimal, parse_float=Decimal) * MICRO_USD == micro_usd
