"""Write ``gateway/usage/pricing/prices.json`` out of the installed genai-prices package. Run from the root: no network is used.

What the file holds, and what it leaves out:

* The standard price that holds on the day ``--as-of`` (today). Prices that are announced for later days are not in it,
  and neither are those of certain hours of the day, or of a request's context such as its service tier or a batch.
* Prices of model tokens, and for a request. Searches and other tools are not counted, because answers do not tell.
* A detail that the gateway does not count (images, reasoning, ...) costs as much as its direction does. Where that would
  be too little, the model has no price at all. One exception: cache writes cost what the provider's usual one does, also
  where a longer-lived one costs more.
* A model without a price stays in the list only to hide those behind it that its rule fits, too.
"""

import argparse
import datetime
import re
import sys
from collections import Counter
from collections.abc import Iterable
from decimal import ROUND_CEILING, Decimal
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import genai_prices.data
import msgspec
from genai_prices import types as genai

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from gateway.usage.pricing.matching import Rule  # noqa: E402
from gateway.usage.pricing.prices import FREE, Price, PricedModel, PriceFile, Provider, Tier  # noqa: E402

MAKERS = "openai anthropic google mistral deepseek x-ai cohere perplexity moonshotai meta minimax zai zhipuai voyageai"
HOSTS = "groq cerebras aws azure databricks cloudflare"
AGGREGATORS = "openrouter together fireworks baseten novita"
ORDER = f"{MAKERS} {HOSTS} {AGGREGATORS}".split()

KEYS = {
    "input_mtok": "input",
    "output_mtok": "output",
    "cache_read_mtok": "cached_input",
    "cache_write_mtok": "cache_write",
    "input_audio_mtok": "audio_input",
    "output_audio_mtok": "audio_output",
}
NOT_COUNTED = frozenset(
    {"web_searches_kcount", "storage_searches_kcount", "social_searches_kcount", "code_executions_kcount"}
)
USUAL_CACHE_WRITE = re.compile("cache_write_(5m|1h)_mtok")
NOISE = Decimal("1e-12")
"""Below it a price differs from the meant one only because somebody computed with binary fractions."""
LITERAL = re.compile(r"\^((?:[a-z0-9/@_-]|\\[.\[\]-])*)(?![?*+{])")


class Unpriceable(ValueError):
    """A price that the file cannot hold. The text says why."""


class Made(NamedTuple):
    """The bytes of the file, and how many models have no price, by reason."""

    data: bytes
    skipped: Counter[str]
    priced: int


def make(as_of: datetime.date) -> Made:
    """The same package and day make the same bytes."""
    find_by_id = {provider.id: provider for provider in genai_prices.data.providers}
    skipped: Counter[str] = Counter()
    providers = tuple(
        Provider(name, tuple(read_model(model, as_of, skipped) for model in find_by_id[name].models)) for name in ORDER
    )
    for name, provider in find_by_id.items():
        if name not in ORDER:
            skipped["of a provider that is not taken in"] += len(provider.models)
    source = f"genai-prices {version('genai-prices')}"
    priced = sum(model.price is not None for provider in providers for model in provider.models)
    return Made(encode(PriceFile(source, as_of.isoformat(), providers)), skipped, priced)


def encode(file: PriceFile) -> bytes:
    """JSON with a line for each model, so that a change of one price is a change of one line."""
    head = f'{{"source":"{file.source}","as_of":"{file.as_of}","providers":[\n'
    blocks = []
    for provider in file.providers:
        models = ",\n".join(msgspec.json.encode(model).decode() for model in provider.models)
        blocks.append(f'{{"id":"{provider.id}","models":[\n{models}\n]}}')
    return (head + ",\n".join(blocks) + "\n]}\n").encode()


def read_model(model: genai.ModelInfo, as_of: datetime.date, skipped: Counter[str]) -> PricedModel:
    price = None
    try:
        price = msgspec.structs.replace(
            read_price(model, standard(model, as_of)), context_window=model.context_window or None
        )
    except Unpriceable as why:
        skipped[str(why)] += 1
    return PricedModel(model.id, read_rule(model.match), price)


def standard(model: genai.ModelInfo, as_of: datetime.date) -> genai.ModelPrice:
    """Later ones come first, as when genai-prices looks; the first of all is for when none of them holds."""
    if isinstance(model.prices, genai.ModelPrice):
        return model.prices
    for each in reversed(model.prices):
        start = each.constraint
        if start is None or (isinstance(start, genai.StartDateConstraint) and start.start_date <= as_of):
            return each.prices
    return model.prices[0].prices


def read_price(model: genai.ModelInfo, found: genai.ModelPrice) -> Price:
    """Raises Unpriceable."""
    prices = {key: price for key, price in vars(found).items() if price is not None and key not in NOT_COUNTED}
    if not prices:
        if model.id.endswith(":free"):
            return FREE
        raise Unpriceable("no price is given")
    if "input_mtok" not in prices:
        raise Unpriceable("not priced by input tokens")
    tiered = [price for price in prices.values() if isinstance(price, genai.TieredPrices)]
    starts = sorted({tier.start for price in tiered for tier in price.tiers})
    base, *higher = (_flat({key: _at(price, start) for key, price in prices.items()}) for start in (None, *starts))
    return msgspec.structs.replace(
        base, tiers=tuple(Tier(start, price) for start, price in zip(starts, higher, strict=True))
    )


def _at(price: Decimal | genai.TieredPrices, start: int | None) -> Decimal:
    """What holds above a length of prompt; of the lengths that it exceeds, the longest counts."""
    if isinstance(price, Decimal):
        return price
    return [price.base, *(tier.price for tier in price.tiers if start is not None and tier.start <= start)][-1]


def _flat(prices: dict[str, Decimal]) -> Price:
    """The price of requests of one length."""
    for key, price in prices.items():
        if key in KEYS or key == "requests_kcount" or USUAL_CACHE_WRITE.fullmatch(key):
            continue
        ordinary = _ordinary(key)
        if ordinary is None:
            raise Unpriceable(f"partly priced by {key}")
        if price > prices.get(ordinary, 0):
            raise Unpriceable(f"{key} is dearer than {ordinary}, and not counted")
    cached_audio = prices.get("cache_audio_read_mtok", Decimal(0))
    if cached_audio and cached_audio + prices["input_mtok"] > prices["cache_read_mtok"] + prices["input_audio_mtok"]:
        raise Unpriceable("cached audio is dearer than audio")
    known = {KEYS[key]: _micro_usd(price) for key, price in prices.items() if key in KEYS}
    requests = _micro_usd(prices.get("requests_kcount", Decimal(0)))
    return msgspec.convert({"output": 0, **known, "requests": requests}, type=Price)


def _ordinary(key: str) -> str | None:
    """The price that is taken for model tokens of a kind that the gateway does not tell from others."""
    if not key.endswith("_mtok"):
        return None
    if key.startswith("cache_audio_"):
        return "input_audio_mtok"
    if key.startswith("cache_"):
        return "cache_read_mtok" if "_read_" in key else "cache_write_mtok"
    return "output_mtok" if key.startswith("output_") else "input_mtok"


def _micro_usd(price: Decimal) -> int:
    return int((price.quantize(NOISE) * 1_000_000).to_integral_value(ROUND_CEILING))


def read_rule(clause: genai.MatchLogic) -> Rule:
    """An ``or`` of clauses is one rule."""
    match clause:
        case genai.ClauseEquals():
            return Rule(equals=(clause.equals.lower(),))
        case genai.ClauseStartsWith():
            return Rule(starts_with=(clause.starts_with.lower(),))
        case genai.ClauseEndsWith():
            return Rule(ends_with=(clause.ends_with.lower(),))
        case genai.ClauseContains():
            return Rule(contains=(clause.contains.lower(),))
        case genai.ClauseRegex():
            return Rule(regex=((literal_start(clause.regex), clause.regex),))
        case genai.ClauseAnd():
            return Rule(every=(tuple(read_rule(part) for part in clause.and_),))
        case genai.ClauseOr():
            return _any_of([read_rule(part) for part in clause.or_])
    raise TypeError(f"unknown clause {clause!r}")


def _any_of(rules: list[Rule]) -> Rule:
    return Rule(
        equals=_together(rule.equals for rule in rules),
        starts_with=_together(rule.starts_with for rule in rules),
        ends_with=_together(rule.ends_with for rule in rules),
        contains=_together(rule.contains for rule in rules),
        regex=tuple(sorted(set(chain.from_iterable(rule.regex for rule in rules)))),
        every=tuple(chain.from_iterable(rule.every for rule in rules)),
    )


def _together(texts: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(sorted(set(chain.from_iterable(texts))))


def literal_start(regex: str) -> str:
    """The text that whatever fits begins with, as far as it is plain to see."""
    found = LITERAL.match(regex)
    if found is None or "|" in re.sub(r"\([^()]*\)", "", regex):
        return ""
    return found[1].replace("\\", "")


def main() -> None:
    parser = argparse.ArgumentParser(description="Write gateway/usage/pricing/prices.json.")
    parser.add_argument("--as-of", type=datetime.date.fromisoformat, default=datetime.datetime.now(datetime.UTC).date())
    made = make(parser.parse_args().as_of)
    (ROOT / "gateway" / "usage" / "pricing" / "prices.json").write_bytes(made.data)
    lines = [f"{made.priced} models priced, {len(made.data)} bytes", f"{made.skipped.total()} without a price:"]
    lines += [f"{count:6} {why}" for why, count in made.skipped.most_common()]
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
