"""Describes limits for clients: errors, ``x-ratelimit-*`` headers, and what remains of each limit. Pure."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import msgspec

from gateway.core.clock import to_iso
from gateway.core.errors import GatewayError, QuotaExceeded, RateLimited, TokensLimited
from gateway.core.money import format_usd
from gateway.limits.algorithms import DEBT_PER_UNIT, Charge, Limit
from gateway.limits.models import Counter, LimitKind
from gateway.limits.store import LimitExceeded

_UNITS: Mapping[LimitKind, str] = MappingProxyType(
    {
        LimitKind.REQUESTS: "requests per min (RPM)",
        LimitKind.TOKENS: "tokens per min (TPM)",
        LimitKind.PARALLEL: "requests at a time",
    }
)


def limit_error(exceeded: LimitExceeded, names: Mapping[str, str], is_queue_full: bool = False) -> GatewayError:
    """Returns the error that a client gets: QuotaExceeded for a budget, TokensLimited, or RateLimited.

    ``names`` has the names of tokens by their ids, the caller's own first, then those of its parents. ``is_queue_full``
    says that the request would have waited, but too many requests of its token do.
    """
    limit = exceeded.charge.limit
    retry_after = None if exceeded.retry_after_ms is None else exceeded.retry_after_ms / 1000
    if limit.kind is LimitKind.BUDGET:
        refusal = QuotaExceeded(_budget_message(exceeded, names), retry_after)
        if exceeded.retry_after_ms is not None:
            refusal.headers = {**refusal.headers, "x-ratelimit-reset-budget": format_duration(exceeded.retry_after_ms)}
        return refusal
    error = TokensLimited if limit.kind is LimitKind.TOKENS else RateLimited
    return error(_rate_message(exceeded, names, is_queue_full), retry_after)


def _rate_message(exceeded: LimitExceeded, names: Mapping[str, str], is_queue_full: bool) -> str:
    charge, counter = exceeded.charge, exceeded.counter
    limit = charge.limit
    used = counter.reserved if limit.kind is LimitKind.PARALLEL else limit.used(counter)
    numbers = f"Limit {limit.size}, Used {used}"
    if counter.reserved and limit.kind is LimitKind.TOKENS:
        numbers += f", Reserved {counter.reserved}"
    message = (
        f"Rate limit reached for {_token(limit, names)} on {_UNITS[limit.kind]}: {numbers}, Requested {charge.minimum}."
    )
    if exceeded.retry_after_ms is None:
        return f"{message} The request is larger than the limit: send a shorter prompt or a smaller max_tokens."
    if is_queue_full:
        return f"{message} Too many of its requests are waiting already."
    return f"{message} Please try again in {format_duration(exceeded.retry_after_ms)}."


def _budget_message(exceeded: LimitExceeded, names: Mapping[str, str]) -> str:
    charge, counter = exceeded.charge, exceeded.counter
    limit = charge.limit
    per = f" per {limit.per}" if limit.per else ""
    message = (
        f"The budget of {_token(limit, names)} does not allow this request: Limit ${format_usd(limit.size)}{per}, "
        f"Used ${format_usd(counter.used)}, Reserved ${format_usd(counter.reserved)}, "
        f"Requested ${format_usd(charge.minimum)} at least."
    )
    if limit.ends_at is not None:
        return f"{message} The next {limit.per} begins at {to_iso(limit.ends_at // 1000)}."
    return f"{message} It has no window, so somebody has to raise it."


def _token(limit: Limit, names: Mapping[str, str]) -> str:
    own_id = next(iter(names), None)
    kind = "token" if limit.token_id == own_id else "the parent token"
    model = f" (model {limit.model})" if limit.model else ""
    return f"{kind} {names.get(limit.token_id, '')!r} ({limit.token_id}){model}"


def rate_limit_headers(charges: Sequence[Charge], counters: Sequence[Counter]) -> dict[str, str]:
    """Returns the ``x-ratelimit-*`` headers of the tightest limit on requests and of the tightest on tokens.

    A reset is the time until the whole limit is available again.
    """
    found: dict[tuple[str, str, str], tuple[int, Limit, Counter]] = {}
    for (limit, _, _), counter in zip(charges, counters, strict=True):
        names = limit.headers
        if names is not None:
            remaining = limit.remaining(counter)
            if names not in found or remaining < found[names][0]:
                found[names] = (remaining, limit, counter)
    headers: dict[str, str] = {}
    for (size_name, remaining_name, reset_name), (remaining, limit, counter) in found.items():
        headers[size_name] = str(limit.size)
        headers[remaining_name] = str(remaining) if remaining > 0 else "0"
        headers[reset_name] = format_duration(_full_refill_ms(limit, counter))
    return headers


def _full_refill_ms(limit: Limit, counter: Counter) -> int:
    """Returns the milliseconds until the whole of a rate is available again, if all that is reserved is used."""
    return -(-(counter.used + counter.reserved * DEBT_PER_UNIT) // limit.size)


def describe_limit(limit: Limit, counter: Counter, now: int) -> dict[str, Any]:
    """Returns what remains of one limit as a JSON object. ``now`` is in milliseconds since the epoch.

    Money is in USD, as numbers that are written already (``msgspec.Raw``), so that no float rounds them.
    """
    is_budget, is_parallel = limit.kind is LimitKind.BUDGET, limit.kind is LimitKind.PARALLEL
    numbers = {
        "limit": limit.size,
        "used": counter.reserved if is_parallel else limit.used(counter),
        "reserved": 0 if is_parallel else counter.reserved,
        "remaining": max(0, limit.remaining(counter)),
    }
    return {
        "token_id": limit.token_id,
        "model": limit.model,
        "kind": limit.kind.value,
        "per": limit.per if is_budget else None if is_parallel else "minute",
        **{name: msgspec.Raw(format_usd(value).encode()) if is_budget else value for name, value in numbers.items()},
        "resets_at": _resets_at(limit, counter, now),
    }


def _resets_at(limit: Limit, counter: Counter, now: int) -> str | None:
    if limit.kind is LimitKind.PARALLEL:
        return None
    resets = limit.ends_at if limit.kind is LimitKind.BUDGET else now + _full_refill_ms(limit, counter)
    return None if resets is None else to_iso(-(-resets // 1000))


def format_duration(milliseconds: int) -> str:
    """Returns a duration in Go's notation, which OpenAI's headers use: ``12ms``, ``1s``, ``33.023s``, ``1h23m31s``."""
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    seconds, rest = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    tail = f"{seconds}.{rest:03d}".rstrip("0").rstrip(".") + "s"
    if hours:
        return f"{hours}h{minutes}m{tail}"
    return f"{minutes}m{tail}" if minutes else tail
