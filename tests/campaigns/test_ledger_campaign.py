"""What was answered is in the ledger, once: of a killed worker's answers all but those of its last second, of an ended gateway's
every one. And what the dead have reserved is given back.

Full length: GATEWAY_TEST_CAMPAIGN=full, 50 kills and 10 ends.
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
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from gateway.usage.models import HOUR_SECONDS
from gateway.usage.stores.sqlite import LEDGER_FILE
from tests.campaigns.test_revocation_campaign import workers_of
from tests.support.gateway import Process, gateway_process
from tests.support.tokens import content, entry
from tests.support.upstream import Connection, Received, answer, running_upstream
from tests.support.wire import Client, connected, post, request, talk

FULL = os.environ.get("GATEWAY_TEST_CAMPAIGN") == "full"
KILLS = 50 if FULL else 3
KILLS_OF_ONE_GATEWAY = 10
"""A supervisor waits the longer, the more often its workers die young: a new one begins anew."""
ENDS = 10 if FULL else 1
WORKERS = 2
CLIENTS = 16
ANSWERS_OF_A_CONNECTION = 25
"""Then the client makes a new one: a worker that has just been started would get no requests otherwise."""
RESPONSE_SECONDS = 0.02
LOST_SECONDS = 1.0
READ_LATE_SECONDS = 0.25
"""An answer may have been in the client's buffer when its worker was killed."""
GIVEN_BACK_SECONDS = 60.0

SECRET = "sk-made-up-for-the-ledger-campaign"
MODEL = "written-down"
LIMITS = {"max_parallel": 5000, "budget": "1000"}
USAGE = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
"""At a dollar for a million tokens: seven micro-dollars."""
COST = 7
CHAT = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": "x"}], "max_tokens": 4}).encode()
STREAM = CHAT[:-1] + b', "stream": true}'
CHUNK = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": MODEL}
WHOLE = json.dumps({"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": MODEL,
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "x"}, "finish_reason": "stop"}],
    "usage": USAGE}).encode()  # fmt: skip

pytestmark = [pytest.mark.campaign, pytest.mark.timeout(900)]


async def upstream(received: Received, connection: Connection) -> None:
    """Answers after a moment, so that there is always something in flight."""
    await asyncio.sleep(RESPONSE_SECONDS)
    if b'"stream"' not in received.body:
        await connection.send(answer(WHOLE))
        return
    await connection.start_stream()
    delta = {"index": 0, "delta": {"content": "x"}, "finish_reason": None}
    for event in ({**CHUNK, "choices": [delta]}, {**CHUNK, "choices": [], "usage": USAGE}):
        await connection.chunk(b"data: " + json.dumps(event).encode() + b"\n\n")
    await connection.chunk(b"data: [DONE]\n\n")
    await connection.end_stream()


class Acknowledged(NamedTuple):
    """An answer that a client has got to its end, and when."""

    request_id: str
    at: float


class Load:
    """Clients that ask one request after the other."""

    def __init__(self) -> None:
        self.acknowledged: list[Acknowledged] = []
        self.broken = 0
        self._is_over = False

    @asynccontextmanager
    async def running(self, port: int) -> AsyncIterator[None]:
        self._is_over = False
        async with asyncio.TaskGroup() as group:
            for number in range(CLIENTS):
                group.create_task(self._keep_asking(port, STREAM if number % 2 else CHAT))
            try:
                yield
            finally:
                self._is_over = True

    async def _keep_asking(self, port: int, body: bytes) -> None:
        data = post(body=body, headers=[("api-key", SECRET)])
        while not self._is_over:
            try:
                async with connected(port) as client:
                    await self._ask(client, data)
            except (ConnectionError, asyncio.IncompleteReadError):
                self.broken += 1
                await asyncio.sleep(0.01)

    async def _ask(self, client: Client, data: bytes) -> None:
        for _ in range(ANSWERS_OF_A_CONNECTION):
            if self._is_over:
                return
            await client.send(data)
            reply = await client.reply(20)
            if not reply.whole:
                raise ConnectionResetError
            if reply.status == 503:  # it is shutting down
                return
            assert reply.status == 200, reply
            request_id = reply.header("x-request-id")
            assert request_id is not None
            assert b'"usage"' in reply.body or b"[DONE]" in reply.body
            self.acknowledged.append(Acknowledged(request_id, time.monotonic()))


@contextmanager
def gateway_at(folder: Path, url: str) -> Iterator[Process]:
    """All of them have the same files."""
    (folder / "api_tokens.json").write_bytes(content(entry(SECRET, limits=LIMITS)))
    (folder / "gateway.toml").write_text(f'[prices."{MODEL}"]\ninput = 1\noutput = 1\n')
    with gateway_process(
        folder, GATEWAY_WORKERS=str(WORKERS), GATEWAY_CONFIG=str(folder / "gateway.toml"), GATEWAY_UPSTREAM_URL=url,

    ) as gateway:  # fmt: skip
        yield gateway


async def ended(gateway: Process) -> None:
    gateway.popen.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(gateway.popen.wait, 60) == 0
    assert b"lost" not in gateway.log.read_bytes()


class Written(NamedTuple):
    """What the ledger holds."""

    ids: list[str]
    hours: list[tuple[Any, ...]]
    sums: list[tuple[Any, ...]]
    """Of the single entries, in the form of the hours."""

    @property
    def cost(self) -> int:
        return sum(hour[9] for hour in self.hours)


def written(folder: Path) -> Written:
    with contextlib.closing(sqlite3.connect(folder / "data" / LEDGER_FILE)) as connection:
        ids = [row[0] for row in connection.execute("SELECT request_id FROM entries")]
        hours = connection.execute("SELECT * FROM hours ORDER BY 1, 2, 3, 4").fetchall()
        sums = connection.execute(
            f"SELECT at / {HOUR_SECONDS * 1000} * {HOUR_SECONDS}, token_id, coalesce(owner, ''), coalesce(model, ''), count(*),"
            " sum(prompt_tokens), sum(completion_tokens), sum(cached_tokens), sum(reasoning_tokens), sum(cost),"
            " sum(status >= 400), sum(partial), sum(estimated) FROM entries GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4"
        ).fetchall()
    return Written(ids, hours, sums)


async def reserved(port: int) -> tuple[int, float]:
    """Requests at a time, and dollars, that are reserved for the token."""
    reply = await talk(port, request("GET", "/api/me", [("api-key", SECRET)]))
    assert reply.status == 200, reply
    found = {one["kind"]: one for one in reply.json()["left"]}
    return found["parallel"]["used"], found["budget"]["reserved"]


async def spent(port: int) -> int:
    """Micro-dollars, as the counter has them."""
    reply = await talk(port, request("GET", "/api/me", [("api-key", SECRET)]))
    return next(round(one["used"] * 1_000_000) for one in reply.json()["left"] if one["kind"] == "budget")


async def until_all_work(gateway: Process, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while len(workers_of(gateway)) < WORKERS:
        assert time.monotonic() < deadline, "a killed worker is not started again"
        await asyncio.sleep(0.02)


async def kills_under_load(gateway: Process, count: int, chance: random.Random) -> list[float]:
    """When one worker after the other was killed, each time the oldest."""
    times, by_age = [], list[int]()
    for _ in range(count):
        await until_all_work(gateway)
        await asyncio.sleep(1 + chance.random())  # the load between two deaths
        living = workers_of(gateway)
        by_age = [pid for pid in by_age if pid in living] + [pid for pid in living if pid not in by_age]
        times.append(time.monotonic())
        os.kill(by_age[0], signal.SIGKILL)
    await asyncio.sleep(READ_LATE_SECONDS)
    return times


def seconds_before(kills: Sequence[float], at: float) -> float:
    """How long before the next kill."""
    return min((kill - at for kill in kills if kill - at > -READ_LATE_SECONDS), default=float("inf"))


async def test_a_killed_worker_takes_no_more_than_its_last_second(tmp_path: Path) -> None:
    began, chance, load = time.monotonic(), random.Random(7), Load()
    kills: list[float] = []
    async with running_upstream(upstream) as listening:
        while len(kills) < KILLS:
            with gateway_at(tmp_path, listening.url) as gateway:
                async with load.running(gateway.port):
                    kills += await kills_under_load(gateway, min(KILLS_OF_ONE_GATEWAY, KILLS - len(kills)), chance)
                if len(kills) == KILLS:
                    reserved, given_back = await seconds_until_given_back(gateway, kills[-1])
                    counted = await spent(gateway.port)
                await ended(gateway)
    ledger = written(tmp_path)
    there = set(ledger.ids)
    missing = [one for one in load.acknowledged if one.request_id not in there]
    ages = [seconds_before(kills, one.at) for one in missing]
    print(
        f"\ncampaign ledger, kill -9: {len(kills)} kills of one of {WORKERS} workers, {len(load.acknowledged)} answers, "
        f"{load.broken} connections broken; {len(ledger.ids)} entries, {len(ledger.ids) - len(there)} twice; "
        f"{len(missing)} answers missing, the oldest {max(ages, default=0):.2f} s before a kill, "
        f"{sum(age >= LOST_SECONDS for age in ages)} older than {LOST_SECONDS} s"
    )
    print(
        f"  budget: {counted} micro-dollars counted, {ledger.cost} in the ledger, "
        f"{len(load.acknowledged) * COST} acknowledged; "
        f"{reserved} reservations of the dead were given back {given_back:.1f} s after the last kill; "
        f"{time.monotonic() - began:.0f} s"
    )
    assert len({one.request_id for one in load.acknowledged}) == len(load.acknowledged)
    assert len(ledger.ids) == len(there)
    assert ledger.hours == ledger.sums
    assert max(ages, default=0) < LOST_SECONDS


async def seconds_until_given_back(gateway: Process, last_kill: float) -> tuple[int, float]:
    """How many requests at a time the dead had, and how long after the last death nothing of them is reserved."""
    first, money = await reserved(gateway.port)
    assert first > 0, "nobody has died with a request in its hands"
    assert money > 0
    while await reserved(gateway.port) != (0, 0):
        assert time.monotonic() - last_kill < GIVEN_BACK_SECONDS, await reserved(gateway.port)
        await asyncio.sleep(0.2)
    return first, time.monotonic() - last_kill


async def test_an_orderly_end_loses_nothing(tmp_path: Path) -> None:
    began, chance, load = time.monotonic(), random.Random(7), Load()
    async with running_upstream(upstream) as listening:
        for _ in range(ENDS):
            with gateway_at(tmp_path, listening.url) as gateway:
                async with load.running(gateway.port):
                    await asyncio.sleep(0.5 + chance.random())  # the load before the end
                    await ended(gateway)
    ledger = written(tmp_path)
    missing = {one.request_id for one in load.acknowledged} - set(ledger.ids)
    print(
        f"\ncampaign ledger, SIGTERM: {ENDS} ends under load, {len(load.acknowledged)} answers, {len(ledger.ids)} entries, "
        f"{len(missing)} missing, {len(ledger.ids) - len(set(ledger.ids))} twice; {time.monotonic() - began:.0f} s"
    )
    assert load.acknowledged
    assert missing == set()
    assert len(ledger.ids) == len(set(ledger.ids))
    assert ledger.hours == ledger.sums
