"""A limit for k requests lets exactly k of many simultaneous ones through, with one worker and with four; a limit on requests
at a time serves them all, and never more at once than it says.

Each round has a token of its own. Full length: GATEWAY_TEST_CAMPAIGN=full, 100 rounds of each cell.
"""

import asyncio
import json
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.support.gateway import Process, gateway_process
from tests.support.tokens import content, entry
from tests.support.upstream import Connection, Received, answer, running_upstream
from tests.support.wire import post, request

FULL = os.environ.get("GATEWAY_TEST_CAMPAIGN") == "full"
ROUNDS = 100 if FULL else 2
SPARES = 10
"""Rounds of a cell that may be run again because the machine was too slow for them."""
CROWDS = (2, 8, 64, 512) if FULL else (2, 8, 64)
WORKERS = (1, 4)
MOST_A_MINUTE = 8
"""So that a rate pays back its next request only after seven seconds."""
RESPONSE_SECONDS = 0.01
ROUND_SECONDS = 90.0
"""More than any wait in the queue."""

MODEL = "counted"
USED = 21
"""Tokens of one request, a word of prompt and twenty of answers. It is also the least that the gateway expects of it; at most
it expects 28. At a dollar for a million tokens, these are micro-dollars, too."""
CHAT = json.dumps(
    {"model": MODEL, "messages": [{"role": "user", "content": "x"}], "max_tokens": 1, "n": USED - 1},
    separators=(",", ":"),
).encode()
PRICES = f'[prices."{MODEL}"]\ninput = 1\noutput = 1\n'

pytestmark = [pytest.mark.campaign, pytest.mark.timeout(1800)]


class Kind(NamedTuple):
    """A limit, and what the refused are told."""

    name: str
    type: str
    code: str
    is_rate: bool

    def allowed(self, crowd: int) -> int:
        """How many of a crowd: half, and no more than a rate can keep apart from its refill."""
        half = max(1, crowd // 2)
        return min(half, MOST_A_MINUTE) if self.is_rate else half

    def limits(self, allowed: int) -> dict[str, Any]:
        """For exactly so many requests."""
        size = {"rpm": allowed, "tpm": allowed * USED, "budget": f"{allowed * USED / 1_000_000:.6f}"}[self.name]
        return {self.name: size}


KINDS = (
    Kind("rpm", "requests", "rate_limit_exceeded", True),
    Kind("tpm", "tokens", "rate_limit_exceeded", True),
    Kind("budget", "insufficient_quota", "insufficient_quota", False),
)


class ProviderResponse(NamedTuple):
    status: int
    body: bytes


class Client(asyncio.Protocol):
    """A kept connection that carries one request at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._received = b""
        self._answer: asyncio.Future[ProviderResponse] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def ask(self, data: bytes) -> "asyncio.Future[ProviderResponse]":
        assert self._transport is not None
        self._received, self._answer = b"", asyncio.get_running_loop().create_future()
        self._transport.write(data)
        return self._answer

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, mark, body = self._received.partition(b"\r\n\r\n")
        if not mark or self._answer is None or self._answer.done():
            return
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0])
        if len(body) >= length:
            self._answer.set_result(ProviderResponse(int(head[9:12]), body))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(exc or ConnectionResetError("closed without an answer"))

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()


@asynccontextmanager
async def crowd_of(count: int, port: int) -> AsyncIterator[list[Client]]:
    """So many connections."""
    loop = asyncio.get_running_loop()
    clients: list[Client] = []
    try:
        for _ in range(count):
            clients.append((await loop.create_connection(Client, "127.0.0.1", port))[1])
        yield clients
    finally:
        for client in clients:
            client.close()


async def asked_at_once(clients: list[Client], secret: str) -> tuple[list[ProviderResponse], float]:
    """What all of them are told, and after how many seconds the last one was."""
    data = post(body=CHAT, headers=[("api-key", secret)])
    began = time.monotonic()
    async with asyncio.timeout(ROUND_SECONDS):
        answers = await asyncio.gather(*[client.ask(data) for client in clients])
    return answers, time.monotonic() - began


def micro(dollars: float) -> int:
    return round(dollars * 1_000_000)


async def left(client: Client, secret: str, seconds: float = 10) -> dict[str, Any]:
    """The one limit of a token, once nothing of it is reserved. Meanwhile it is never overrun."""
    deadline = time.monotonic() + seconds
    while True:
        told = await client.ask(request("GET", "/api/me", [("api-key", secret)]))
        assert told.status == 200, told
        (found,) = json.loads(told.body)["left"]
        is_money = found["kind"] == "budget"
        used, reserved, limit = (
            micro(found[name]) if is_money else found[name] for name in ("used", "reserved", "limit")
        )
        assert used + reserved <= limit, f"overrun: {found}"
        if reserved == 0:
            return {**found, "used": used, "limit": limit}
        assert time.monotonic() < deadline, f"still reserved: {found}"
        await asyncio.sleep(0.005)


@dataclass
class Cell:
    """What one kind of limit did to one crowd."""

    passes: int = 0
    refusals: int = 0
    overruns: int = 0
    underruns: int = 0
    repeated: int = 0
    slowest: float = 0.0

    def note(self, passed: int, refused: int, allowed: int, seconds: float) -> None:
        self.passes += passed
        self.refusals += refused
        self.overruns += passed > allowed
        self.underruns += passed < allowed
        self.slowest = max(self.slowest, seconds)

    def __str__(self) -> str:
        said = f"{self.passes} passed, {self.refusals} refused, {self.overruns} overruns, {self.underruns} underruns"
        again = f", {self.repeated} rounds too slow to tell were repeated" if self.repeated else ""
        return f"{said}, slowest round {self.slowest * 1000:.0f} ms{again}"


def fresh_tokens(limits: dict[str, Any], label: str, count: int) -> tuple[list[dict[str, Any]], list[str]]:
    """Entries of so many fresh tokens, and their secrets."""
    secrets = [f"sk-made-up-{label}-{number:04}" for number in range(count)]
    return [entry(secret, name=f"{label} {n}", limits=limits) for n, secret in enumerate(secrets)], secrets


@pytest.mark.parametrize("kind", KINDS, ids=[kind.name for kind in KINDS])
@pytest.mark.parametrize("workers", WORKERS)
async def test_exactly_as_many_as_are_allowed_pass(tmp_path: Path, workers: int, kind: Kind) -> None:
    secrets: dict[int, Iterator[str]] = {}
    entries: list[dict[str, Any]] = []
    for crowd in CROWDS:
        made, known = fresh_tokens(kind.limits(kind.allowed(crowd)), f"{kind.name}-{crowd}", ROUNDS + SPARES)
        entries += made
        secrets[crowd] = iter(known)
    (tmp_path / "api_tokens.json").write_bytes(content(*entries))
    (tmp_path / "gateway.toml").write_text(PRICES)
    began = time.monotonic()
    cells: dict[int, Cell] = {}
    with gateway_process(
        tmp_path, GATEWAY_WORKERS=str(workers), GATEWAY_CONFIG=str(tmp_path / "gateway.toml"),
        GATEWAY_BACKEND="echo",
    ) as gateway:  # fmt: skip
        for crowd in CROWDS:
            cells[crowd] = await rounds(gateway, kind, crowd, secrets[crowd])
        assert await asyncio.to_thread(gateway.stop) == 0
    print(f"\ncampaign limits, {kind.name}, workers {workers}, {ROUNDS} rounds each, {time.monotonic() - began:.0f} s")
    for crowd, cell in cells.items():
        print(f"  {kind.allowed(crowd)} of {crowd}: {cell}")
    assert all((cell.overruns, cell.underruns) == (0, 0) for cell in cells.values())
    assert {crowd: cell.passes for crowd, cell in cells.items()} == {
        crowd: ROUNDS * kind.allowed(crowd) for crowd in CROWDS
    }


async def rounds(gateway: Process, kind: Kind, crowd: int, secrets: Iterator[str]) -> Cell:
    cell, allowed = Cell(), kind.allowed(crowd)
    async with crowd_of(crowd, gateway.port) as clients:
        done = 0
        while done < ROUNDS:
            secret = next(secrets)
            answers, seconds = await asked_at_once(clients, secret)
            if kind.is_rate and seconds >= 60 / allowed:
                cell.repeated += 1
                continue
            check_refusals(answers, kind)
            passed = sum(one.status == 200 for one in answers)
            if kind.name == "budget":
                found = await left(clients[0], secret)
                assert (found["used"], found["limit"]) == (passed * USED, allowed * USED)
            cell.note(passed, len(answers) - passed, allowed, seconds)
            done += 1
    return cell


def check_refusals(answers: list[ProviderResponse], kind: Kind) -> None:
    assert {one.status for one in answers} <= {200, 429}, Counter(one.status for one in answers)
    for one in answers:
        if one.status == 429:
            error = json.loads(one.body)["error"]
            assert (error["type"], error["code"]) == (kind.type, kind.code), error


class Counting:
    """An upstream that keeps each request for a moment, and counts how many it has at once."""

    def __init__(self) -> None:
        self.now = 0
        self.most = 0
        self.served = 0

    async def __call__(self, _received: Received, connection: Connection) -> None:
        self.now += 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(RESPONSE_SECONDS)
        self.now -= 1  # before the answer: what comes because of it must not meet it here
        self.served += 1
        await connection.send(answer(ANSWER))

    def begin(self) -> None:
        assert self.now == 0
        self.most = self.served = 0


ANSWER = json.dumps(
    {
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": MODEL,
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "x"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    }
).encode()  # fmt: skip


@pytest.mark.parametrize("workers", WORKERS)
async def test_never_more_than_allowed_at_a_time_and_all_are_served(tmp_path: Path, workers: int) -> None:
    secrets: dict[int, list[str]] = {}
    entries: list[dict[str, Any]] = []
    for crowd in CROWDS:
        limits = {"max_parallel": at_a_time(crowd)}
        made, secrets[crowd] = fresh_tokens(limits, f"parallel-{crowd}", ROUNDS)
        entries += made
    (tmp_path / "api_tokens.json").write_bytes(content(*entries))
    began = time.monotonic()
    upstream = Counting()
    told = []
    async with running_upstream(upstream) as listening:
        with gateway_process(
            tmp_path, GATEWAY_WORKERS=str(workers), GATEWAY_UPSTREAM_URL=listening.url,
        ) as gateway:  # fmt: skip
            for crowd in CROWDS:
                most, slowest = await parallel_rounds(gateway, upstream, crowd, secrets[crowd])
                told.append(
                    f"  {at_a_time(crowd)} at a time of {crowd}: {ROUNDS * crowd} served, {most} at once at most, "
                    f"slowest round {slowest * 1000:.0f} ms"
                )
            assert await asyncio.to_thread(gateway.stop) == 0
    print(f"\ncampaign limits, max_parallel, workers {workers}, {ROUNDS} rounds each, {time.monotonic() - began:.0f} s")
    print("\n".join(told))


def at_a_time(crowd: int) -> int:
    return min(8, max(1, crowd // 2))


async def parallel_rounds(gateway: Process, upstream: Counting, crowd: int, secrets: list[str]) -> tuple[int, float]:
    """How many the upstream had at once at most, and the seconds of the slowest round."""
    most, slowest = 0, 0.0
    async with crowd_of(crowd, gateway.port) as clients:
        for secret in secrets:
            upstream.begin()
            answers, seconds = await asked_at_once(clients, secret)
            assert Counter(one.status for one in answers) == {200: crowd}
            assert upstream.served == crowd
            assert upstream.most <= at_a_time(crowd), "overrun"
            most, slowest = max(most, upstream.most), max(slowest, seconds)
    return most, slowest
