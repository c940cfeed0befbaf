"""`python -m bench.admission`: CPU time of admission and metering alone, without HTTP, a server or an upstream."""

import argparse
import asyncio
import contextlib
import gc
import itertools
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import uvloop

from bench import payloads, stream_upstream
from gateway.auth.principal import Principal
from gateway.core.clock import SteadyClock
from gateway.core.json_body import parse_object, read_model, read_stream
from gateway.inference.admission import Admission, AdmissionRules
from gateway.inference.models import InferenceRequest
from gateway.inference.service import Inference, UsageRules
from gateway.limits.config import read_limits
from gateway.limits.limiter import Limiter
from gateway.limits.stores.leased import LeasedCounterStore
from gateway.limits.stores.memory import MemoryCounterStore
from gateway.limits.stores.sqlite import SqliteCounterStore
from gateway.observability.metrics import Metrics
from gateway.providers.base import EVENT_STREAM, JSON, ProviderRequest, ProviderResponse
from gateway.routing.catalog import Catalog
from gateway.tokens.models import SecretMatch, TokenRecord
from gateway.usage.ledger import Ledger
from gateway.usage.pricing.prices import load_prices, packaged_prices
from gateway.usage.stores.sqlite import SqliteUsageStore

PATH = "chat/completions"
CHUNKS = 100
SLICES = 10
"""Of one round, in each of which every work has its turn."""
STREAMS_PER_REQUESTS = 20
"""A stream takes as long as many requests: a round has fewer of them."""
QUEUE_SIZE = 100
COMPLETION_TOKENS = 1000

RPM: Mapping[str, Any] = {"rpm": 10**9}
FOUR: Mapping[str, Any] = {"rpm": 10**9, "tpm": 10**12, "max_parallel": 10**6, "budget": "900000000/month"}
"""Limits that are never reached."""
LIMITS: Mapping[str, tuple[Mapping[str, Any] | None, ...]] = {
    "no limits": (None,),
    "rpm": (RPM,),
    "rpm, tpm, parallel, budget": (FOUR,),
    "the same, and a parent's": (FOUR, FOUR),
}

BackgroundTask = Callable[[], Coroutine[Any, Any, None]]
Work = Callable[[int], Awaitable[None]]
"""Makes a number of requests, one after the other."""


class Stub:
    """A provider whose response is ready: whole, or a stream of ``chunks`` events."""

    name = "stub"

    def __init__(self, chunks: int) -> None:
        self.whole = payloads.chat_answer().encode()
        self.events = [stream_upstream.content_event(number) for number in range(chunks)]
        self.events += [stream_upstream.usage_event(chunks), b"data: [DONE]\n\n"]

    async def send(self, request: ProviderRequest) -> ProviderResponse:
        if request.stream:
            return ProviderResponse(200, EVENT_STREAM, self._pieces())
        return ProviderResponse(200, JSON, self.whole)

    async def _pieces(self) -> AsyncIterator[bytes]:
        for event in self.events:
            yield event

    async def models(self) -> list[dict[str, Any]]:
        return []

    async def aclose(self) -> None:
        """Nothing is open."""


@dataclass
class Case:
    """Measures one kind of token and counters with one kind of request.

    Costs are CPU microseconds per request, one number for each slice of a round.
    """

    ledger: Ledger
    background: Sequence[BackgroundTask]
    works: tuple[Work, Work, Work]
    """The same requests without admission and metering; with both; and with the rate limit headers, too."""
    costs: list[tuple[float, ...]] = field(default_factory=list)
    ledger_costs: list[float] = field(default_factory=list)

    async def measure(self, requests: int) -> None:
        tasks = [asyncio.create_task(run()) for run in self.background]
        size = max(1, requests // SLICES)
        for _ in range(SLICES):
            self.costs.append(tuple([await _cpu(work(size)) / size for work in self.works]))
        entries = self.ledger.waiting
        self.ledger_costs.append(await _cpu(self.ledger.flush()) / entries)
        for task in tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def forget(self) -> None:
        self.costs.clear()
        self.ledger_costs.clear()

    @property
    def admission(self) -> float:
        return median(metered - bare for bare, metered, _ in self.costs)

    @property
    def least_admission(self) -> float:
        """From the fastest slice of each work: what the machine disturbed least."""
        bare, metered, _ = map(min, zip(*self.costs, strict=True))
        return float(metered - bare)

    @property
    def headers(self) -> float:
        return median(with_headers - metered for _, metered, with_headers in self.costs)


async def _cpu(work: Awaitable[None]) -> float:
    """Returns the CPU microseconds of the whole process with its threads."""
    began = time.process_time_ns()
    await work
    nanoseconds = time.process_time_ns() - began
    return nanoseconds / 1000


class Bench:
    """Builds the cases. They share a folder, a clock and prices; each has its own counters and its own ledger."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = itertools.count()
        self._clock = SteadyClock()
        self._prices = load_prices(packaged_prices(), {})
        self._counters: list[MemoryCounterStore | LeasedCounterStore] = []
        self._ledgers: list[Ledger] = []

    def case(self, limits: tuple[Mapping[str, Any] | None, ...], store: str, chunks: int | None = None) -> Case:
        """Returns a case. ``chunks`` is the length of the streams; None: the responses are no streams."""
        number = next(self._numbers)
        counters = self._counters_in(store, self._folder / f"counters-{number}.sqlite")
        limiter = Limiter(counters, self._clock, QUEUE_SIZE)
        admission = Admission(limiter, counters, AdmissionRules(COMPLETION_TOKENS, 0), lambda reason: None)
        ledger = Ledger(SqliteUsageStore(self._folder / f"usage-{number}.sqlite"), Metrics(), 0, self._clock)
        stub = Stub(chunks or 0)
        catalog = Catalog(stub, stub, {}, self._prices)
        inference = Inference(catalog, admission, ledger, UsageRules(self._clock, True, str))
        self._ledgers.append(ledger)
        self._counters.append(counters)
        body = (payloads.chat_request() if chunks is None else payloads.stream_request()).encode()
        chain = tuple(_record(place, each) for place, each in enumerate(limits))
        return Case(
            ledger,
            (counters.run, limiter.run),
            (
                lambda count: _bare(stub, body, chain, count),
                lambda count: _metered(inference, body, chain, count, has_headers=False),
                lambda count: _metered(inference, body, chain, count, has_headers=True),
            ),
        )

    def _counters_in(self, store: str, path: Path) -> MemoryCounterStore | LeasedCounterStore:
        return (
            MemoryCounterStore(path) if store == "memory" else LeasedCounterStore(SqliteCounterStore(path, self._clock))
        )

    async def aclose(self) -> None:
        for ledger in self._ledgers:
            await ledger.drain()
        for counters in self._counters:
            await counters.aclose()


def _record(place: int, limits: Mapping[str, Any] | None) -> TokenRecord:
    name = f"bench-{place}"
    return TokenRecord(
        id=f"tok_{place:016x}", name=name, prefix="fgk_", hash=name, created_at=0, limits=read_limits(limits)
    )


def _request(body: bytes) -> ProviderRequest:
    """Returns a new request, made as the endpoint of ``/v1/chat/completions`` makes it, so that nothing in it is cached."""
    fields = parse_object(body)
    stream = read_stream(fields)
    return ProviderRequest("POST", PATH, body=fields.body, fields=fields, model=read_model(fields), stream=stream)


def _request_id(number: int) -> str:
    """Returns ids as the gateway makes them, in the order of time: the ledger sorts them into its index."""
    return f"req_{number:032x}"


def _principal(chain: tuple[TokenRecord, ...]) -> Principal:
    return Principal.of(SecretMatch(chain[0], None), chain[1:])


async def _bare(stub: Stub, body: bytes, chain: tuple[TokenRecord, ...], count: int) -> None:
    for _ in range(count):
        _principal(chain)
        request = InferenceRequest(_request_id(0), _request(body))
        await _read(await stub.send(request.request))
        await asyncio.sleep(0)


async def _metered(
    inference: Inference, body: bytes, chain: tuple[TokenRecord, ...], count: int, *, has_headers: bool
) -> None:
    # No id occurs twice, not even in another work.
    start = time.monotonic_ns()
    for number in range(start, start + count):
        principal = _principal(chain)
        request = InferenceRequest(_request_id(number), _request(body))
        async with inference.open(principal, request) as response:
            if has_headers and request.usage is not None:
                request.usage.headers()
            await _read(response)
        await asyncio.sleep(0)


async def _read(answer: ProviderResponse) -> None:
    if not isinstance(answer.body, bytes):
        async for _ in answer.body:
            pass


async def measure(folder: Path, rounds: int, requests: int) -> str:
    bench = Bench(folder)
    whole = {
        (store, name): bench.case(limits, store) for store in ("memory", "sqlite") for name, limits in LIMITS.items()
    }
    streams = {
        (store, name): [bench.case(LIMITS[name], store, chunks) for chunks in (0, CHUNKS)]
        for store, name in (key for key in whole if key[1] != "rpm")
    }
    short = max(1, requests // STREAMS_PER_REQUESTS)
    loads = [(case, requests) for case in whole.values()] + [
        (case, short) for pair in streams.values() for case in pair
    ]
    for case, count in loads:  # what the first requests find out, and the files that they make, are not counted
        await case.measure(count // 4)
        case.forget()
    # As in the gateway itself: what is there stays, and the collector looks less often.
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
    for _ in range(rounds):
        for case, count in loads:
            await case.measure(count)
    await bench.aclose()
    return "\n".join([*_table_of_requests(whole), "", *_table_of_streams(streams)])


def _table_of_requests(cases: Mapping[tuple[str, str], Case]) -> list[str]:
    lines = [f"{'CPU µs/request':36}admission, metering   at least   ledger write     sum   headers, on top"]
    for (store, name), case in cases.items():
        ledger = median(case.ledger_costs)
        lines.append(
            f"{store:7} {name:28}{case.admission:19.1f} {case.least_admission:10.1f} {ledger:14.1f}"
            f" {case.admission + ledger:7.1f} {case.headers:17.1f}"
        )
    return lines


def _table_of_streams(cases: Mapping[tuple[str, str], Sequence[Case]]) -> list[str]:
    lines = [f"{f'CPU µs/chunk, streams of {CHUNKS}':36}           metering   at least"]
    for (store, name), (empty, full) in cases.items():
        cost = (full.admission - empty.admission) / CHUNKS
        least = (full.least_admission - empty.least_admission) / CHUNKS
        lines.append(f"{store:7} {name:28}{cost:19.2f} {least:10.2f}")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.admission", description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--requests", type=int, default=2000, help="in one round of one row")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gateway-bench-") as folder:
        print(uvloop.run(measure(Path(folder), options.rounds, options.requests)))


if __name__ == "__main__":
    main()
