"""The packaged prices, compared with the library that they come from: genai-prices."""

import datetime
import importlib.util
import random
from collections.abc import Callable, Iterator
from decimal import Decimal
from fractions import Fraction
from math import ceil
from pathlib import Path
from typing import Any

import pytest

from gateway.usage.models import Usage
from gateway.usage.pricing.matching import Rule
from gateway.usage.pricing.prices import Price, Provider, packaged_prices
from tests.support.prices import only, price_file

ROOT = Path(__file__).parents[3]


def test_the_file_is_what_the_script_makes() -> None:
    spec = importlib.util.spec_from_file_location("make_prices", ROOT / "scripts" / "make_prices.py")
    assert spec is not None
    assert spec.loader is not None
    script: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    made = script.make(datetime.date.fromisoformat(price_file().as_of))
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
    quiet = datetime.datetime.fromisoformat(f"{price_file().as_of}T18:00:00+00:00")

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


@pytest.mark.parametrize("provider", price_file().providers, ids=lambda provider: provider.id)
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


@pytest.mark.parametrize("provider", price_file().providers, ids=lambda provider: provider.id)
def test_names_mean_the_models_that_genai_prices_takes_them_for(provider: Provider, their_provider: Any) -> None:
    prices = {model.id: model.price for model in provider.models}
    ours, theirs = only(provider.id), their_provider(provider.id)
    draw = random.Random(provider.id)
    for model in provider.models:
        for text in sorted({model.id, *texts(model.match)}):
            name = draw.choice(("", "", "", "us.", "x")) + draw.choice((text, text.upper())) + draw.choice(ENDS)
            expected = theirs.find_model(name)
            assert ours.find(name) == (expected and prices[expected.id]), name
