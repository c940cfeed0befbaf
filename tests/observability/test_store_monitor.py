"""The gauges of the stores: they show what was read last, and are read again and again."""

import asyncio

import pytest

from gateway.observability import store_monitor
from gateway.observability.metrics import Gauge
from gateway.observability.shared_metrics import SharedMetrics
from gateway.observability.store_monitor import StoreMonitor, Watched


def gauges(shared: SharedMetrics, *names: str) -> list[Gauge]:
    worker = shared.worker(0)
    worker.start()
    return [Gauge(worker, name) for name in names]


def shown(shared: SharedMetrics, name: str) -> float:
    return shared.read()[0][name]


def test_each_gauge_shows_its_own_value() -> None:
    shared = SharedMetrics(1)
    up, waiting = gauges(shared, "up", "waiting")
    values = {"up": 1.0, "waiting": 7.0}
    monitor = StoreMonitor([Watched(up, lambda: values["up"]), Watched(waiting, lambda: values["waiting"])])
    assert (shown(shared, "up"), shown(shared, "waiting")) == (0.0, 0.0), "nothing was read yet"
    monitor.update()
    assert (shown(shared, "up"), shown(shared, "waiting")) == (1.0, 7.0)
    values["up"] = 0.0
    assert shown(shared, "up") == 1.0
    monitor.update()
    assert (shown(shared, "up"), shown(shared, "waiting")) == (0.0, 7.0)


async def test_values_are_read_until_the_monitor_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_monitor, "CHECK_SECONDS", 0)
    shared = SharedMetrics(1)
    [gauge] = gauges(shared, "waiting")
    reads: list[float] = []
    is_third = asyncio.Event()

    def read() -> float:
        reads.append(float(len(reads) + 1))
        if len(reads) == 3:
            is_third.set()
        return reads[-1]

    task = asyncio.create_task(StoreMonitor([Watched(gauge, read)]).run())
    await asyncio.wait_for(is_third.wait(), 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert shown(shared, "waiting") == reads[-1]
