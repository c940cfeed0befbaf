"""Admission: what a request may use at most, and whether the limits of its token and of the token's parents allow it.

Every request that goes to a provider passes here. A request without limits passes without any work.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from gateway.auth.principal import Principal
from gateway.core.errors import GatewayError, StoreUnavailable
from gateway.core.form_data import FormBody
from gateway.core.json_body import JsonObject
from gateway.core.sound_length import NO_SOUND
from gateway.core.threads import Threads
from gateway.core.upstream_routes import has_no_model
from gateway.inference.models import Admitted, InferenceRequest
from gateway.inference.route_cost import FREE_ENDPOINTS, PAID_AT_ONCE, unknown_cost
from gateway.limits import presentation
from gateway.limits.algorithms import BudgetWindow, Charge, Limit, charges
from gateway.limits.limiter import Limiter, ReservationRefused
from gateway.limits.matching import CapacityRequest, LimitChain, applicable_limits
from gateway.limits.models import Amounts, Counter, LimitKind
from gateway.limits.store import CounterStore, CounterStoreUnavailable, LimitExceeded, Reservation, decide
from gateway.observability.metrics import RefusalReason
from gateway.providers.base import ProviderRequest
from gateway.routing.catalog import Target
from gateway.usage.estimate import (
    DEFAULT_CONTEXT_WINDOW,
    MAX_OUTPUT_TOKENS,
    UNIT_ENDPOINTS,
    Bounds,
    estimate_bounds,
)
from gateway.usage.models import Usage
from gateway.usage.pricing.prices import FREE, Price

_REASONS: Mapping[LimitKind, RefusalReason] = MappingProxyType(
    {
        LimitKind.REQUESTS: "requests",
        LimitKind.TOKENS: "tokens",
        LimitKind.PARALLEL: "parallel",
        LimitKind.BUDGET: "budget",
    }
)


_READING = frozenset({"GET", "HEAD", "DELETE"})


LARGE_BODY_BYTES = 256 * 1024
"""A body of so many bytes is estimated in a thread."""


class AdmissionRules(NamedTuple):
    """``completion_tokens`` is the estimate for a response that the request does not bound. ``queue_seconds`` is how long a
    request waits, at most, until other requests give back capacity."""

    completion_tokens: int
    queue_seconds: float


class DryRun(NamedTuple):
    """Whether a request would pass: ``exceeded`` is None if so. ``tightest`` is the limit of which the smallest part remains."""

    exceeded: LimitExceeded | None
    tightest: tuple[Limit, Counter] | None


class Admission:
    """Reserves capacity by prices, estimates and counters."""

    def __init__(
        self,
        limiter: Limiter,
        counters: CounterStore,
        rules: AdmissionRules,
        on_refused: Callable[[RefusalReason], None],
    ) -> None:
        self.limiter = limiter
        self._counters = counters
        self._rules = rules
        self._on_refused = on_refused
        self._threads = Threads("estimates")

    async def reserve(self, principal: Principal, asked: InferenceRequest, target: Target, now: int) -> Admitted:
        """Reserves what the request may use, waiting for its turn if the limits allow that.

        ``now`` is in milliseconds since the epoch. Raises RateLimited, TokensLimited, QuotaExceeded, StoreUnavailable.
        """
        request, max_wait = asked.request, asked.max_wait
        price = request_price(request, target)
        chain, is_free = principal.limits, price == FREE
        if not chain.sets:
            return Admitted(price, None, None)
        limits = applicable_limits(chain, target.names, now, is_free=is_free)
        if not limits:
            return Admitted(price, None, None)
        bounds, amounts = await self._estimate(limits, request, price)
        longest = self._rules.queue_seconds
        wait = longest if max_wait is None else min(max_wait, longest)
        token_id = principal.secret_match.record.id if principal.secret_match is not None else ""
        known = charges(limits, amounts)
        capacity = CapacityRequest(token_id, chain, target.names, amounts, is_free, known)
        reservation = await self._reserve(capacity, wait, principal, now)
        if bounds is None:
            return Admitted(price, reservation, None)
        return Admitted(price, reservation, bounds.estimate, bounds.tokens)

    async def _reserve(self, capacity: CapacityRequest, wait: float, principal: Principal, now: int) -> Reservation:
        try:
            return await self.limiter.reserve(capacity, wait, now)
        except ReservationRefused as refused:
            exceeded = refused.limit_exceeded
            self._on_refused("queue_full" if refused.is_queue_full else _REASONS[exceeded.charge.limit.kind])
            raise _limit_error(exceeded, principal.names, refused.is_queue_full) from None
        except CounterStoreUnavailable:
            self._on_refused("store")
            raise _store_unavailable() from None

    async def _estimate(
        self, limits: Sequence[Limit], request: ProviderRequest, price: Price | None
    ) -> tuple[Bounds | None, Amounts]:
        """Raises QuotaExceeded where there is a budget and nobody knows what the request costs: it could be anything."""
        needs_estimate = has_budget = False
        for limit in limits:
            needs_estimate = needs_estimate or limit.needs_estimate
            has_budget = has_budget or limit.kind is LimitKind.BUDGET
        if not needs_estimate:
            return None, Amounts()
        fields = request.fields if isinstance(request.fields, JsonObject) else None
        if has_budget:
            self._refuse_unknown_cost(request, price, fields)
        window = None if price is None else price.context_window
        default = self._rules.completion_tokens
        sound = request.body.sound if isinstance(request.body, FormBody) else NO_SOUND
        if fields is None or len(fields.body) < LARGE_BODY_BYTES:
            bounds = estimate_bounds(request.path, fields, default, window, sound)
        else:  # it is searched from end to end several times, and other requests shall go on meanwhile
            bounds = await self._threads.run(estimate_bounds, request.path, fields, default, window, sound)
        used, most, least = bounds.tokens, bounds.money, bounds.least
        cost, least_cost = price.costs(most, least) if has_budget and price else (0, 0)
        tokens = used.prompt_tokens + used.completion_tokens
        least_tokens = least.prompt_tokens + least.completion_tokens
        return bounds, Amounts(tokens, min(least_tokens, tokens), cost, min(cost, least_cost))

    def _refuse_unknown_cost(self, request: ProviderRequest, price: Price | None, fields: JsonObject | None) -> None:
        """Raises QuotaExceeded where the gateway cannot know what the response costs."""
        is_plain = request.path not in UNIT_ENDPOINTS and (fields is None or "background" not in fields.raw_values)
        if is_plain and price is not None:
            return
        if error := unknown_cost(request, price, fields):
            self._on_refused("price")
            raise error

    async def check(self, principal: Principal, request: ProviderRequest, target: Target, tokens: int | None) -> DryRun:
        """Returns whether a request would pass now, without making it. ``tokens`` takes the place of the estimate.

        Raises QuotaExceeded for a model without a price, StoreUnavailable.
        """
        price, now = request_price(request, target), self.limiter.now()
        limits = applicable_limits(principal.limits, target.names, now)
        if any(isinstance(limit, BudgetWindow) for limit in limits) and (error := unknown_cost(request, price, None)):
            raise error
        most = Usage(completion_tokens=self._rules.completion_tokens if tokens is None else tokens)
        least = Usage(completion_tokens=1 if tokens is None else tokens)
        costs = (price.cost(_longest(price) if tokens is None else most), price.cost(least)) if price else (0, 0)
        applicable = applicable_limits(principal.limits, target.names, now, is_free=price == FREE)
        wanted = charges(applicable, Amounts(most.total_tokens, least.total_tokens, *costs))
        if not wanted:
            return DryRun(None, None)
        counters = await self._read(wanted, now)
        outcome = decide(wanted, counters, now)
        known = [(charge.limit, counter) for charge, counter in zip(wanted, counters, strict=True)]
        tightest = min(known, key=lambda one: one[0].remaining(one[1]) / one[0].size)
        return DryRun(outcome if isinstance(outcome, LimitExceeded) else None, tightest)

    async def current_usage(self, chain: LimitChain) -> list[tuple[Limit, Counter]]:
        """Returns each limit of a chain of tokens, whatever the model, and its counter. Raises StoreUnavailable."""
        now = self.limiter.now()
        patterns = dict.fromkeys(pattern for _, limits in chain.sets for pattern, _ in limits.models)
        found = {
            (limit.token_id, limit.name): limit
            for models in ((), *((pattern,) for pattern in patterns))
            for limit in applicable_limits(chain, models, now)
        }
        counters = await self._read([Charge(limit, 0, 0) for limit in found.values()], now)
        return list(zip(found.values(), counters, strict=True))

    async def _read(self, wanted: Sequence[Charge], now: int) -> list[Counter]:
        try:
            return await self._counters.read(wanted, now)
        except CounterStoreUnavailable:
            raise _store_unavailable() from None


def request_price(request: ProviderRequest, target: Target) -> Price | None:
    """Returns the price of a request, None where nobody knows it. Test tokens cost nothing, and reading does not either."""
    if target.is_test or (request.body is None and request.method in _READING):
        return FREE
    if request.method == "POST" and (
        request.path in FREE_ENDPOINTS or (request.model is None and has_no_model(request.path))
    ):
        return FREE
    if request.method != "POST" or request.path not in PAID_AT_ONCE:
        return None
    return target.price


def _longest(price: Price) -> Usage:
    """Returns the usage of the longest response."""
    return Usage(completion_tokens=min(price.context_window or DEFAULT_CONTEXT_WINDOW, MAX_OUTPUT_TOKENS))


def _limit_error(exceeded: LimitExceeded, names: Mapping[str, str], is_queue_full: bool) -> GatewayError:
    error = presentation.limit_error(exceeded, names, is_queue_full)
    error.headers = {**presentation.rate_limit_headers(exceeded.charges, exceeded.counters), **error.headers}
    return error


def _store_unavailable() -> StoreUnavailable:
    return StoreUnavailable("What this token has used cannot be read at the moment.")
