"""Ten thousand requests given up in every phase: afterwards the process holds what it held before."""

import asyncio
import gc
import os
import random
import time
from pathlib import Path

import pytest

from tests.http.test_client_gone import HALF, SAY, UPLOAD_HEAD
from tests.support.gateway import STREAM, Running
from tests.support.upstream import Connection, Received, Upstream
from tests.support.wire import connected, gateway_before, post

FULL = os.environ.get("GATEWAY_TEST_CAMPAIGN") == "full"
BATCH = 1000 if FULL else 100
BATCHES = 10 if FULL else 3
AT_ONCE = 50
RSS_TOLERANCE = 10 * 2**20
"""Bytes. Allocators keep some of what they had at the peak; a leak of 1 KiB a request would show in a full campaign."""
FD_TOLERANCE = 2
"""The event loop's worker threads may have opened one or two."""

EVENT = b'data: {"choices":[{"index":0,"delta":{"content":"x"}}]}\n\n'
PHASES = {
    "head of the request": post()[:40],
    "body": post()[:-20],
    "upload": UPLOAD_HEAD + b"x" * 1000,
    "waiting": post(),
    "half an answer": post(body=HALF),
    "streaming": post(body=STREAM),
    "not reading": post(body=SAY),
}


async def upstream_acts(received: Received, connection: Connection) -> None:
    if b'"half"' in received.body:
        await connection.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{")
    elif b'"stream"' in received.body:
        await connection.start_stream()
        await connection.chunk(EVENT * (2000 if b'"say"' in received.body else 1))
    await connection.wait_closed()


async def give_up(gateway: Running, phase: str, pause: float) -> None:
    async with connected(gateway.port) as client:
        if phase == "not reading":
            client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await client.send(PHASES[phase])
        if phase == "streaming":
            await client.head()
        else:
            await asyncio.sleep(pause)  # the moment of leaving is drawn by lot; nothing is waited for
        client.abort()


async def give_up_many(gateway: Running, count: int, seed: int) -> None:
    rng = random.Random(seed)
    phases = list(PHASES)
    limit = asyncio.Semaphore(AT_ONCE)

    async def one(phase: str, pause: float) -> None:
        async with limit:
            await give_up(gateway, phase, pause)

    await asyncio.gather(*(one(phases[at % len(phases)], rng.random() * 0.02) for at in range(count)))


def resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


async def settled(gateway: Running, upstream: Upstream) -> tuple[int, int, int]:
    """(tasks, open files, resident bytes) once everything that was begun has ended."""
    await gateway.wait_idle(5)
    await gateway.flush_usage()
    async with asyncio.timeout(5):
        for connection in upstream.connections:
            await connection.closed.wait()
        while upstream.open_connections:
            await asyncio.sleep(0.01)
    upstream.connections.clear()
    upstream.requests.clear()
    for _ in range(20):
        await asyncio.sleep(0.01)
    gc.collect()
    tasks = [task for task in asyncio.all_tasks() if not task.done()]
    return len(tasks), len(list(Path("/proc/self/fd").iterdir())), resident()


@pytest.mark.campaign
async def test_given_up_requests_leave_nothing_behind(tmp_path: Path) -> None:
    async with gateway_before(upstream_acts, tmp_path) as (upstream, gateway):
        await give_up_many(gateway, BATCH, 0)  # pools, caches and the allocator's arenas fill up
        tasks, files, memory = await settled(gateway, upstream)
        began = time.monotonic()
        for seed in range(BATCHES):
            await give_up_many(gateway, BATCH, seed + 1)
            tasks_after, files_after, memory_after = await settled(gateway, upstream)
        print(
            f"{BATCH * BATCHES} given up in {time.monotonic() - began:.0f} s: tasks {tasks} -> {tasks_after}, "
            f"files {files} -> {files_after}, resident {memory // 1024} -> {memory_after // 1024} KiB"
        )
        assert tasks_after <= tasks
        assert files_after <= files + FD_TOLERANCE
        assert upstream.open_connections == 0
        assert memory_after <= memory + RSS_TOLERANCE
        async with connected(gateway.port) as client:  # and it still serves
            await client.send(post(body=STREAM))
            assert (await client.head()).status == 200
