"""Parses when a token expires, as people write it. Pure."""

import re

from gateway.core.clock import LATEST, from_iso

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400, "y": 365 * 86_400}
_SPAN = re.compile(r"([0-9]{1,6})([smhdwy])")


def span(text: str) -> int:
    """Returns ``90s``, ``30m`` (minutes), ``24h``, ``30d``, ``2w``, ``1y`` or ``0`` in seconds. Raises ValueError.

    1y is 365 days, whatever the calendar says.
    """
    if text == "0":
        return 0
    match = _SPAN.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no time span such as 90s, 30m (minutes), 24h, 30d, 2w or 1y")
    return int(match[1]) * _UNITS[match[2]]


def past(text: str, now: float) -> int:
    """Returns the beginning of a span that ends now, or a date or time, in seconds since the epoch, 0 at least.

    A date without a time means its first second, UTC. Raises ValueError.
    """
    if text == "0" or _SPAN.fullmatch(text):
        return max(int(now) - span(text), 0)
    try:
        at = from_iso(text)
    except (ValueError, OverflowError):
        at = -1
    if not 0 <= at <= LATEST:
        raise ValueError(f"{text!r} is no time span such as 12h, 7d or 2w, and no date or time such as 2027-01-31")
    return at


def expiry_in(text: str, now: float) -> int | None:
    """Returns the end of a span that begins now, in seconds since the epoch; None for ``never``. Raises ValueError."""
    return None if text == "never" else _require_future(text, int(now) + span(text), now)


def expiry(text: str, now: float) -> int | None:
    """Returns a span from now, or a date, in seconds since the epoch; None for ``never``.

    A date without a time means its first second, UTC. Raises ValueError.
    """
    if text == "never" or _SPAN.fullmatch(text):
        return expiry_in(text, now)
    try:
        at = from_iso(text)
    except (ValueError, OverflowError):
        raise ValueError(f"{text!r} is none of 30d, 12h, 2w, 1y, never or a date such as 2027-01-31") from None
    return _require_future(text, at, now)


def _require_future(text: str, at: int, now: float) -> int:
    if not now < at <= LATEST:
        raise ValueError(f"{text!r} does not lie in the future (up to the year 9999)")
    return at
