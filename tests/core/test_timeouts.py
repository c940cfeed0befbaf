"""Coarse time limits: they fire, they only fire for their own wait, and they leave nothing behind."""

import asyncio

import pytest

from gateway.core.timeouts import CoarseTimeouts


@pytest.fixture
def timeouts() -> CoarseTimeouts:
    return CoarseTimeouts(check_seconds=0.001)


async def test_a_wait_that_is_too_long_ends(timeouts: CoarseTimeouts) -> None:
    with pytest.raises(TimeoutError), timeouts.within(0.0):
        await asyncio.Event().wait()
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_a_wait_that_ends_in_time_is_left_alone(timeouts: CoarseTimeouts) -> None:
    with timeouts.within(60):
        await asyncio.sleep(0)
    async with asyncio.timeout(5):
        while timeouts.is_checking:
            await asyncio.sleep(0)


async def test_only_the_late_one_is_ended(timeouts: CoarseTimeouts) -> None:

    async def wait(seconds: float, done: asyncio.Event) -> str:
        try:
            with timeouts.within(seconds):
                await done.wait()
        except TimeoutError:
            return "late"
        return "in time"

    done = asyncio.Event()
    in_time = asyncio.create_task(wait(60, done))
    assert await wait(0.0, asyncio.Event()) == "late"
    done.set()
    assert await in_time == "in time"


async def test_a_cancellation_from_outside_stays_one(timeouts: CoarseTimeouts) -> None:

    async def wait() -> None:
        with timeouts.within(60):
            await asyncio.Event().wait()

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_cancellation_at_the_same_moment_wins(timeouts: CoarseTimeouts) -> None:

    async def wait() -> None:
        timeout = timeouts.within(60)
        with timeout:
            timeout.expire()
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await asyncio.Event().wait()

    with pytest.raises(asyncio.CancelledError):
        await asyncio.create_task(wait())


async def test_it_checks_only_while_somebody_waits(timeouts: CoarseTimeouts) -> None:
    with timeouts.within(60):
        assert timeouts.is_checking
    async with asyncio.timeout(5):
        while timeouts.is_checking:
            await asyncio.sleep(0)
