"""Streams that go on for long: what they use is settled while they run, and counts once in the end."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core import sse
from gateway.core.upstream_errors import UpstreamInvalid
from gateway.inference.models import InferenceRequest
from gateway.inference.usage_tracker import UsageTracker
from gateway.providers.base import EVENT_STREAM, ProviderRequest, ProviderResponse
from gateway.usage.models import ReportQuery, Usage, UsageTotals
from tests.support.inference import (
    LIMITS,
    PRICES,
    InferenceSetup,
    ScriptedProvider,
    answering,
    chat,
    make_inference,
    post,
    token_with,
)

WORD = sse.encode_event(b'{"choices":[{"index":0,"delta":{"content":"x"}}]}')
REPORT = sse.encode_event(b'{"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":3,"total_tokens":8}}')


class Script:
    """A stream whose next block comes when the test says so; between two blocks the gateway settles what is used so far."""

    def __init__(self, content_type: str = EVENT_STREAM, prices: object = PRICES) -> None:
        self.blocks: asyncio.Queue[bytes | BaseException | None] = asyncio.Queue()
        self.setup = make_inference(answering(self._stream, content_type), prices=prices)
        self.principal = token_with(LIMITS)

    async def _stream(self) -> AsyncIterator[bytes]:
        while (block := await self.blocks.get()) is not None:
            if isinstance(block, BaseException):
                raise block
            yield block

    async def begin(self, request: ProviderRequest) -> "asyncio.Task[ProviderResponse]":
        task = asyncio.create_task(self.setup.respond(self.principal, request))
        await turns()
        await self.setup.ledger.running.settle()  # a stream that ends before the second time is not looked at
        return task

    async def send(self, *blocks: bytes | BaseException | None) -> None:
        for block in blocks:
            self.blocks.put_nowait(block)
        await turns()

    async def settle(self) -> tuple[UsageTotals, tuple[int, int]]:
        """Settles, and returns what reports have, and what of the budget is used and reserved."""
        await self.setup.ledger.running.settle()
        return reported(self.setup), (await self.setup.counters(self.principal))["budget"]


async def turns() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def reported(setup: InferenceSetup) -> UsageTotals:
    found = UsageTotals()
    for row in setup.ledger.store.report(ReportQuery(0, 10**12)):
        found = found.plus(row.totals)
    return found


async def test_what_a_stream_has_used_counts_while_it_runs() -> None:
    script = Script()
    task = await script.begin(chat(stream=True, max_tokens=100))
    waiting, budget = await script.settle()
    assert (waiting.prompt_tokens, waiting.completion_tokens, waiting.partial) == (11, 0, 1)
    assert budget[0] == 11, "the upstream has the prompt"
    claimed = sum(budget)
    for words in (1, 2, 3):
        await script.send(WORD)
        totals, (used, reserved) = await script.settle()
        assert (totals.requests, totals.completion_tokens, totals.cost) == (1, words, 11 + 10 * words)
        assert (used, used + reserved) == (totals.cost, claimed)
    await script.send(REPORT, sse.DONE, None)
    await task
    [entry] = script.setup.ledger.entries
    assert (entry.usage, entry.cost, entry.partial) == (Usage(5, 3), 35, False)
    assert (await script.setup.counters(script.principal))["budget"] == (35, 0)
    script.setup.ledger.store.write([entry])
    assert (reported(script.setup).cost, reported(script.setup).partial) == (35, 0)


async def test_a_stream_that_fails_before_it_begins_is_given_back() -> None:
    fails = asyncio.Event()

    async def act(_request: ProviderRequest) -> ProviderResponse:
        await fails.wait()
        raise UpstreamInvalid("nonsense")

    setup, principal = make_inference(ScriptedProvider(act), prices=PRICES), token_with(LIMITS)
    task = asyncio.create_task(setup.respond(principal, chat(stream=True)))
    for _ in range(2):
        await turns()
        await setup.ledger.running.settle()
    assert (await setup.counters(principal))["budget"][0] == 11
    fails.set()
    with pytest.raises(UpstreamInvalid):
        await task
    counters = await setup.counters(principal)
    assert (counters["budget"], counters["tokens"][0]) == ((0, 0), 0)


async def test_speech_that_streams_is_charged_as_if_the_client_left() -> None:
    script = Script("audio/mpeg", {"m": {"input": 0, "output": 0, "character": Decimal("0.0001")}})
    task = await script.begin(post("audio/speech", {"model": "m", "input": "Hello there"}))
    await script.send(b"\xff")
    await script.settle()
    totals, budget = await script.settle()
    assert (totals.requests, totals.partial, totals.cost, budget) == (1, 1, 1100, (1100, 0))
    await script.send(None)
    await task
    [entry] = script.setup.ledger.entries
    assert (entry.partial, entry.cost) == (False, 1100)
    assert (await script.setup.counters(script.principal))["budget"] == (entry.cost, 0)


async def test_what_has_not_changed_or_has_ended_is_not_settled_again() -> None:
    script, request = Script(), InferenceRequest("req_1", chat(stream=True), 0)
    script.blocks.put_nowait(WORD)
    async with script.setup.inference.open(script.principal, request) as response:
        assert isinstance(response.body, AsyncGenerator)
        assert await anext(response.body) == WORD
        tracker = request.usage
        assert isinstance(tracker, UsageTracker)
        entry = tracker.settle_so_far()
        assert entry is not None
        assert (entry.usage.completion_tokens, entry.partial) == (1, True)
        assert tracker.settle_so_far() is None
        await response.body.aclose()
    assert tracker.settle_so_far() is None


async def test_a_whole_response_is_never_looked_at() -> None:
    setup = make_inference(answering(b'{"choices":[]}'), prices=PRICES)
    request = InferenceRequest("req_1", chat(), 0)
    async with setup.inference.open(token_with(LIMITS), request):
        for _ in range(3):
            await setup.ledger.running.settle()
    assert reported(setup).requests == 0


STEPS = st.lists(st.sampled_from(["word", "report", "settle"]), max_size=15)
ENDS = st.sampled_from(["done", "broken", "client gone"])


async def play(steps: list[str], end: str, *, settles: bool) -> tuple[object, ...]:
    script = Script()
    task = await script.begin(chat(stream=True))
    for step in steps:
        if step == "settle":
            if settles:
                await script.setup.ledger.running.settle()
        else:
            await script.send(WORD if step == "word" else REPORT)
    if end == "client gone":
        task.cancel()
    else:
        await script.send(UpstreamInvalid("broken") if end == "broken" else None)
    await asyncio.wait([task])
    [entry] = script.setup.ledger.entries
    await script.setup.ledger.running.settle()
    counters = await script.setup.counters(script.principal)
    return entry.usage, entry.cost, entry.status, entry.partial, entry.estimated, counters


@given(STEPS, ENDS)
@settings(deadline=None)
def test_settling_on_the_way_changes_no_entry_and_no_counter(steps: list[str], end: str) -> None:
    found = [asyncio.run(play(steps, end, settles=settles)) for settles in (False, True)]
    assert found[0] == found[1]
