"""Finds the calendar windows of budgets, in UTC. Pure.

A window has a name, which is part of its counter's name. Every ``now`` here is in milliseconds since the epoch.
"""

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import NamedTuple

MS_PER_DAY = 86_400_000


class CalendarWindow(NamedTuple):
    """A period of a budget. ``ends_at`` is in milliseconds since the epoch; None for a window without an end."""

    name: str
    ends_at: int | None


ALL_TIME = CalendarWindow("all", None)
WINDOW_LENGTHS = ("day", "week", "month")


def calendar_windows(now: int) -> dict[str | None, CalendarWindow]:
    """Returns the window of each length that contains ``now``, by its name; None for the one without an end."""
    return {per: calendar_window(per, now) for per in (None, *WINDOW_LENGTHS)}


def calendar_window(per: str | None, now: int) -> CalendarWindow:
    """Returns the ``day``, ``week`` or ``month`` (UTC) that contains ``now``; ``ALL_TIME`` for None.

    A week begins on Monday (ISO 8601).
    """
    return ALL_TIME if per is None else _window_of_day(per, now // MS_PER_DAY)


@lru_cache(maxsize=16)
def _window_of_day(per: str, day_number: int) -> CalendarWindow:
    day = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=day_number)
    match per:
        case "day":
            name, end = f"{day:%Y-%m-%d}", day + timedelta(days=1)
        case "week":
            year, week, weekday = day.isocalendar()
            name, end = f"{year}-W{week:02d}", day + timedelta(days=8 - weekday)
        case _:
            name, end = f"{day:%Y-%m}", (day.replace(day=1) + timedelta(days=32)).replace(day=1)
    return CalendarWindow(name, int(end.timestamp()) * 1000)
