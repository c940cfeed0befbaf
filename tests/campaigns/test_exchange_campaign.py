"""A million requests to an upstream that misbehaves in all the ways that may bring an answer to the wrong one: none gets what
belongs to another, and none misses an answer that the upstream has given properly.

Full length: GATEWAY_TEST_CAMPAIGN=full.
"""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest
import uvloop

from gateway.core.upstream_errors import UpstreamFailed, UpstreamTimeout
from gateway.providers.transport.base import Timeouts, TransportRequest
from gateway.providers.transport.http1_client import Http1Transport
from gateway.providers.transport.http1_response import Http1Response
from tests.campaigns.exchange_upstream import ANSWERS, FAULTS, IDS, ExchangeUpstream, body_of
from tests.campaigns.fuzzing import Campaign

pytestmark = [pytest.mark.campaign, pytest.mark.timeout(3600)]

CALLERS = 32
TIMEOUTS = Timeouts(5, 1, 5)
RARE = ("late", "too-long")
"""Ways that cost the caller its whole time limit."""


def choose_way(rng: random.Random) -> str:
    way = rng.choice(ANSWERS) if rng.random() < 0.6 else rng.choice(FAULTS)
    return "length" if way in RARE and rng.random() < 0.9 else way


def create_request(rng: random.Random, url: str, number: int, way: str) -> TransportRequest:
    method = "HEAD" if way in ("head", "body-of-head") else "GET"
    path = f"{url}/{number}/{way}"
    if way == "early" or (method == "GET" and rng.random() < 0.3):
        size = rng.choice((0, 10, 5000))
        if way == "early" or rng.random() < 0.2:
            return TransportRequest("POST", path, {"Content-Length": str(9 * size)}, uploaded(size))
        return TransportRequest("POST", path, {}, bytes(size))
    return TransportRequest(method, path, {})


async def uploaded(size: int) -> AsyncIterator[bytes]:
    yield bytes(size)
    if size:
        await asyncio.sleep(0)
        for _ in range(8):
            yield bytes(size)


async def read(rng: random.Random, response: Http1Response) -> tuple[bytes, bool]:
    """Returns what was read, and whether that is all of it. Some readers stop early."""
    if (style := rng.random()) < 0.6:
        return await response.read(100_000), True
    found = b""
    async for chunk in response.chunks():
        found += chunk
        if style > 0.9:
            return found, False
    return found, style < 0.8


async def call(rng: random.Random, transport: Http1Transport, request: TransportRequest) -> tuple[bytes, bool]:
    """Returns everything that a caller sees of an answer, and whether it has read all of it."""
    response = await transport.send(request)
    try:
        body, is_whole = await read(rng, response)
        return body + b"\n" + "".join(response.headers.values()).encode(), is_whole
    finally:
        response.close()


class Callers:
    """Sends the requests, and judges what comes back."""

    def __init__(self, campaign: Campaign, url: str) -> None:
        self.campaign, self.url = campaign, url
        self.numbers = iter(range(campaign.cases))

    async def run(self, transport: Http1Transport) -> None:
        for number in self.numbers:
            rng = random.Random(f"{self.campaign.seed}/{number}")
            way = choose_way(rng)
            await self._judge(rng, number, way, self._start(rng, transport, number, way))

    def _start(
        self, rng: random.Random, transport: Http1Transport, number: int, way: str
    ) -> "asyncio.Task[tuple[bytes, bool]]":
        return asyncio.create_task(call(rng, transport, create_request(rng, self.url, number, way)))

    async def _judge(self, rng: random.Random, number: int, way: str, task: "asyncio.Task[tuple[bytes, bool]]") -> None:
        counts = self.campaign.counts
        if is_cancelled := rng.random() < 0.1:
            for _ in range(rng.randrange(12)):
                await asyncio.sleep(0)
            task.cancel()
        (result,) = await asyncio.gather(task, return_exceptions=True)
        if isinstance(result, UpstreamFailed | asyncio.CancelledError):
            counts["cancelled" if isinstance(result, asyncio.CancelledError) else "failed"] += 1
            if isinstance(result, UpstreamTimeout) and way not in RARE:
                counts["waited too long for a busy machine"] += 1
            elif way in ANSWERS and way != "early" and not is_cancelled:
                self.campaign.fail(number, f"no answer: {way}", result)
        elif isinstance(result, BaseException):
            self.campaign.fail(number, f"an unexpected exception: {way}", result)
        else:
            counts["answers"] += 1
            seen, is_whole = result
            if {int(found) for found in IDS.findall(seen)} - {number}:
                self.campaign.fail(number, f"exchanged: {way}", seen)
            if is_whole and way in ("length", "chunks", "pieces", "interim", "no-length", "old-version", "gzip"):
                expected = body_of(number)[:45] if way == "chunks" else body_of(number)
                if not seen.startswith(expected + b"\n"):
                    self.campaign.fail(number, f"another body: {way}", seen)


async def run(campaign: Campaign) -> Counter[str]:
    ways: Counter[str] = Counter()
    rng = random.Random(campaign.seed)
    server = await asyncio.get_running_loop().create_server(
        lambda: ExchangeUpstream(rng, ways), "127.0.0.1", 0, backlog=1024
    )
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    async with aclosing(Http1Transport(TIMEOUTS, environ={})) as transport:
        callers = Callers(campaign, url)
        async with asyncio.TaskGroup() as group:
            for _ in range(CALLERS):
                group.create_task(callers.run(transport))
    server.close()
    return ways


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_no_answer_reaches_another_request(loop: type[asyncio.AbstractEventLoop]) -> None:
    campaign = Campaign("exchanged answers", 6000, 1_000_000)
    with asyncio.Runner(loop_factory=loop) as runner:
        ways = runner.run(run(campaign))
    campaign.counts.update(ways)
    campaign.report()
    assert not ways["half requests"]
    assert campaign.counts["waited too long for a busy machine"] < campaign.cases / 1000
    assert all(ways[way] > campaign.cases / 1500 for way in (*ANSWERS, *FAULTS))
    assert ways["answers that nobody has asked for"] > campaign.cases / 1000
