"""Reads on behalf of callers: few at once, a short queue, and no more of it for whoever asks most."""

import asyncio
import threading

import pytest

from gateway.core.bounded_threads import BoundedThreads
from gateway.core.errors import RateLimited, TooManyReads


class Reads:
    """Reads that go on until they may end."""

    def __init__(self, threads: BoundedThreads) -> None:
        self.threads = threads
        self.may_end = threading.Event()

    async def begin(self, caller: str) -> "asyncio.Task[str]":
        task = asyncio.create_task(self.threads.run(caller, lambda: caller if self.may_end.wait(10) else ""))
        await asyncio.sleep(0)
        return task


async def test_one_caller_has_only_so_many_at_once() -> None:
    reads = Reads(BoundedThreads("reports", max_per_caller=2))
    running = [await reads.begin("ann"), await reads.begin("ann"), await reads.begin("bob")]
    with pytest.raises(RateLimited, match="2 reports or lists of this token") as caught:
        await reads.threads.run("ann", lambda: "one more")
    assert caught.value.headers["Retry-After"] == "1"
    reads.may_end.set()
    assert await asyncio.gather(*running) == ["ann", "ann", "bob"]
    assert await reads.threads.run("ann", lambda: "afterwards") == "afterwards"


async def test_the_queue_is_short() -> None:
    reads = Reads(BoundedThreads("reports", count=1, max_waiting=2, max_per_caller=1))
    running = [await reads.begin(caller) for caller in ("a", "b", "c")]
    with pytest.raises(TooManyReads) as caught:
        await reads.threads.run("d", lambda: "one more")
    assert (caught.value.status, caught.value.headers["Retry-After"]) == (503, "1")
    reads.may_end.set()
    assert await asyncio.gather(*running) == ["a", "b", "c"]


async def test_a_caller_that_leaves_gets_no_thread_more_before_its_read_has_ended() -> None:
    reads = Reads(BoundedThreads("reports", max_per_caller=1))
    left = await reads.begin("ann")
    left.cancel()
    await asyncio.sleep(0)
    with pytest.raises(RateLimited):
        await reads.threads.run("ann", lambda: "one more")
    reads.may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await left
    assert await reads.threads.run("ann", lambda: "afterwards") == "afterwards"


async def test_a_failure_ends_a_read_too() -> None:
    threads = BoundedThreads("reports", max_per_caller=1)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            await threads.run("ann", lambda: 1 // 0)
