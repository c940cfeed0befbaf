"""Implementations of the counter store, by the names that the setting `GATEWAY_COUNTERS` has for them."""

from collections.abc import Callable
from pathlib import Path

from gateway.limits.store import CounterStore
from gateway.limits.stores.leased import LeasedCounterStore
from gateway.limits.stores.memory import MemoryCounterStore
from gateway.limits.stores.sqlite import SqliteCounterStore
from gateway.limits.stores.sqlite_file import COUNTERS_FILE


def open_counter_store(
    name: str, folder: Path, clock: Callable[[], float], rate_clock: Callable[[], float]
) -> CounterStore:
    """Returns the store ``memory`` or ``sqlite``, with its file in ``folder``.

    Both clocks are in seconds since the epoch; rates are paid back by the second.
    """
    path = folder / COUNTERS_FILE
    if name == "sqlite":
        return LeasedCounterStore(SqliteCounterStore(path, clock, rate_clock=rate_clock), rate_clock)
    return MemoryCounterStore(path, rate_clock)
