"""Limits in words, for the people and programs that run into them: messages, headers, what is left. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from gateway.core.clock import to_iso
from gateway.core.errors import GatewayError, QuotaExceeded, RateLimited, TokensLimited
from gateway.core.money import usd
from gateway.limits.algorithms import PER_MINUTE, Charge, Counter, Kind, Limit
from gateway.limits.store import LimitExceeded

_ON = {
    Kind.REQUESTS: "requests per min (RPM)",
    Kind.TOKENS: "tokens per min (TPM)",
    Kind.PARALLEL: "requests at a time",
}


def error(refusal: LimitExceeded, names: Mapping[str, str], is_queue_full: bool = False) -> GatewayError:
    """What a client is told. ``names`` of tokens by their ids: the caller's own first, then its parents'."""
    charge, level = refusal.charge, refusal.level
    limit = charge.limit
    whose = _whose(limit, names)
    wait = None if refusal.wait is None else refusal.wait / 1000
    if limit.kind is Kind.BUDGET:
        return QuotaExceeded(_money_message(refusal, whose), wait)
    said = f"Limit {limit.size}, Used {limit.used(level)}"
    if level.reserved and limit.kind is Kind.TOKENS:
        said += f", Reserved {level.reserved}"
    if limit.kind is Kind.PARALLEL:
        said = f"Limit {limit.size}, Used {level.reserved}"
    message = f"Rate limit reached for {whose} on {_ON[limit.kind]}: {said}, Requested {charge.minimum}."
    if wait is None:
        message += " The request is larger than the limit: send a shorter prompt or a smaller max_tokens."
    elif is_queue_full:
        message += " Too many of its requests are waiting already."
    else:
        message += f" Please try again in {duration(refusal.wait or 0)}."
    kind = TokensLimited if limit.kind is Kind.TOKENS else RateLimited
    return kind(message, wait)


def _money_message(refusal: LimitExceeded, whose: str) -> str:
    charge, level = refusal.charge, refusal.level
    limit = charge.limit
    per = f" per {limit.per}" if limit.per else ""
    message = (
        f"The budget of {whose} does not allow this request: Limit ${usd(limit.size)}{per}, Used ${usd(level.used)}, "
        f"Reserved ${usd(level.reserved)}, Requested ${usd(charge.minimum)} at least."
    )
    if limit.ends_at is not None:
        return f"{message} The next {limit.per} begins at {to_iso(limit.ends_at // 1000)}."
    return f"{message} It has no window, so somebody has to raise it."


def _whose(limit: Limit, names: Mapping[str, str]) -> str:
    own = next(iter(names), None)
    kind = "token" if limit.holder == own else "the parent token"
    model = f" (model {limit.model})" if limit.model else ""
    return f"{kind} {names.get(limit.holder, '')!r} ({limit.holder}){model}"


def headers(charges: Sequence[Charge], counters: Sequence[Counter]) -> dict[str, str]:
    """``x-ratelimit-*`` of the tightest limits. Resets tell when the whole limit is there again."""
    tightest: dict[tuple[str, str, str], tuple[int, Limit, Counter]] = {}
    for (limit, _, _), level in zip(charges, counters, strict=True):
        names = limit.headers
        if names is not None:
            there = limit.left(level)
            if names not in tightest or there < tightest[names][0]:
                tightest[names] = (there, limit, level)
    found: dict[str, str] = {}
    for (size, remaining, reset), (there, limit, level) in tightest.items():
        found[size] = str(limit.size)
        found[remaining] = str(there if there > 0 else 0)
        found[reset] = duration(_full_again(limit, level))
    return found


def _full_again(limit: Limit, level: Counter) -> int:
    """Milliseconds until the whole of a rate is there again, if what is reserved is used."""
    return -(-(level.used + level.reserved * PER_MINUTE) // limit.size)


def left(limit: Limit, level: Counter, now: int) -> dict[str, Any]:
    """What is left of one limit, for ``/api/me``; ``now`` in milliseconds since the epoch. Money in USD."""
    is_money = limit.kind is Kind.BUDGET
    shown = {
        "token_id": limit.holder,
        "model": limit.model,
        "kind": limit.kind.value,
        "per": limit.per if is_money else None if limit.kind is Kind.PARALLEL else "minute",
    }
    numbers = {
        "limit": limit.size,
        "used": level.reserved if limit.kind is Kind.PARALLEL else limit.used(level),
        "reserved": 0 if limit.kind is Kind.PARALLEL else level.reserved,
        "remaining": max(0, limit.left(level)),
    }
    resets = None
    if limit.kind is Kind.REQUESTS or limit.kind is Kind.TOKENS:
        resets = now + _full_again(limit, level)
    elif is_money:
        resets = limit.ends_at
    told: dict[str, Any] = {
        name: msgspec.Raw(usd(value).encode()) if is_money else value for name, value in numbers.items()
    }
    return {**shown, **told, "resets_at": None if resets is None else to_iso(-(-resets // 1000))}


def duration(milliseconds: int) -> str:
    """As Go and OpenAI's headers write it: ``12ms``, ``1s``, ``33.023s``, ``6m0s``, ``1h23m31s``."""
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    seconds, rest = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    tail = f"{seconds}.{rest:03d}".rstrip("0").rstrip(".") + "s"
    if hours:
        return f"{hours}h{minutes}m{tail}"
    return f"{minutes}m{tail}" if minutes else tail
