"""Coarse time limits: they fire, they only fire for their own wait, and they leave nothing behind."""

import asyncio

import pytest

from gateway.providers.transport import timeouts as room
from gateway.providers.transport.timeouts import CoarseTimeouts


@pytest.fixture(autouse=True)
def _fine_grain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "LOOK_SECONDS", 0.001)


async def test_a_wait_that_is_too_long_ends() -> None:
    timeouts = CoarseTimeouts()
    with pytest.raises(TimeoutError), timeouts.within(0.0):
        await asyncio.Event().wait()
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_a_wait_that_ends_in_time_is_left_alone() -> None:
    timeouts = CoarseTimeouts()
    with timeouts.within(60):
        await asyncio.sleep(0)
    assert not timeouts._waiting


async def test_only_the_late_one_is_ended() -> None:
    timeouts = CoarseTimeouts()

    async def wait(seconds: float, gate: asyncio.Event) -> str:
        try:
            with timeouts.within(seconds):
                await gate.wait()
        except TimeoutError:
            return "late"
        return "in time"

    gate = asyncio.Event()
    patient = asyncio.create_task(wait(60, gate))
    assert await wait(0.0, asyncio.Event()) == "late"
    gate.set()
    assert await patient == "in time"


async def test_a_cancellation_from_outside_stays_one() -> None:
    timeouts = CoarseTimeouts()

    async def wait() -> None:
        with timeouts.within(60):
            await asyncio.Event().wait()

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_cancellation_at_the_same_moment_wins() -> None:
    timeouts = CoarseTimeouts()

    async def wait() -> None:
        limit = timeouts.within(60)
        with limit:
            limit.expire()
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await asyncio.Event().wait()

    with pytest.raises(asyncio.CancelledError):
        await asyncio.create_task(wait())


async def test_it_looks_only_while_somebody_waits() -> None:
    timeouts = CoarseTimeouts()
    with timeouts.within(60):
        await asyncio.sleep(0.005)
        assert timeouts._timer is not None
    async with asyncio.timeout(5):
        while timeouts._timer is not None:
            await asyncio.sleep(0.001)
