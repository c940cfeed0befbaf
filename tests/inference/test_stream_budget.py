"""A stream goes on as long as there is money, and is cut when there is none."""

import pytest

from gateway.core import sse
from gateway.core.errors import QuotaExceeded, StoreUnavailable
from gateway.limits.store import CounterStoreUnavailable
from tests.support.inference import PRICES, chat, make_inference, streaming, token_with

WORD = sse.encode_event(b'{"choices":[{"index":0,"delta":{"content":"x"}}]}')
REPORT = sse.encode_event(b'{"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":3,"total_tokens":8}}')


async def test_a_stream_whose_budget_runs_out_is_cut() -> None:
    """The price is ten micro-dollars for each chunk, and there is money for twenty."""
    setup = make_inference(streaming(*[WORD] * 500, REPORT, sse.DONE), prices=PRICES)
    principal = token_with({"budget": "0.000200"})
    with pytest.raises(QuotaExceeded, match="ran out while it was answered"):
        await setup.respond(principal, chat(stream=True))
    assert 15 <= len(setup.received) <= 22
    [entry] = setup.ledger.entries
    assert (entry.partial, entry.status) == (True, 429)
    assert entry.cost <= 240
    assert (await setup.counters(principal))["budget"] == (entry.cost, 0)


async def test_a_stream_reserves_more_as_long_as_there_is_some() -> None:
    setup = make_inference(streaming(*[WORD] * 3000, sse.DONE), prices=PRICES)
    await setup.respond(token_with({"budget": "1"}), chat(stream=True, max_tokens=None))
    assert len(setup.received) == 3001
    assert setup.ledger.entries[0].cost == 11 + 3000 * 10


async def test_counters_that_cannot_be_reached_end_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    setup = make_inference(streaming(*[WORD] * 500, sse.DONE), prices=PRICES)

    async def extend(*_arguments: object) -> bool:
        raise CounterStoreUnavailable("gone")

    monkeypatch.setattr(setup.admission.limiter, "extend", extend)
    with pytest.raises(StoreUnavailable):
        await setup.respond(token_with({"budget": "1"}), chat(stream=True, max_tokens=1))


async def test_a_stream_of_few_long_chunks_is_cut_by_their_text() -> None:
    """Each chunk has 100 tokens, which cost 1000 micro-dollars. There is money for two."""
    chunk = sse.encode_event(
        b'{"choices":[{"index":0,"delta":{"content":"","reasoning_content":"%s"}}]}' % (b"x" * 400)
    )
    setup = make_inference(streaming(*[chunk] * 50, sse.DONE), prices=PRICES)
    with pytest.raises(QuotaExceeded, match="ran out while it was answered"):
        await setup.respond(token_with({"budget": "0.0025"}), chat(stream=True))
    assert setup.received == [chunk, chunk]
    assert setup.ledger.entries[0].usage.completion_tokens == 300
