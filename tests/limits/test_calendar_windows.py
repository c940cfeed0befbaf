"""Which window of a budget a moment falls into."""

import time
from datetime import UTC, datetime

import pytest

from gateway.limits.calendar_windows import calendar_window


@pytest.mark.parametrize(
    ("per", "now", "name", "ends"),
    [
        ("day", "2026-12-31", "2026-12-31", "2027-01-01"),
        ("week", "2026-12-31", "2026-W53", "2027-01-04"),
        ("week", "2027-01-04", "2027-W01", "2027-01-11"),
        ("month", "2024-02-29", "2024-02", "2024-03-01"),
        ("month", "2026-12-01", "2026-12", "2027-01-01"),
        (None, "2026-12-01", "all", None),
    ],
)
def test_windows_follow_the_calendar(per: str | None, now: str, name: str, ends: str | None) -> None:
    at = _milliseconds(now) + 3_600_000
    assert calendar_window(per, at) == (name, ends and _milliseconds(ends))


def _milliseconds(day: str) -> int:
    return int(datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp()) * 1000


def test_a_window_ends_with_its_last_millisecond() -> None:
    end = _milliseconds("2026-12-02")
    assert calendar_window("day", end - 1) == ("2026-12-01", end)
    assert calendar_window("day", end).name == "2026-12-02"


def test_windows_are_in_utc_wherever_the_machine_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert calendar_window("day", _milliseconds("2031-05-06") - 1) == ("2031-05-05", _milliseconds("2031-05-06"))
    finally:
        monkeypatch.undo()
        time.tzset()
