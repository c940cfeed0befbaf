"""The use case of admission: what a request would use at most, and whether the limits of its token and of the token's parents
allow it. Everything that goes to an upstream passes here; a request without limits passes without any work."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from gateway.auth.principal import Principal
from gateway.core.errors import GatewayError, QuotaExceeded, StoreUnavailable
from gateway.core.json_body import JsonObject
from gateway.inference.usage_tracker import Granted
from gateway.limits import presentation
from gateway.limits.algorithms import Amounts, BudgetWindow, Charge, Counter, Limit, LimitKind
from gateway.limits.limiter import Limiter, ReservationRefused
from gateway.limits.matching import CapacityRequest, LimitChain, ModelNames, applicable_limits, charges
from gateway.limits.store import CounterStore, CounterStoreUnavailable, LimitExceeded, Reservation, decide
from gateway.observability.metrics import RefusalReason
from gateway.providers.base import ProviderRequest
from gateway.usage.estimate import estimate
from gateway.usage.models import Usage
from gateway.usage.pricing.prices import FREE, Price, PriceList

NoteRefusal = Callable[[RefusalReason], None]
_REASONS: Mapping[LimitKind, RefusalReason] = MappingProxyType(
    {
        LimitKind.REQUESTS: "requests",
        LimitKind.TOKENS: "tokens",
        LimitKind.PARALLEL: "parallel",
        LimitKind.BUDGET: "budget",
    }
)

_FREE_ENDPOINTS = frozenset({"files", "uploads", "moderations"})
"""What providers take no money for, although it is sent to them."""
_PAID_AT_ONCE = frozenset({"chat", "completions", "embeddings", "responses", "rerank", "images", "audio", "messages"})
"""Where the answer to a request is what it costs. Of batches, runs and jobs the cost comes later, and nobody would see it."""


class AdmissionRules(NamedTuple):
    """``aliases`` of models; ``completion_tokens`` is the guess for an answer that the request does not bound;
    ``queue_seconds`` the longest wait for what other requests hold."""

    aliases: Mapping[str, str]
    completion_tokens: int
    queue_seconds: float


class DryRun(NamedTuple):
    """Whether a request would pass: ``refusal`` is None if so. ``tightest`` is the limit of which the smallest part is left."""

    refusal: LimitExceeded | None
    tightest: tuple[Limit, Counter] | None


class Admission:
    """Decides by prices, estimates and counters."""

    def __init__(
        self,
        limiter: Limiter,
        counters: CounterStore,
        prices: PriceList,
        rules: AdmissionRules,
        note_refusal: NoteRefusal,
    ) -> None:
        self.limiter = limiter
        self._counters = counters
        self._prices = prices
        self._rules = rules
        self._note_refusal = note_refusal

    def price(self, principal: Principal, request: ProviderRequest) -> Price | None:
        """None where nobody knows it. Test tokens cost nothing. The model's own name goes before the client's name for it."""
        if principal.is_test or request.method != "POST":
            return FREE
        endpoint = request.path.partition("/")[0]
        if request.model is None:
            return FREE if endpoint in _FREE_ENDPOINTS else None
        if endpoint not in _PAID_AT_ONCE and endpoint not in _FREE_ENDPOINTS:
            return None
        real = self._rules.aliases.get(request.model)
        return (real and self._prices.find(real)) or self._prices.find(request.model)

    async def admit(self, principal: Principal, request: ProviderRequest, max_wait: float | None) -> Granted:
        """``max_wait`` in seconds is how long the client will wait, if it says so.

        Raises RateLimited, TokensLimited, QuotaExceeded, StoreUnavailable.
        """
        price = self.price(principal, request)
        return Granted(price, await self._reserve(principal, request, price, max_wait))

    async def _reserve(
        self, principal: Principal, request: ProviderRequest, price: Price | None, max_wait: float | None
    ) -> Reservation | None:
        line, names = principal.limits, self._names(request.model)
        if not line or not (limits := applicable_limits(line, names, self.limiter.now(), is_free=price == FREE)):
            return None
        try:
            wanted = self._amounts(limits, request, price)
        except QuotaExceeded:
            self._note_refusal("price")
            raise

        longest = self._rules.queue_seconds
        try:
            return await self.limiter.reserve(
                CapacityRequest(principal.token_id or "", line, names, wanted, price == FREE),
                longest if max_wait is None else min(max_wait, longest),
            )
        except ReservationRefused as reached:
            exceeded = reached.limit_exceeded
            self._note_refusal("queue_full" if reached.is_queue_full else _REASONS[exceeded.charge.limit.kind])
            raise _refused(exceeded, principal.names, reached.is_queue_full) from None
        except CounterStoreUnavailable:
            self._note_refusal("store")
            raise _down() from None

    def _amounts(self, limits: Sequence[Limit], request: ProviderRequest, price: Price | None) -> Amounts:
        """Raises QuotaExceeded where there is a budget and nobody knows what the request costs: it could be anything."""
        if not any(limit.needs_estimate for limit in limits):
            return Amounts()
        has_budget = _has_budget(limits)
        fields = request.fields if isinstance(request.fields, JsonObject) else None
        if has_budget:
            _refuse_unknown_cost(request, price, fields)
        found = estimate(request.path, fields)
        most = Usage(found.prompt, found.completion_or(self._rules.completion_tokens))
        least = Usage(found.min_prompt, found.min_completion)
        money, cost_minimum = (price.cost(most), price.cost(least)) if has_budget and price else (0, 0)
        return Amounts(most.total_tokens, min(least.total_tokens, most.total_tokens), money, min(money, cost_minimum))

    def _names(self, model: str | None) -> ModelNames:
        if model is None:
            return ()
        real = self._rules.aliases.get(model)
        return (model,) if real is None else (model, real)

    async def check(self, principal: Principal, request: ProviderRequest, tokens: int | None) -> DryRun:
        """Whether a request would pass now, without making it. ``tokens`` takes the place of the estimate.

        Raises QuotaExceeded for a model without a price, StoreUnavailable.
        """
        price = self.price(principal, request)
        now = self.limiter.now()
        limits = applicable_limits(principal.limits, self._names(request.model), now)
        self._amounts(limits, request, price)
        most = Usage(completion_tokens=self._rules.completion_tokens if tokens is None else tokens)
        least = Usage(completion_tokens=1 if tokens is None else tokens)
        money = (price.cost(most), price.cost(least)) if price else (0, 0)
        applicable = applicable_limits(principal.limits, self._names(request.model), now, is_free=price == FREE)
        wanted = charges(applicable, Amounts(most.total_tokens, least.total_tokens, *money))
        if not wanted:
            return DryRun(None, None)
        try:
            levels = await self._counters.read(wanted, now)
        except CounterStoreUnavailable:
            raise _down() from None
        outcome = decide(wanted, levels, now)
        known = [(charge.limit, level) for charge, level in zip(wanted, levels, strict=True)]
        tightest = min(known, key=lambda one: one[0].remaining(one[1]) / one[0].size)
        return DryRun(outcome if isinstance(outcome, LimitExceeded) else None, tightest)

    async def current_usage(self, line: LimitChain) -> list[tuple[Limit, Counter]]:
        """Each limit of a line of tokens, whatever the model, and its level. Raises StoreUnavailable."""
        now = self.limiter.now()
        patterns = dict.fromkeys(pattern for _, limits in line.sets for pattern, _ in limits.models)
        found = {
            (limit.token_id, limit.name): limit
            for models in ((), *((pattern,) for pattern in patterns))
            for limit in applicable_limits(line, models, now)
        }
        asked = [Charge(limit, 0, 0) for limit in found.values()]
        try:
            levels = await self._counters.read(asked, now)
        except CounterStoreUnavailable:
            raise _down() from None
        return list(zip(found.values(), levels, strict=True))


def _has_budget(limits: Sequence[Limit]) -> bool:
    return any(isinstance(limit, BudgetWindow) for limit in limits)


def _refused(refusal: LimitExceeded, names: Mapping[str, str], is_queue_full: bool) -> GatewayError:
    error = presentation.limit_error(refusal, names, is_queue_full)
    error.headers = {**presentation.rate_limit_headers(refusal.charges, refusal.counters), **error.headers}
    return error


def _refuse_unknown_cost(request: ProviderRequest, price: Price | None, fields: JsonObject | None) -> None:
    """Where there is a budget, nothing may pass of which nobody knows what it costs. Raises QuotaExceeded."""
    if fields is not None and fields.get("background"):
        raise QuotaExceeded(
            "This token has a budget, and an answer in the background is not seen to cost anything. Send it without "
            "`background`.",
            param="background",
        )
    if price is not None:
        return
    named = "a request without a model" if request.model is None else f"the model {request.model[:100]!r}"
    if request.model is not None and request.path.partition("/")[0] not in _PAID_AT_ONCE:
        named = f"a request to /v1/{request.path[:100]}"
    raise QuotaExceeded(
        f"This token has a budget, and nobody knows what {named} costs. Whoever runs the gateway can say so in the file that "
        'GATEWAY_CONFIG names: [prices."model-name"], then input = 0.15 and output = 0.60 (USD for a million tokens).',
        param="model",
    )


def _down() -> StoreUnavailable:
    return StoreUnavailable("What this token has used cannot be read at the moment.")
