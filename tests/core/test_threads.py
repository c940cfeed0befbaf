import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from gateway.core.threads import Threads, await_uncancelled


async def test_the_threads_have_the_name_of_what_they_are_for_and_are_as_many_as_that_needs() -> None:
    threads = Threads("reports", 2)
    both = threading.Barrier(2)

    def work() -> str:
        both.wait(10)
        return threading.current_thread().name

    names = await asyncio.gather(threads.run(work), threads.run(work))
    assert {name.partition("_")[0] for name in names} == {"reports"}
    assert len(set(names)) == 2
    threads.close()
    with pytest.raises(RuntimeError):
        await threads.run(work)


async def test_a_call_does_not_wait_for_the_pool_of_the_event_loop() -> None:
    may_end = threading.Event()
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(1))
    blocking = loop.run_in_executor(None, may_end.wait, 10)
    assert await Threads("tokens").run(pow, 2, exp=5) == 32
    assert not blocking.done()
    may_end.set()
    await blocking


def test_a_function_in_a_thread_is_waited_for_when_the_loop_ends() -> None:
    """The end of ``asyncio.run`` cancels every task; a thread cannot be cancelled."""
    began, may_end, results = threading.Event(), threading.Event(), []

    def work() -> int:
        began.set()
        assert may_end.wait(10)
        return 7

    async def call() -> None:
        try:
            results.append(await Threads("work").run_to_end(work))
        except asyncio.CancelledError:
            results.append("ended")
            raise

    async def main() -> None:
        tasks.append(asyncio.create_task(call()))
        await asyncio.to_thread(began.wait, 10)
        asyncio.get_running_loop().call_later(0.01, may_end.set)

    tasks: list[asyncio.Task[None]] = []
    asyncio.run(main())
    assert results == ["ended"]
    assert may_end.is_set()


async def test_work_that_does_not_stop_is_settled_once_and_then_the_cancellation_goes_on() -> None:
    work: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    settled: list[int] = []
    waiting = asyncio.create_task(await_uncancelled(work, lambda done: settled.append(done.result())))
    for _ in range(3):  # also one who is cancelled again and again
        await asyncio.sleep(0)
        waiting.cancel()
    await asyncio.sleep(0)
    assert not waiting.done()
    work.set_result(7)
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert settled == [7]
    assert await await_uncancelled(work, lambda done: done.result() + 1) == 8


async def test_a_cancellation_is_not_lost_where_the_work_fails() -> None:
    """A loop that catches failures and goes on would never end."""
    may_end, threads, failures = threading.Event(), Threads("files"), 0

    def fail() -> None:
        may_end.wait(10)
        raise OSError("damaged")

    async def watch() -> None:
        nonlocal failures
        while True:
            try:
                await threads.run_to_end(fail)
            except OSError:
                failures += 1

    task = asyncio.create_task(watch())
    await asyncio.sleep(0)
    task.cancel()
    may_end.set()
    async with asyncio.timeout(10):
        with pytest.raises(asyncio.CancelledError):
            await task
    assert failures == 0
    threads.close()
