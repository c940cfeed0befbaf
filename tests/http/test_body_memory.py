"""Bodies in memory: bounded for the process and for each tree of tokens, large ones in turn, and all given back."""

import asyncio

import pytest

from gateway.core.errors import BodyMemoryExceeded, RateLimited
from gateway.http.body_memory import LARGE_BODY_BYTES, MAX_WAITING, BodyAccount, BodyMemory

MIB = 1024 * 1024


@pytest.fixture
def memory() -> BodyMemory:
    return BodyMemory(64 * MIB, max_wait=60)


def test_small_bodies_are_refused_above_a_quarter(memory: BodyMemory) -> None:
    account = BodyAccount(memory, "a")
    account.add(16 * MIB)
    with pytest.raises(RateLimited) as refused:
        account.add(1)
    assert refused.value.headers["Retry-After"] == "2"
    BodyAccount(memory, "b").add(1)
    account.release()
    account.add(1)


def test_all_together_are_refused_above_the_bound(memory: BodyMemory) -> None:
    accounts = [BodyAccount(memory, name) for name in "abcd"]
    for account in accounts:
        account.add(16 * MIB)
    with pytest.raises(BodyMemoryExceeded):
        BodyAccount(memory, "e").add(1)
    accounts[0].release()
    BodyAccount(memory, "e").add(1)
    assert memory.used == 48 * MIB + 1


def test_one_body_is_allowed_whatever_its_size(memory: BodyMemory) -> None:
    BodyAccount(memory, "a").add(100 * MIB)
    with pytest.raises(BodyMemoryExceeded):
        BodyAccount(memory, "b").add(1)


async def test_a_large_body_waits_until_the_one_before_is_admitted(memory: BodyMemory) -> None:
    first, second, small = (BodyAccount(memory, "a") for _ in range(3))
    await first.reserve(3 * MIB)
    waiting = asyncio.create_task(second.reserve(3 * MIB))
    await asyncio.sleep(0)
    await small.reserve(LARGE_BODY_BYTES)  # it does not wait behind a large one
    assert not waiting.done()
    first.admitted()
    await waiting
    assert memory.used == 7 * MIB
    for account in (first, second, small):
        account.release()
    assert memory.used == 0


async def test_a_large_body_waits_no_longer_than_allowed() -> None:
    memory = BodyMemory(64 * MIB, max_wait=0.0)
    await BodyAccount(memory, "a").reserve(4 * MIB)
    late = BodyAccount(memory, "a")
    with pytest.raises(RateLimited):
        await late.reserve(4 * MIB)
    late.release()
    assert memory.used == 4 * MIB
    await BodyAccount(memory, "b").reserve(4 * MIB)


async def test_a_request_that_ends_while_it_waits_leaves_nothing(memory: BodyMemory) -> None:
    first, gone, third = (BodyAccount(memory, "a") for _ in range(3))
    await first.reserve(4 * MIB)
    waiting = asyncio.create_task(gone.reserve(4 * MIB))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    gone.release()
    first.release()
    await third.reserve(4 * MIB)
    assert memory.used == 4 * MIB


async def test_no_more_than_some_wait(memory: BodyMemory) -> None:
    await BodyAccount(memory, "a").reserve(4 * MIB)
    waiting = [asyncio.create_task(BodyAccount(memory, "a").reserve(4 * MIB)) for _ in range(MAX_WAITING)]
    await asyncio.sleep(0)
    with pytest.raises(RateLimited):
        await BodyAccount(memory, "a").reserve(4 * MIB)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
