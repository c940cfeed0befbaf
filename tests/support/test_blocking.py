"""The guard against blocking sees what the package does on the event loop, and nothing else."""

import asyncio
from functools import partial
from pathlib import Path

from gateway.core.threads import await_uncancelled
from gateway.storage.sqlite import is_moved
from tests.support.blocking import BlockingCalls


async def test_a_callback_of_the_package_is_seen(tmp_path: Path, blocking_calls: BlockingCalls) -> None:
    asyncio.get_running_loop().call_soon(is_moved, tmp_path, 0)
    await asyncio.sleep(0)
    assert len(blocking_calls.found) == 1
    assert blocking_calls.found.pop().startswith("os.stat blocks the event loop\n")


async def test_a_thread_may_block(tmp_path: Path, blocking_calls: BlockingCalls) -> None:
    assert await asyncio.to_thread(is_moved, tmp_path, 0)
    assert not blocking_calls.found


async def test_a_test_may_block_its_own_loop(tmp_path: Path, blocking_calls: BlockingCalls) -> None:
    assert is_moved(tmp_path, 0)
    assert not blocking_calls.found


async def test_a_coroutine_of_the_package_is_seen_below_a_test(tmp_path: Path, blocking_calls: BlockingCalls) -> None:
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    done.set_result(None)
    await await_uncancelled(done, partial(is_moved, tmp_path))
    assert len(blocking_calls.found) == 1
    blocking_calls.found.clear()
