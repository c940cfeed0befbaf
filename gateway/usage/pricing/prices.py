"""What model tokens cost: prices, the list they are found in, and the table of a file that overrides them. Pure.

Money is whole micro-dollars, prices whole micro-dollars for a million model tokens: a sum of them is exact.
"""

from collections.abc import Mapping
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType

import msgspec

from gateway.core import wildcards
from gateway.usage.models import Usage
from gateway.usage.pricing.matching import Matcher, Rule

_MILLION = 1_000_000
_REMEMBERED_NAMES = 1024
_LONGEST_NAME = 256
_REQUIRED = ("input", "output")
_OPTIONAL = ("cached_input", "cache_write", "audio_input", "audio_output")
_MOST_USD = 1_000_000


class Price(msgspec.Struct, frozen=True, omit_defaults=True):
    """Micro-dollars for a million model tokens. A detail without a price of its own costs what its kind costs."""

    input: int
    output: int
    cached_input: int | None = None
    cache_write: int | None = None
    audio_input: int | None = None
    audio_output: int | None = None
    requests: int = 0
    """Micro-dollars for a thousand requests, on top."""
    tiers: tuple["Tier", ...] = ()
    """By length of prompt, shortest first."""

    def cost(self, usage: Usage) -> int:
        """Micro-dollars, rounded up. Where the details are more than their sum, the sum is what is paid."""
        price = self._for_prompt(usage.prompt_tokens) if self.tiers else self
        sums = price._prompt(usage) + price._completion(usage) + price.requests * 1000
        return -(-sums // _MILLION)

    def _for_prompt(self, prompt_tokens: int) -> "Price":
        """The whole request costs what the longest length that the prompt exceeds says."""
        return next((tier.price for tier in reversed(self.tiers) if prompt_tokens > tier.above), self)

    def _prompt(self, usage: Usage) -> int:
        if not (usage.audio_prompt_tokens or usage.cache_write_tokens or usage.cached_tokens):
            return max(usage.prompt_tokens, 0) * self.input
        # Audio that was read from the cache cannot be told from other: it counts as audio, which is never too little.
        parts = (
            (self.audio_input, usage.audio_prompt_tokens),
            (self.cache_write, usage.cache_write_tokens),
            (self.cached_input, usage.cached_tokens),
        )
        return _sum(usage.prompt_tokens, self.input, parts)

    def _completion(self, usage: Usage) -> int:
        if not usage.audio_completion_tokens:
            return max(usage.completion_tokens, 0) * self.output
        return _sum(usage.completion_tokens, self.output, ((self.audio_output, usage.audio_completion_tokens),))


class Tier(msgspec.Struct, frozen=True):
    """The price of a request whose prompt holds more model tokens than this."""

    above: int
    price: Price


def _sum(tokens: int, price: int, parts: tuple[tuple[int | None, int], ...]) -> int:
    """Millionths of a micro-dollar. Parts are taken out of the tokens in their order, as far as there are any left."""
    left, total = max(tokens, 0), 0
    for part_price, count in parts:
        if part_price is not None:
            taken = min(max(count, 0), left)
            left -= taken
            total += taken * part_price
    return total + left * price


FREE = Price(input=0, output=0)
_BUILT_IN: Mapping[str, Price] = MappingProxyType({"echo": FREE})


class PricedModel(msgspec.Struct, frozen=True):
    """A model of a provider. Without a price it is known, and hides those behind it that its rule fits, too."""

    id: str
    match: Rule
    price: Price | None


class Provider(msgspec.Struct, frozen=True):
    """The first model whose rule fits a name is meant by it."""

    id: str
    models: tuple[PricedModel, ...]


class PriceFile(msgspec.Struct, frozen=True):
    """``prices.json``. Where several providers have a model, the first one's price counts."""

    source: str
    as_of: str
    """The day whose prices these are."""
    providers: tuple[Provider, ...]


class PriceList:
    """Prices by the name of a model: overrides first, then what is built in. No regard to case."""

    def __init__(self, providers: tuple[Provider, ...], overrides: Mapping[str, Price]) -> None:
        named = {name.lower(): price for name, price in overrides.items()}
        self._exact = {**_BUILT_IN, **{name: price for name, price in named.items() if "*" not in name}}
        self._globs = sorted((item for item in named.items() if "*" in item[0]), key=_least_special_last)
        self._providers = tuple((Matcher(model.match for model in each.models), each.models) for each in providers)
        self._remembered = lru_cache(maxsize=_REMEMBERED_NAMES)(self._find)

    def find(self, model: str) -> Price | None:
        """None where the price is not known. Overrides: the very name, then the glob that says most of it."""
        name = model.lower()
        # No provider has names that long; remembered, they would take a client's word for how much memory there is.
        return self._overridden(name) if len(name) > _LONGEST_NAME else self._remembered(name)

    def _overridden(self, name: str) -> Price | None:
        if name in self._exact:
            return self._exact[name]
        return next((price for pattern, price in self._globs if wildcards.matches(pattern, name)), None)

    def _find(self, name: str) -> Price | None:
        price = self._overridden(name)
        return self._provided(name) if price is None else price

    def _provided(self, name: str) -> Price | None:
        providers = self._providers
        if "/" in name:  # a reseller's maker/model: whoever says this very name knows more than a maker's pattern
            providers = tuple(sorted(providers, key=lambda provider: not provider[0].knows(name)))
        for matcher, models in providers:
            place = matcher.find(name)
            if place is not None and (price := models[place].price) is not None:
                return price
        return None


def _least_special_last(item: tuple[str, Price]) -> tuple[int, str]:
    return -len(item[0].replace("*", "")), item[0]


def load_prices(data: bytes, overrides: Mapping[str, Price]) -> PriceList:
    """The list out of the bytes of ``prices.json``."""
    return PriceList(msgspec.json.decode(data, type=PriceFile).providers, overrides)


def packaged_prices() -> bytes:
    """``prices.json``, as it came with the gateway."""
    return Path(__file__).with_name("prices.json").read_bytes()


def read_price_table(value: object) -> dict[str, Price]:
    """Prices by name of model, ``*`` standing for anything; written in USD for a million model tokens.

    Raises ValueError: a price that is misread is worse than none.
    """
    if not isinstance(value, dict):
        raise ValueError('prices: must be tables such as [prices."my-model*"]')
    found: dict[str, Price] = {}
    seen: set[str] = set()
    for name, table in value.items():
        if not isinstance(name, str) or not name:
            raise ValueError("prices: a model needs a name")
        if name.lower() in seen:
            raise ValueError(f"prices.{name}: is there twice, and case makes no difference")
        seen.add(name.lower())
        found[name] = _read_price(name, table)
    return found


def _read_price(name: str, table: object) -> Price:
    if not isinstance(table, dict):
        raise ValueError(f"prices.{name}: must be a table with input and output")
    if unknown := [key for key in table if key not in (*_REQUIRED, *_OPTIONAL)]:
        raise ValueError(f"prices.{name}.{unknown[0]}: is not one of {', '.join((*_REQUIRED, *_OPTIONAL))}")
    if missing := [key for key in _REQUIRED if key not in table]:
        raise ValueError(f"prices.{name}.{missing[0]}: is missing")
    amounts = {key: _micro_usd(f"prices.{name}.{key}", amount) for key, amount in table.items()}
    return msgspec.convert(amounts, type=Price)


def _micro_usd(field: str, amount: object) -> int:
    if isinstance(amount, bool) or not isinstance(amount, int | Decimal):
        raise ValueError(f"{field}: must be a number of USD for a million model tokens")
    exact = Decimal(amount)
    if not exact.is_finite() or not 0 <= exact <= _MOST_USD:
        raise ValueError(f"{field}: must be from 0 to {_MOST_USD} USD for a million model tokens")
    exponent = exact.as_tuple().exponent
    if not isinstance(exponent, int) or exponent < -6:
        raise ValueError(f"{field}: must not have more than 6 decimals")
    return int(exact.scaleb(6))
