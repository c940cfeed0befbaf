"""Costs are exact, never too little, and for every model that the file knows what genai-prices makes of them."""

import datetime
import importlib.util
import random
from collections.abc import Callable, Iterator
from decimal import Decimal
from fractions import Fraction
from functools import cache
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
    FREE,
    Price,
    PriceFile,
    PriceList,
    Provider,
    Tier,
    load_prices,
    packaged_prices,
    read_price_table,
)

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


@cache
def the_file() -> PriceFile:
    return msgspec.json.decode(packaged_prices(), type=PriceFile)


def only(provider: str) -> PriceList:
    return PriceList(tuple(each for each in the_file().providers if each.id == provider), {})


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
        ("anthropic/claude-sonnet-4", "openrouter"),
    ],
)
def test_a_maker_comes_before_those_who_resell_it(model: str, provider: str) -> None:
    assert load_prices(packaged_prices(), {}).find(model) == price_of(provider, model)


def test_echo_is_free_and_an_unknown_name_has_no_price() -> None:
    prices = load_prices(packaged_prices(), {})
    assert prices.find("echo") == prices.find("ECHO") == FREE
    assert prices.find("no-such-model") is None
    assert prices.find("") is None
    assert prices.find("gpt-4o" + "-" * 10**6) is None


def test_names_that_clients_make_up_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    search = Matcher.find

    def counted(self: Matcher, name: str) -> int | None:
        asked.append(name)
        return search(self, name)

    monkeypatch.setattr(Matcher, "find", counted)
    prices = only("openai")
    for _ in range(2):
        assert prices.find("made-up") is None
        assert prices.find("gpt-4o") is not None
    assert asked == ["made-up", "gpt-4o"]
    for number in range(3000):
        prices.find(f"made-up-{number}")
    assert prices._remembered.cache_info().currsize == 1024


def test_a_rule_may_be_made_of_rules() -> None:
    rule = Rule(ends_with=("-x",), every=((Rule(starts_with=("a",)), Rule(equals=("ab", "bb"), contains=("c",))),))
    assert [name for name in ("ab", "bb", "abc", "a", "q-x") if rule.fits(name)] == ["ab", "abc", "q-x"]


# The table


def test_a_table_is_read() -> None:
    table = {
        "my-*": {"input": Decimal("2.5"), "output": 10, "cached_input": Decimal("0.000001")},
        "local": {"input": 0, "output": Decimal("1E+1"), "cache_write": 1, "audio_input": 2, "audio_output": 3},
    }
    assert read_price_table(table) == {
        "my-*": Price(2_500_000, 10_000_000, cached_input=1),
        "local": Price(0, 10_000_000, cache_write=1_000_000, audio_input=2_000_000, audio_output=3_000_000),
    }


GOOD = {"input": 1, "output": 1}


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ([], "prices"),
        ({"": GOOD}, "name"),
        ({"m": GOOD, "M": GOOD}, "prices.M: is there twice"),
        ({"m": 1}, "prices.m: must be a table"),
        ({"m": {**GOOD, "tiers": 1}}, "prices.m.tiers: is not one of"),
        ({"m": {"input": 1}}, "prices.m.output: is missing"),
        ({"m": {"output": 1}}, "prices.m.input: is missing"),
        *[
            ({"m": {**GOOD, "cached_input": bad}}, "prices.m.cached_input: must")
            for bad in (True, "1", None, 0.5, -1, 10**7)
        ],
        *[
            ({"m": {**GOOD, "cached_input": Decimal(bad)}}, "prices.m.cached_input: must")
            for bad in ("-0.1", "0.0000001", "1E-999999", "1E+999999", "nan", "snan", "inf", "-inf")
        ],
    ],
)
def test_what_is_no_price_is_refused_by_name(table: object, said: str) -> None:
    with pytest.raises(ValueError, match="prices") as caught:
        read_price_table(table)
    assert said in str(caught.value)


# The file, held against where it comes from


def test_the_file_is_what_the_script_makes() -> None:
    spec = importlib.util.spec_from_file_location("make_prices", ROOT / "scripts" / "make_prices.py")
    assert spec is not None
    assert spec.loader is not None
    script: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    made = script.make(datetime.date.fromisoformat(the_file().as_of))
    assert made.data.splitlines() == packaged_prices().splitlines()
    assert made.data == packaged_prices()
    assert made.priced > 1000


@pytest.fixture
def genai() -> Any:
    import genai_prices

    return genai_prices


@pytest.fixture
def their_provider(genai: Any) -> Callable[[str], Any]:
    known = {provider.id: provider for provider in genai.data_snapshot.get_snapshot().providers}
    return known.__getitem__


@pytest.fixture
def their_cost(genai: Any, their_provider: Any) -> Callable[[str, str, Usage], tuple[Fraction, bool]]:
    """Micro-dollars, and whether their prices are whole micro-dollars for a million model tokens."""
    # At this hour no provider has a price of its own.
    quiet = datetime.datetime.fromisoformat(f"{the_file().as_of}T18:00:00+00:00")

    def cost(provider: str, model: str, usage: Usage) -> tuple[Fraction, bool]:
        (meant,) = (each for each in their_provider(provider).models if each.id == model)
        asked = genai.Usage(
            input_tokens=usage.prompt_tokens,
            output_tokens=usage.completion_tokens,
            cache_read_tokens=usage.cached_tokens,
            cache_write_tokens=usage.cache_write_tokens,
            input_audio_tokens=usage.audio_prompt_tokens,
            output_audio_tokens=usage.audio_completion_tokens,
            cache_audio_read_tokens=0,
        )
        found = meant.calc_price(asked, their_provider(provider), genai_request_timestamp=quiet)
        prices = [price for each in vars(found.model_price).values() for price in _amounts(each)]
        return Fraction(found.total_price) * 10**6, all(price * 10**6 % 1 == 0 for price in prices)

    return cost


def _amounts(price: Any) -> list[Decimal]:
    if price is None or isinstance(price, Decimal):
        return [] if price is None else [price]
    return [price.base, *(tier.price for tier in price.tiers)]


def some_usages(price: Price, draw: random.Random) -> Iterator[Usage]:
    def usage(prompt: int, *, details: bool) -> Usage:
        cuts = sorted(draw.randint(0, prompt) for _ in range(3)) if details else [0, 0, 0]
        completion = draw.randint(0, 50_000)
        return Usage(
            prompt_tokens=prompt,
            completion_tokens=completion,
            cached_tokens=cuts[0],
            cache_write_tokens=cuts[1] - cuts[0],
            audio_prompt_tokens=cuts[2] - cuts[1],
            audio_completion_tokens=draw.randint(0, completion) if details else 0,
        )

    yield Usage()
    yield Usage(prompt_tokens=1, completion_tokens=1)
    borders = [tier.above + off for tier in price.tiers for off in (-1, 0, 1)]
    for prompt in (draw.randint(0, 5000), draw.randint(0, 2_000_000), *borders):
        yield usage(prompt, details=False)
        yield usage(prompt, details=True)


@pytest.mark.parametrize("provider", the_file().providers, ids=lambda provider: provider.id)
def test_every_model_costs_what_genai_prices_says(provider: Provider, their_cost: Any) -> None:
    priced = [(model.id, model.price) for model in provider.models if model.price is not None]
    assert priced
    for model, price in priced:
        for usage in some_usages(price, random.Random(f"{provider.id} {model}")):
            theirs, is_whole = their_cost(provider.id, model, usage)
            if is_whole:
                assert price.cost(usage) == ceil(theirs), (model, usage)
            else:  # a price such as 0.04166666: rounded up, by less than a micro-dollar for a million model tokens
                surplus = price.cost(usage) - theirs
                assert -1 <= surplus <= 1 + Fraction(usage.total_tokens, 10**6), (model, usage)


def texts(rule: Rule) -> Iterator[str]:
    yield from (*rule.equals, *rule.starts_with, *rule.ends_with, *rule.contains, *(start for start, _ in rule.regex))
    for group in rule.every:
        for part in group:
            yield from texts(part)


ENDS = ("", "", "-20251211", "-2025-12-11", "-20250231", "-tts", "-latest", ":free", "x")


@pytest.mark.parametrize("provider", the_file().providers, ids=lambda provider: provider.id)
def test_names_mean_the_models_that_genai_prices_takes_them_for(provider: Provider, their_provider: Any) -> None:
    prices = {model.id: model.price for model in provider.models}
    ours, theirs = only(provider.id), their_provider(provider.id)
    draw = random.Random(provider.id)
    for model in provider.models:
        for text in sorted({model.id, *texts(model.match)}):
            name = draw.choice(("", "", "", "us.", "x")) + draw.choice((text, text.upper())) + draw.choice(ENDS)
            expected = theirs.find_model(name)
            assert ours.find(name) == (expected and prices[expected.id]), name
