"""Costs are exact, never too little, and for every model that the file knows what genai-prices makes of them."""

from decimal import Decimal
from fractions import Fraction
from itertools import cycle, islice
from math import ceil
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.usage.models import Usage
from gateway.usage.pricing.matching import Matcher, Rule
from gateway.usage.pricing.prices import (
    Price,
    PricedModel,
    PriceList,
    Provider,
    Tier,
    load_prices,
    packaged_prices,
    read_price_table,
)
from tests.support.prices import only

ROOT = Path(__file__).parents[3]

AMOUNTS = st.integers(0, 10**9)
DETAILS = ("cached_input", "cache_write", "audio_input", "audio_output")
PLAIN = st.builds(Price, AMOUNTS, AMOUNTS, requests=AMOUNTS, **{name: st.none() | AMOUNTS for name in DETAILS})
COUNTS = st.integers(0, 10**7)
USAGES = st.builds(Usage, **dict.fromkeys(Usage.__struct_fields__, COUNTS))


def dearer(price: Price, times: int) -> Price:
    """The price of a longer prompt."""
    amounts = {
        name: amount * times for name in Price.__struct_fields__ if isinstance(amount := getattr(price, name), int)
    }
    return msgspec.structs.replace(price, **amounts)


def tiered(price: Price, starts: list[int]) -> Price:
    tiers = tuple(Tier(start, dearer(price, times)) for times, start in enumerate(sorted(starts), 2))
    return msgspec.structs.replace(price, tiers=tiers)


PRICES = st.builds(tiered, PLAIN, st.lists(COUNTS, max_size=3, unique=True))


@st.composite
def consistent(draw: st.DrawFn) -> Usage:
    """Details that are parts of their sums."""
    cached, written, audio, rest, spoken, text = (draw(COUNTS) for _ in range(6))
    return Usage(
        prompt_tokens=cached + written + audio + rest,
        completion_tokens=spoken + text,
        cached_tokens=cached,
        cache_write_tokens=written,
        audio_prompt_tokens=audio,
        audio_completion_tokens=spoken,
    )


def in_fractions(price: Price, usage: Usage) -> Fraction:
    for tier in price.tiers:
        if usage.prompt_tokens > tier.above:
            price = tier.price
    parts = [
        (usage.cached_tokens, price.cached_input, price.input),
        (usage.cache_write_tokens, price.cache_write, price.input),
        (usage.audio_prompt_tokens, price.audio_input, price.input),
        (usage.audio_completion_tokens, price.audio_output, price.output),
    ]
    *asked, spoken = (count for count, _, _ in parts)
    parts += [
        (usage.prompt_tokens - sum(asked), None, price.input),
        (usage.completion_tokens - spoken, None, price.output),
    ]
    tokens = sum(Fraction(count * (ordinary if own is None else own), 10**6) for count, own, ordinary in parts)
    return tokens + Fraction(price.requests, 1000)


@given(PRICES, consistent())
def test_a_cost_is_exact_and_rounded_up(price: Price, usage: Usage) -> None:
    assert price.cost(usage) == ceil(in_fractions(price, usage))


@given(PRICES, USAGES, COUNTS, COUNTS)
def test_more_tokens_never_cost_less(price: Price, usage: Usage, prompt: int, completion: int) -> None:
    more = msgspec.structs.replace(
        usage, prompt_tokens=usage.prompt_tokens + prompt, completion_tokens=usage.completion_tokens + completion
    )
    assert 0 <= price.cost(usage) <= price.cost(more)


@given(PLAIN, st.builds(Usage, **dict.fromkeys(Usage.__struct_fields__, st.integers(-(10**6), 10**6))))
def test_nonsense_costs_something_between_nothing_and_the_dearest(price: Price, usage: Usage) -> None:
    dearest = max(getattr(price, name) or 0 for name in ("input", "output", *DETAILS))
    tokens = max(usage.prompt_tokens, 0) + max(usage.completion_tokens, 0)
    assert 0 <= price.cost(usage) <= ceil(Fraction(dearest * tokens, 10**6) + Fraction(price.requests, 1000))


def test_the_length_of_the_prompt_prices_all_of_the_request() -> None:
    price = tiered(Price(10**6, 10**6), [100, 200])
    costs = [price.cost(Usage(prompt_tokens=prompt, completion_tokens=1)) for prompt in (100, 101, 200, 201)]
    assert costs == [101, 204, 402, 606]


def test_a_million_costs_add_up_exactly() -> None:
    costs = [Price(100_001, 300_007).cost(Usage(prompt_tokens=10, completion_tokens=n)) for n in range(4)]
    assert costs == [2, 2, 2, 2]
    costs += [Price(1, 0).cost(Usage(prompt_tokens=n * 10**6)) for n in range(1, 5)]
    assert sum(islice(cycle(costs), 10**6)) == 10**6 // 8 * (2 * 4 + 1 + 2 + 3 + 4)


# The list


def price_of(provider: str, model: str) -> Price | None:
    found = only(provider).find(model)
    assert found is not None
    return found


def test_overrides_win_and_the_name_that_says_most_among_them() -> None:
    names = ["gpt-4o", "gpt-*", "*", "GPT-4o-*", "echo"]
    overrides = {name: Price(number, number) for number, name in enumerate(names, 1)}
    prices = load_prices(packaged_prices(), overrides)
    found = [prices.find(name) for name in ("gpt-4o", "gpt-5", "something", "gpt-4O-mini", "Echo", "*")]
    assert found == [Price(n, n) for n in (1, 2, 3, 4, 5, 3)]


def test_of_overrides_that_say_as_much_the_first_in_the_alphabet_wins() -> None:
    overrides = {"gpt-4*": Price(1, 1), "*-nano": Price(2, 2), "GPT-5*": Price(3, 3), "*-mini": Price(4, 4)}
    prices = PriceList((), overrides)
    assert [prices.find(name) for name in ("gpt-4-nano", "gpt-5-mini", "gpt-4")] == [Price(n, n) for n in (2, 4, 1)]


@pytest.mark.parametrize(
    ("model", "provider"),
    [
        ("gpt-4o", "openai"),
        ("GPT-4o-2024-08-06", "openai"),
        ("claude-3-5-sonnet-20241022", "anthropic"),
        ("gemini-2.5-pro", "google"),
        ("deepseek-chat", "deepseek"),
        ("text-embedding-3-small", "openai"),
        ("openai/gpt-4o", "openrouter"),
        ("anthropic/claude-sonnet-4", "google"),
    ],
)
def test_a_maker_comes_before_those_who_resell_it(model: str, provider: str) -> None:
    assert load_prices(packaged_prices(), {}).find(model) == price_of(provider, model)


def test_an_unknown_name_has_no_price() -> None:
    prices = load_prices(packaged_prices(), {})
    assert prices.find("echo") is None
    assert prices.find("no-such-model") is None
    assert prices.find("") is None
    assert prices.find("gpt-4o" + "-" * 10**6) is None


def test_names_are_looked_up_once_and_names_that_clients_make_up_do_not_fill_the_cache(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []
    search = Matcher.find

    def count(self: Matcher, name: str) -> int | None:
        asked.append(name)
        return search(self, name)

    monkeypatch.setattr(Matcher, "find", count)
    prices = only("openai")
    for _ in range(2):
        assert prices.find("made-up") is None
        assert prices.find("gpt-4o") is not None
    assert asked == ["made-up", "gpt-4o"]
    for number in range(1024):
        prices.find(f"made-up-{number}")
    asked.clear()
    assert prices.find("gpt-4o") is not None
    assert asked == ["gpt-4o"], "1,024 other names have taken its place"
    asked.clear()
    prices.find("x" * 256)
    prices.find("x" * 256)
    prices.find("x" * 257)
    assert asked == ["x" * 256], "longer names are not looked up among the packaged ones"


def test_an_override_of_a_long_name_counts() -> None:
    name = "local-" + "x" * 300
    prices = PriceList((), {"local-*": Price(1, 1), name: Price(2, 2)})
    assert (prices.find(name), prices.find(name + "y")) == (Price(2, 2), Price(1, 1))


def model(name: str, price: Price | None, *, contains: tuple[str, ...] = ()) -> PricedModel:
    return PricedModel(name, Rule(equals=(name,), contains=contains), price)


def test_a_reseller_that_names_a_model_exactly_comes_before_a_pattern_of_the_maker() -> None:
    maker = Provider("maker", (model("m", Price(1, 1), contains=("/m",)),))
    reseller = Provider("reseller", (model("maker/m", Price(2, 2)), model("m", Price(3, 3))))
    prices = PriceList((maker, reseller), {})
    assert [prices.find(name) for name in ("maker/m", "other/m", "m")] == [Price(2, 2), Price(1, 1), Price(1, 1)]


def test_a_model_without_a_price_is_looked_for_at_the_next_provider() -> None:
    first = Provider("first", (model("m", None), model("m", Price(1, 1))))
    second = Provider("second", (model("m", Price(2, 2)),))
    assert PriceList((first, second), {}).find("m") == Price(2, 2)
    assert PriceList((first,), {}).find("m") is None


# The table


def test_a_table_is_read() -> None:
    table = {
        "my-*": {"input": Decimal("2.5"), "output": 10, "cached_input": Decimal("0.000001")},
        "dear": {"input": 1_000_000, "output": Decimal("1000000.000000")},
        "local": {"input": 0, "output": Decimal("1E+1"), "cache_write": 1, "audio_input": 2, "audio_output": 3},
    }
    assert read_price_table(table) == {
        "my-*": Price(2_500_000, 10_000_000, cached_input=1),
        "dear": Price(10**12, 10**12),
        "local": Price(0, 10_000_000, cache_write=1_000_000, audio_input=2_000_000, audio_output=3_000_000),
    }


GOOD = {"input": 1, "output": 1}
CACHED = "prices.m.cached_input"


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ([], 'prices: must be tables such as [prices."my-model*"]'),
        ({"": GOOD}, "prices: a model needs a name"),
        ({3: GOOD}, "prices: a model needs a name"),
        ({"m": GOOD, "M": GOOD}, "prices.M: appears twice; upper and lower case are the same"),
        ({"m": 1}, "prices.m: must be a table with input and output"),
        (
            {"m": {**GOOD, "tiers": 1}},
            "prices.m.tiers: is not one of input, output, cached_input, cache_write, audio_input, audio_output, request, "
            "image, character, second, context_window",
        ),
        ({"m": {"input": 1}}, "prices.m.output: is missing"),
        ({"m": {"output": 1}}, "prices.m.input: is missing"),
        *[
            ({"m": {**GOOD, "cached_input": bad}}, f"{CACHED}: must be a number of USD for a million model tokens")
            for bad in (True, "1", None, 0.5)
        ],
        *[
            (
                {"m": {**GOOD, "cached_input": bad}},
                f"{CACHED}: must be from 0 to 1000000 USD for a million model tokens",
            )
            for bad in (-1, 10**6 + 1, *map(Decimal, ("-0.1", "1000000.1", "1E+999999", "nan", "snan", "inf", "-inf")))
        ],
        *[
            ({"m": {**GOOD, "cached_input": Decimal(bad)}}, f"{CACHED}: must not have more than 6 decimals")
            for bad in ("0.0000001", "1E-999999")
        ],
    ],
)
def test_what_is_no_price_is_refused_by_name(table: object, said: str) -> None:
    with pytest.raises(ValueError, match="prices") as caught:
        read_price_table(table)
    assert str(caught.value) == said


@pytest.mark.parametrize(
    ("key", "amount", "usage", "cost"),
    [
        ("request", Decimal("0.04"), Usage(), 40_000),
        ("request", Decimal("0.000000001"), Usage(), 1),
        ("image", Decimal("0.04"), Usage(images=3), 120_000),
        ("image", 1, Usage(images=1, characters=9), 1_000_000),
        ("character", Decimal("0.000015"), Usage(characters=4000), 60_000),
        ("second", Decimal("0.0001"), Usage(seconds=61, characters=5), 6100),
        ("character", Decimal("0.000000000001"), Usage(characters=10**6), 1),
    ],
)
def test_requests_images_and_characters_have_prices(key: str, amount: Any, usage: Usage, cost: int) -> None:
    price = read_price_table({"m": {"input": 0, "output": 0, key: amount}})["m"]
    assert price.cost(usage) == cost
    assert not price.is_free


def test_a_price_of_a_unit_is_added_to_that_of_the_tokens() -> None:
    price = Price(1_000_000, 2_000_000, image=50, character=7_000_000)
    assert price.cost(Usage(10, 20, images=2, characters=3)) == 10 + 40 + 100 + 21
    assert price.cost(Usage(10, 20)) == 50


@pytest.mark.parametrize("window", [0, -1, True, "8", Decimal("8.5"), 10**9 + 1])
def test_a_context_window_is_a_number_of_tokens(window: Any) -> None:
    with pytest.raises(ValueError, match=r"prices\.m\.context_window: must be a number of tokens from 1 to 1000000000"):
        read_price_table({"m": {"input": 1, "output": 1, "context_window": window}})
    table = read_price_table({"m": {"input": 1, "output": 1, "context_window": 8192}})
    assert table["m"] == Price(1_000_000, 1_000_000, context_window=8192)


@pytest.mark.parametrize(
    ("key", "amount", "said"),
    [
        ("image", "1", "prices.m.image: must be a number of USD for one image"),
        ("request", -1, "prices.m.request: must be from 0 to 1000000 USD for one request"),
        ("image", Decimal("0.0000001"), "prices.m.image: must not have more than 6 decimals"),
        ("request", Decimal("1E-10"), "prices.m.request: must not have more than 9 decimals"),
        ("second", "x", "prices.m.second: must be a number of USD for one second"),
        ("character", Decimal("1E-13"), "prices.m.character: must not have more than 12 decimals"),
    ],
)
def test_an_invalid_price_of_a_unit_is_refused(key: str, amount: Any, said: str) -> None:
    with pytest.raises(ValueError, match="prices") as caught:
        read_price_table({"m": {"input": 1, "output": 1, key: amount}})
    assert str(caught.value) == said


def test_only_what_costs_nothing_at_all_is_free() -> None:
    assert Price(0, 0).is_free
    assert Price(0, 0, context_window=5, image=0).is_free
    for details in (
        "input",
        "output",
        "cached_input",
        "cache_write",
        "audio_input",
        "audio_output",
        "requests",
        "image",
        "character",
    ):
        assert not Price(**{"input": 0, "output": 0, details: 1}).is_free
    assert not Price(0, 0, tiers=(Tier(9, Price(1, 0)),)).is_free


def test_the_packaged_prices_know_context_windows() -> None:
    found = load_prices(packaged_prices(), {}).find("gpt-4o")
    assert found is not None
    assert found.context_window == 128_000


def test_what_the_operator_has_set_can_be_told_from_what_is_packaged() -> None:
    prices = load_prices(packaged_prices(), {"M*": Price(1, 1)})
    assert prices.find_set("m-1") == Price(1, 1)
    assert prices.find_set("gpt-4o") is None
