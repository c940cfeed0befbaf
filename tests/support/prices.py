"""The packaged prices, as tests look them up."""

from functools import cache

import msgspec

from gateway.usage.pricing.prices import PriceFile, PriceList, packaged_prices


@cache
def price_file() -> PriceFile:
    return msgspec.json.decode(packaged_prices(), type=PriceFile)


def only(provider: str) -> PriceList:
    """The prices of one provider."""
    return PriceList(tuple(each for each in price_file().providers if each.id == provider), {})
