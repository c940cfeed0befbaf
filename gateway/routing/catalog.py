"""The models that clients may ask for: their names upstream, their provider and their price."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from gateway.auth.principal import Principal
from gateway.core.errors import ModelNotFound
from gateway.providers.base import Provider
from gateway.usage.pricing.prices import FREE, Price, PriceList

_MAX_KNOWN = 1024
"""Targets that are kept. Names are whatever clients send, so neither their number nor their length may grow without bound."""
_MAX_KNOWN_LENGTH = 256
_DATE = re.compile(r"[-@]\d[\d-]{3,9}$")
"""What providers put behind the name of a model: ``-2024-07-18``, ``-20241022``, ``-0613``."""
_ECHO = "echo"
"""The name of the offline provider, and of its model."""


class Target(NamedTuple):
    """Where a request goes. Without a model it is a request that names none."""

    provider: Provider
    model: str | None
    """The name that the provider has for the model."""
    names: tuple[str, ...]
    """Every name of the model: the client's, and the provider's where that is another one. Limits match any of them."""
    price: Price | None
    """None where nobody knows it."""
    is_test: bool
    """Whether the offline provider answers for a test token: then it costs nothing."""
    is_renamed: bool = False
    """Whether the provider has another name for the model than the client."""


class Catalog:
    """One provider with every model it has, the aliases that the operator gave them, and the offline provider for tests."""

    def __init__(
        self, provider: Provider, test_provider: Provider, aliases: Mapping[str, str], prices: PriceList
    ) -> None:
        """``aliases`` are from the names that clients use to those of the provider."""
        self._provider = provider
        self._test_provider = test_provider
        self._aliases = aliases
        self._prices = prices
        self._targets: dict[tuple[str, bool], Target] = {}
        self._client_names: dict[str, str] = {}
        for alias, real in aliases.items():
            self._client_names.setdefault(real, alias)

    @property
    def has_aliases(self) -> bool:
        """Whether clients have other names for some models."""
        return bool(self._aliases)

    def client_name(self, name: str) -> str | None:
        """Returns the first alias of a model by the provider's name for it, which may be a dated one; None where it has none."""
        if name in self._aliases:
            return None
        return self._client_names.get(name) or self._client_names.get(_DATE.sub("", name))

    def provider_for(self, principal: Principal) -> Provider:
        """Returns the provider that answers this caller: test tokens never reach a model."""
        return self._test_provider if principal.is_test else self._provider

    def resolve(self, principal: Principal, model: str | None) -> Target:
        """Returns where a request for ``model`` goes. Any name resolves: the provider knows which of them it has."""
        if model is None:
            return Target(self.provider_for(principal), None, (), None, principal.is_test)
        known = self._targets.get((model, principal.is_test))
        if known is not None:
            return known
        target = self._resolve(principal, model)
        if len(self._targets) < _MAX_KNOWN and len(model) <= _MAX_KNOWN_LENGTH:
            self._targets[model, principal.is_test] = target
        return target

    def _resolve(self, principal: Principal, model: str) -> Target:
        provider = self.provider_for(principal)
        real = self._aliases.get(model, model)
        # The model's own name goes before the client's name for it.
        price = self._find_price(real)
        if real == model:
            return Target(provider, model, (model,), price, principal.is_test)
        is_test = principal.is_test
        return Target(provider, real, (model, real), price or self._find_price(model), is_test, is_renamed=not is_test)

    def _find_price(self, model: str) -> Price | None:
        """Returns the price of a model; FREE for what costs nothing.

        Only the operator's own table, or the offline provider, makes a model free: a client could choose a name that the packaged
        prices have as free, and the upstream answer from whatever model it has.
        """
        if self._provider.name == _ECHO and model.lower() == _ECHO:
            return FREE
        price = self._prices.find(model)
        if price is None or not price.is_free:
            return price
        return FREE if self._prices.find_set(model) is not None else None

    async def models(self, principal: Principal) -> list[dict[str, Any]]:
        """Returns OpenAI's objects of the models that this caller may use, aliases among them."""
        if principal.has_no_models:
            return []
        found = await self.provider_for(principal).models()
        known = {model["id"]: model for model in found}
        for alias, real in self._aliases.items():
            created = known.get(real, {}).get("created", 0)
            known[alias] = {"id": alias, "object": "model", "created": created, "owned_by": "gateway"}
        return [model for name, model in known.items() if principal.may_use(name)]

    async def model(self, principal: Principal, name: str) -> dict[str, Any]:
        """Returns the object of one model. Raises ModelNotFound."""
        for model in await self.models(principal):
            if model["id"] == name:
                return model
        raise ModelNotFound(name)
