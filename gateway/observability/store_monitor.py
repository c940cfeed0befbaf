"""Keeps the gauges of the stores current: whichever worker is asked for the metrics cannot ask the others."""

import asyncio
from collections.abc import Callable, Sequence
from typing import NamedTuple

from gateway.observability.metrics import Gauge

CHECK_SECONDS = 0.5


class Watched(NamedTuple):
    """A gauge, and what it shows."""

    gauge: Gauge
    read: Callable[[], float]


class StoreMonitor:
    """Copies values into gauges."""

    def __init__(self, watched: Sequence[Watched]) -> None:
        self._watched = watched

    def update(self) -> None:
        """Copies every value now."""
        for gauge, read in self._watched:
            gauge.set(read())

    async def run(self) -> None:
        """Copies every value twice a second, until cancelled."""
        while True:
            self.update()
            await asyncio.sleep(CHECK_SECONDS)
