"""How long a token lives, as people say it."""

import re

from gateway.clock import LATEST, from_iso

_UNITS = {"h": 3600, "d": 86_400, "w": 7 * 86_400, "y": 365 * 86_400}
_SPAN = re.compile(r"([0-9]{1,6})([hdwy])")


def expiry(text: str, now: float) -> int | None:
    """``30d``, ``12h``, ``2w``, ``1y``, ``never`` or a date, as seconds since the epoch.

    A span is added to ``now`` as it stands: 1y is 365 days, whatever the calendar. A date without a time means its first
    second, UTC. Raises ValueError.
    """
    if text == "never":
        return None
    if span := _SPAN.fullmatch(text):
        at = int(now) + int(span[1]) * _UNITS[span[2]]
    else:
        try:
            at = from_iso(text)
        except (ValueError, OverflowError):
            raise ValueError(f"{text!r} is none of 30d, 12h, 2w, 1y, never or a date such as 2027-01-31") from None
    if not now < at <= LATEST:
        raise ValueError(f"{text!r} does not lie in the future (up to the year 9999)")
    return at
