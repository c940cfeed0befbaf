"""Calendar windows of budgets, in UTC. A window has a name, so that its counter needs no reset: the next one has another."""

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import NamedTuple

DAY_MS = 86_400_000


class Window(NamedTuple):
    """``ends_at`` in milliseconds since the epoch; None for a window that never ends."""

    name: str
    ends_at: int | None


ALL_TIME = Window("all", None)


def window(per: str | None, now: int) -> Window:
    """The window of ``now``, in milliseconds since the epoch. A week begins on Monday (ISO 8601)."""
    return ALL_TIME if per is None else _window(per, now // DAY_MS)


@lru_cache(maxsize=16)
def _window(per: str, day_number: int) -> Window:
    day = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=day_number)
    match per:
        case "day":
            name, end = f"{day:%Y-%m-%d}", day + timedelta(days=1)
        case "week":
            year, week, weekday = day.isocalendar()
            name, end = f"{year}-W{week:02d}", day + timedelta(days=8 - weekday)
        case _:
            name, end = f"{day:%Y-%m}", (day.replace(day=1) + timedelta(days=32)).replace(day=1)
    return Window(name, int(end.timestamp()) * 1000)
