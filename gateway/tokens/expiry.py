"""How long a token lives, as people say it."""

import re

from gateway.core.clock import LATEST, from_iso

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400, "y": 365 * 86_400}
_SPAN = re.compile(r"([0-9]{1,6})([smhdwy])")


def span(text: str) -> int:
    """``90s``, ``30m`` (minutes), ``24h``, ``30d``, ``2w``, ``1y`` or ``0`` in seconds. Raises ValueError.

    1y is 365 days, whatever the calendar says.
    """
    if text == "0":
        return 0
    found = _SPAN.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is no time span such as 90s, 30m (minutes), 24h, 30d, 2w or 1y")
    return int(found[1]) * _UNITS[found[2]]


def expiry_in(text: str, now: float) -> int | None:
    """The end of a span that begins now, in seconds since the epoch; ``never`` is None. Raises ValueError."""
    return None if text == "never" else _future(text, int(now) + span(text), now)


def expiry(text: str, now: float) -> int | None:
    """A span, ``never``, or a date, as seconds since the epoch.

    A span is added to ``now`` as it stands. A date without a time means its first second, UTC. Raises ValueError.
    """
    if text == "never" or _SPAN.fullmatch(text):
        return expiry_in(text, now)
    try:
        at = from_iso(text)
    except (ValueError, OverflowError):
        raise ValueError(f"{text!r} is none of 30d, 12h, 2w, 1y, never or a date such as 2027-01-31") from None
    return _future(text, at, now)


def _future(text: str, at: int, now: float) -> int:
    if not now < at <= LATEST:
        raise ValueError(f"{text!r} does not lie in the future (up to the year 9999)")
    return at
