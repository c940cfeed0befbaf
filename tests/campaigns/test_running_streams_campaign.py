"""What streams have used is in the ledger and counts against the budget although their process was killed: all but the last
second or two, and nothing twice.

Full length: GATEWAY_TEST_CAMPAIGN=full, 20 kills of a gateway and 20 of one of two workers.
"""

import asyncio
import contextlib
import json
import os
import random
import signal
import sqlite3
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from gateway.usage.stores.sqlite import LEDGER_FILE
from tests.campaigns.test_ledger_campaign import MODEL, SECRET, spent, written
from tests.campaigns.test_revocation_campaign import workers_of
from tests.support.gateway import Process, gateway_process
from tests.support.tokens import content, entry
from tests.support.upstream import Connection, Received, running_upstream
from tests.support.wire import connected, post

FULL = os.environ.get("GATEWAY_TEST_CAMPAIGN") == "full"
KILLS = 20 if FULL else 1
STREAMS = 20
WORD_SECONDS = 0.1
LOST_SECONDS = 2.0
"""A write each 0.8 s, what it takes itself, and an answer that lay in the client's buffer; on a busy machine."""
LIMITS = {"budget": "1000"}
BODY = json.dumps(
    {"model": MODEL, "messages": [{"role": "user", "content": "x"}], "max_tokens": 1000, "stream": True}
).encode()
WORD = {"id": "1", "object": "chat.completion.chunk", "model": MODEL,
    "choices": [{"index": 0, "delta": {"content": "x"}, "finish_reason": None}]}  # fmt: skip

pytestmark = [pytest.mark.campaign, pytest.mark.timeout(900)]


@dataclass
class Stream:
    """One that a client reads. Each word costs a micro-dollar."""

    request_id: str = ""
    words: list[float] = field(default_factory=list)
    """When each came."""
    is_whole: bool = False

    def seconds_lost(self, tokens: int, kill: float) -> float:
        """How long before the kill the first word came that is not counted."""
        return kill - self.words[tokens] if tokens < len(self.words) else 0.0


class Load:
    """An upstream of streams that end when they are told to, and the clients that read them."""

    def __init__(self) -> None:
        self.streams: list[Stream] = []
        self.is_over = asyncio.Event()

    async def answer(self, _received: Received, connection: Connection) -> None:
        await connection.start_stream()
        while not self.is_over.is_set():
            await connection.chunk(b"data: " + json.dumps(WORD).encode() + b"\n\n")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(WORD_SECONDS):
                    await self.is_over.wait()
        await connection.chunk(b"data: [DONE]\n\n")
        await connection.end_stream()

    @asynccontextmanager
    async def running(self, port: int) -> AsyncIterator[None]:
        self.is_over.clear()
        async with asyncio.TaskGroup() as group:
            for _ in range(STREAMS):
                stream = Stream()
                self.streams.append(stream)
                group.create_task(self._read(port, stream))
            yield

    async def _read(self, port: int, stream: Stream) -> None:
        async with connected(port) as client:
            await client.send(post(body=BODY, headers=[("api-key", SECRET)]))
            stream.request_id = (await client.head()).header("x-request-id") or ""
            while piece := await client.piece():
                stream.words += [time.monotonic()] * piece.count(b'"content"')
            stream.is_whole = piece == b""


@contextmanager
def gateway_at(folder: Path, url: str, workers: int) -> Iterator[Process]:
    (folder / "api_tokens.json").write_bytes(content(entry(SECRET, limits=LIMITS)))
    (folder / "gateway.toml").write_text(f'[prices."{MODEL}"]\ninput = 0\noutput = 1\n')
    settings = {"GATEWAY_WORKERS": str(workers), "GATEWAY_CONFIG": str(folder / "gateway.toml")}
    with gateway_process(folder, GATEWAY_UPSTREAM_URL=url, **settings) as gateway:
        yield gateway


async def until_taken_over(folder: Path, killed: Sequence[Stream]) -> dict[str, tuple[int, int, int]]:
    """Waits until the killed streams are in the ledger, and returns tokens, cost and partial of all that is there."""
    deadline = time.monotonic() + 30
    while True:
        with contextlib.closing(sqlite3.connect(folder / "data" / LEDGER_FILE)) as connection:
            rows = connection.execute("SELECT request_id, completion_tokens, cost, partial FROM entries").fetchall()
        found = {request_id: (tokens, cost, partial) for request_id, tokens, cost, partial in rows}
        if all(stream.request_id in found for stream in killed):
            return found
        assert time.monotonic() < deadline, "what the killed process served is not in the ledger"
        await asyncio.sleep(0.1)


def check(load: Load, kills: dict[int, float], folder: Path, found: dict[str, tuple[int, int, int]]) -> float:
    """Each stream is in the ledger once. Returns the longest time that a killed one has lost."""
    ledger, lost = written(folder), [0.0]
    assert len(ledger.ids) == len(set(ledger.ids)) == len(load.streams)
    assert ledger.hours == ledger.sums
    for number, stream in enumerate(load.streams):
        tokens, cost, partial = found[stream.request_id]
        assert (cost, partial) == (tokens, int(not stream.is_whole))
        if stream.is_whole:
            assert tokens == len(stream.words)
        else:
            lost.append(stream.seconds_lost(tokens, kills[number // STREAMS]))
    return max(lost)


async def run(folder: Path, workers: int) -> None:
    load, chance, kills = Load(), random.Random(workers), dict[int, float]()
    async with running_upstream(load.answer) as upstream:
        for number in range(KILLS):
            with gateway_at(folder, upstream.url, workers) as gateway:
                async with load.running(gateway.port):
                    await asyncio.sleep(3 + chance.random())  # the streams run meanwhile
                    kills[number] = time.monotonic()
                    os.kill(gateway.popen.pid if workers == 1 else workers_of(gateway)[0], signal.SIGKILL)
                    await asyncio.sleep(0.5)
                    load.is_over.set()
                if workers > 1:
                    await until_taken_over(folder, load.streams)  # by the worker that takes the place of the killed one
                    gateway.popen.terminate()
                    await asyncio.to_thread(gateway.popen.wait, 60)
        killed = [stream for stream in load.streams if not stream.is_whole]
        budgets = []
        for _ in range(2):  # the second start finds nothing left to take over
            with gateway_at(folder, upstream.url, workers) as gateway:
                found = await until_taken_over(folder, load.streams)
                budgets.append(await spent(gateway.port))
                gateway.popen.terminate()
                await asyncio.to_thread(gateway.popen.wait, 60)
    lost = check(load, kills, folder, found)
    in_ledger, words = written(folder).cost, sum(len(stream.words) for stream in load.streams)
    print(
        f"\ncampaign running streams, kill -9: {KILLS} kills, {workers} workers, {len(load.streams)} streams, {len(killed)} of "
        f"them killed; the oldest word that is missing came {lost:.2f} s before the kill; {words} words read, "
        f"{in_ledger} in the ledger, {budgets} in the budget"
    )
    assert killed
    assert lost < LOST_SECONDS
    assert budgets[0] == budgets[1]
    most_lost = len(killed) * LOST_SECONDS / WORD_SECONDS
    assert words - most_lost <= budgets[0] <= words + len(killed) * LOST_SECONDS / WORD_SECONDS
    assert abs(budgets[0] - in_ledger) <= most_lost


async def test_a_killed_gateway_loses_no_more_than_the_last_moment_of_its_streams(tmp_path: Path) -> None:
    await run(tmp_path, 1)


async def test_a_killed_worker_loses_no_more_than_the_last_moment_of_its_streams(tmp_path: Path) -> None:
    await run(tmp_path, 2)
