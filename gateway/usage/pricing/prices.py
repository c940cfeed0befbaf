"""Prices of models, the list in which they are found, and the table of the configuration that overrides them. Pure.

Money is in whole micro-dollars, and a price in whole micro-dollars for a million model tokens, so sums are exact.
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
_CACHED_NAMES = 1024
_MAX_CACHED_NAME = 256
_REQUIRED = ("input", "output")
_OPTIONAL = ("cached_input", "cache_write", "audio_input", "audio_output")
_PER_UNIT: Mapping[str, int] = MappingProxyType(
    {"request": 1000, "image": 1, "character": _MILLION, "second": _MILLION}
)
"""Prices in USD for one, and of how many units the price is kept."""
_KEYS = (*_REQUIRED, *_OPTIONAL, *_PER_UNIT, "context_window")
_MAX_CONTEXT_WINDOW = 10**9
_MAX_USD = 1_000_000


class Price(msgspec.Struct, frozen=True, omit_defaults=True):
    """Micro-dollars for a million model tokens. A detail without its own price costs as much as other input or output."""

    input: int
    output: int
    cached_input: int | None = None
    cache_write: int | None = None
    audio_input: int | None = None
    audio_output: int | None = None
    requests: int = 0
    """Micro-dollars for a thousand requests, in addition."""
    image: int | None = None
    """Micro-dollars for an image that is made, in addition."""
    character: int | None = None
    """Micro-dollars for a million characters that are spoken, in addition."""
    second: int | None = None
    """Micro-dollars for a million seconds of sound that are transcribed, in addition."""
    context_window: int | None = None
    """The most tokens that the model can read and write at once; None where that is not known."""
    tiers: tuple["Tier", ...] = ()
    """Other prices for longer prompts, the shortest first."""

    @property
    def is_free(self) -> bool:
        """Whether nothing that a request can use costs anything."""
        amounts = (
            self.input, self.output, self.cached_input, self.cache_write, self.audio_input, self.audio_output, self.requests,
            self.image, self.character, self.second,
        )  # fmt: skip
        return not any(amounts) and all(tier.price.is_free for tier in self.tiers)

    def cost(self, usage: Usage) -> int:
        """Returns what the usage costs in micro-dollars, rounded up. Details beyond the sum of tokens cost nothing."""
        price = self._for_prompt(usage.prompt_tokens) if self.tiers else self
        sums = price._prompt(usage) + price._completion(usage) + price.requests * 1000
        if usage.images or usage.characters or usage.seconds:
            sums += usage.images * (self.image or 0) * _MILLION + usage.characters * (self.character or 0)
            sums += usage.seconds * (self.second or 0)
        return -(-sums // _MILLION)

    def costs(self, *usages: Usage) -> tuple[int, ...]:
        """Returns what each usage costs in micro-dollars."""
        return tuple([self.cost(usage) for usage in usages])

    def _for_prompt(self, prompt_tokens: int) -> "Price":
        """Returns the price of the last tier that the prompt exceeds. It is the price of all tokens of the request."""
        return next((tier.price for tier in reversed(self.tiers) if prompt_tokens > tier.above), self)

    def _prompt(self, usage: Usage) -> int:
        if not (usage.audio_prompt_tokens or usage.cache_write_tokens or usage.cached_tokens):
            return max(usage.prompt_tokens, 0) * self.input
        # Audio that was read from the cache cannot be told from other audio: it counts as audio, which is never too little.
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
    """The price of a request whose prompt has more than ``above`` model tokens."""

    above: int
    price: Price


def _sum(tokens: int, price: int, parts: tuple[tuple[int | None, int], ...]) -> int:
    """Returns millionths of a micro-dollar. Parts are taken from the tokens in their order, as long as any are left."""
    left, total = max(tokens, 0), 0
    for part_price, count in parts:
        if part_price is not None:
            taken = min(max(count, 0), left)
            left -= taken
            total += taken * part_price
    return total + left * price


FREE = Price(input=0, output=0)


class PricedModel(msgspec.Struct, frozen=True):
    """A model of a provider. Without a price it still hides the models after it that its rule matches as well."""

    id: str
    match: Rule
    price: Price | None


class Provider(msgspec.Struct, frozen=True):
    """A provider's models. A name means the first one whose rule matches."""

    id: str
    models: tuple[PricedModel, ...]


class PriceFile(msgspec.Struct, frozen=True):
    """The content of ``prices.json``. Where several providers have a model, the price of the first one counts."""

    source: str
    as_of: str
    """The day whose prices these are."""
    providers: tuple[Provider, ...]


class PriceList:
    """Prices by model name without regard to case: first the overrides, then the packaged prices."""

    def __init__(self, providers: tuple[Provider, ...], overrides: Mapping[str, Price]) -> None:
        named = {name.lower(): price for name, price in overrides.items()}
        self._exact = {name: price for name, price in named.items() if "*" not in name}
        self._patterns = sorted((item for item in named.items() if "*" in item[0]), key=_specificity)
        self._providers = tuple((Matcher(model.match for model in each.models), each.models) for each in providers)
        self._find_cached = lru_cache(maxsize=_CACHED_NAMES)(self._find)

    def find_set(self, model: str) -> Price | None:
        """Returns the price that the operator has set for a model; None where there is only a packaged one, or none."""
        return self._find_override(model.lower())

    def find(self, model: str) -> Price | None:
        """Returns the price of a model; None where it is not known. Among overrides, the exact name counts first, then the
        pattern with the most characters."""
        name = model.lower()
        # No provider has names that long, and a client could fill the cache with them.
        return self._find_override(name) if len(name) > _MAX_CACHED_NAME else self._find_cached(name)

    def _find_override(self, name: str) -> Price | None:
        if name in self._exact:
            return self._exact[name]
        return next((price for pattern, price in self._patterns if wildcards.matches(pattern, name)), None)

    def _find(self, name: str) -> Price | None:
        price = self._find_override(name)
        return self._find_packaged(name) if price is None else price

    def _find_packaged(self, name: str) -> Price | None:
        providers = self._providers
        if (
            "/" in name
        ):  # maker/model, as resellers say: an exact name of a reseller is better than a pattern of the maker
            providers = tuple(sorted(providers, key=lambda provider: not provider[0].has_exact(name)))
        for matcher, models in providers:
            index = matcher.find(name)
            if index is not None and (price := models[index].price) is not None:
                return price
        return None


def _specificity(item: tuple[str, Price]) -> tuple[int, str]:
    return -len(item[0].replace("*", "")), item[0]


def load_prices(data: bytes, overrides: Mapping[str, Price]) -> PriceList:
    """Returns the price list of the bytes of ``prices.json``. Raises msgspec.ValidationError for other bytes."""
    return PriceList(msgspec.json.decode(data, type=PriceFile).providers, overrides)


def packaged_prices() -> bytes:
    """Returns the ``prices.json`` that is packaged with the gateway. Raises OSError."""
    return Path(__file__).with_name("prices.json").read_bytes()


def read_price_table(value: object) -> dict[str, Price]:
    """Returns prices by model name, in which ``*`` stands for anything. The table has USD for a million model tokens, and for
    one request, image, character or second.

    Raises ValueError for anything unexpected: a wrong price is worse than none.
    """
    if not isinstance(value, dict):
        raise ValueError('prices: must be tables such as [prices."my-model*"]')
    found: dict[str, Price] = {}
    seen: set[str] = set()
    for name, table in value.items():
        if not isinstance(name, str) or not name:
            raise ValueError("prices: a model needs a name")
        if name.lower() in seen:
            raise ValueError(f"prices.{name}: appears twice; upper and lower case are the same")
        seen.add(name.lower())
        found[name] = _read_price(name, table)
    return found


def _read_price(name: str, table: object) -> Price:
    if not isinstance(table, dict):
        raise ValueError(f"prices.{name}: must be a table with input and output")
    if unknown := [key for key in table if key not in _KEYS]:
        raise ValueError(f"prices.{name}.{unknown[0]}: is not one of {', '.join(_KEYS)}")
    if missing := [key for key in _REQUIRED if key not in table]:
        raise ValueError(f"prices.{name}.{missing[0]}: is missing")
    amounts = {key: _read_amount(key, f"prices.{name}.{key}", amount) for key, amount in table.items()}
    if "request" in amounts:
        amounts["requests"] = amounts.pop("request")
    return msgspec.convert(amounts, type=Price)


def _read_amount(key: str, field: str, amount: object) -> int:
    if key == "context_window":
        if isinstance(amount, bool) or not isinstance(amount, int) or not 0 < amount <= _MAX_CONTEXT_WINDOW:
            raise ValueError(f"{field}: must be a number of tokens from 1 to {_MAX_CONTEXT_WINDOW}")
        return amount
    if key in _PER_UNIT:
        return _micro_usd(field, amount, f"USD for one {key}", _PER_UNIT[key])
    return _micro_usd(field, amount, "USD for a million model tokens", 1)


def _micro_usd(field: str, amount: object, unit: str, count: int) -> int:
    """Returns the price of ``count`` units in micro-dollars."""
    if isinstance(amount, bool) or not isinstance(amount, int | Decimal):
        raise ValueError(f"{field}: must be a number of {unit}")
    exact = Decimal(amount)
    if not exact.is_finite() or not 0 <= exact <= _MAX_USD:
        raise ValueError(f"{field}: must be from 0 to {_MAX_USD} {unit}")
    decimals = 6 + len(str(count)) - 1
    exponent = exact.as_tuple().exponent
    if not isinstance(exponent, int) or exponent < -decimals:
        raise ValueError(f"{field}: must not have more than {decimals} decimals")
    return int((exact * count).scaleb(6))
