"""One admitted request: whatever happens to it, it is settled and recorded once, and the table says what it is charged."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway.auth.principal import Principal
from gateway.core import sse
from gateway.core.errors import BadRequest
from gateway.core.upstream_errors import UpstreamInvalid, UpstreamTimeout, UpstreamUnreachable
from gateway.inference.models import InferenceRequest
from gateway.providers.base import ProviderRequest
from gateway.usage.models import Usage
from tests.support.inference import (
    LIMITS,
    PRICES,
    InferenceSetup,
    answering,
    chat,
    failing,
    make_inference,
    post,
    streaming,
    token_with,
)

USAGE = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}
WHOLE = json.dumps({"choices": [], "usage": USAGE}).encode()
WORD = sse.encode_event(json.dumps({"choices": [{"index": 0, "delta": {"content": "x"}}]}).encode())
REPORT = sse.encode_event(WHOLE)


async def check_settled(setup: InferenceSetup, principal: Principal, tokens: int, cost: int) -> None:
    """Nothing is reserved any more, and what counts is what was used."""
    counters = await setup.counters(principal)
    assert all(reserved == 0 for _, reserved in counters.values())
    assert (counters["tokens"][0], counters["budget"][0]) == (tokens, cost)


async def test_a_whole_answer_is_settled_by_its_usage() -> None:
    setup, principal = make_inference(answering(WHOLE), prices=PRICES), token_with(LIMITS)
    await setup.respond(principal, chat())
    assert setup.received == [WHOLE]
    await check_settled(setup, principal, 8, 35)
    [entry] = setup.ledger.entries
    assert (entry.usage, entry.cost, entry.partial, entry.estimated) == (Usage(5, 3), 35, False, False)
    assert (entry.request_id, entry.token_id, entry.owner) == ("req_1", "tok_1", "ann@example.com")
    assert (entry.model, entry.deployment, entry.endpoint, entry.status) == ("m", "scripted", "chat/completions", 200)
    assert entry.first_byte_ms is not None


async def test_a_whole_answer_that_does_not_say_is_estimated_and_marked() -> None:
    setup = make_inference(answering(b'{"choices":[{"message":{"content":"Hello"}}]}'), prices=PRICES)
    principal = token_with(LIMITS)
    await setup.respond(principal, chat())
    [entry] = setup.ledger.entries
    assert (entry.estimated, entry.usage) == (True, Usage(11, 2))
    await check_settled(setup, principal, 13, entry.cost)


async def test_a_stream_that_does_not_say_is_counted_by_its_chunks() -> None:
    setup, principal = make_inference(streaming(WORD, WORD, WORD, sse.DONE), prices=PRICES), token_with(LIMITS)
    await setup.respond(principal, chat(stream=True))
    [entry] = setup.ledger.entries
    assert (entry.usage, entry.estimated, entry.partial) == (Usage(11, 3), True, False)


@pytest.mark.parametrize("error", [UpstreamInvalid("broken"), asyncio.CancelledError(), ConnectionResetError()])
async def test_a_stream_that_breaks_is_counted_as_far_as_it_came(error: BaseException) -> None:
    """Also when it is the client that has gone: what was used is not for free."""
    setup, principal = make_inference(streaming(WORD, WORD, error=error), prices=PRICES), token_with(LIMITS)
    with pytest.raises(type(error)):
        await setup.respond(principal, chat(stream=True))
    [entry] = setup.ledger.entries
    assert (entry.usage, entry.estimated, entry.partial) == (Usage(11, 2), True, True)
    assert entry.status == (502 if isinstance(error, UpstreamInvalid) else 499)
    await check_settled(setup, principal, 13, entry.cost)


@pytest.mark.parametrize("error", [UpstreamUnreachable("refused"), UpstreamInvalid("nonsense"), RuntimeError("bug")])
async def test_what_never_began_costs_nothing(error: Exception) -> None:
    setup, principal = make_inference(failing(error), prices=PRICES), token_with(LIMITS)
    with pytest.raises(type(error)):
        await setup.respond(principal, chat())
    [entry] = setup.ledger.entries
    assert (entry.usage, entry.cost, entry.partial) == (Usage(), 0, False)
    assert entry.status == (500 if isinstance(error, RuntimeError) else 502)
    await check_settled(setup, principal, 0, 0)


@pytest.mark.parametrize(
    ("error", "stream"),
    [(UpstreamTimeout("slow"), False), (UpstreamTimeout("slow"), True), (asyncio.CancelledError(), True)],
)
async def test_an_upstream_that_was_at_work_has_read_the_prompt_at_least(error: BaseException, stream: bool) -> None:
    setup, principal = make_inference(failing(error), prices=PRICES), token_with(LIMITS)
    with pytest.raises(type(error)):
        await setup.respond(principal, chat(stream=stream))
    [entry] = setup.ledger.entries
    assert (entry.usage, entry.estimated, entry.partial) == (Usage(11, 0), True, True)
    await check_settled(setup, principal, 11, 11)


@pytest.mark.parametrize(
    ("fields", "budget", "usage", "cost"),
    [
        ({"max_tokens": 500}, "1", Usage(11, 500), 11 + 5000),
        ({"max_tokens": 500, "n": 3}, "1", Usage(11, 1500), 11 + 15_000),
        ({}, "2", Usage(11, 1000), 11 + 131_072 * 10),
        ({}, "0.5", Usage(11, 1000), 500_000),
    ],
)
async def test_a_client_that_leaves_a_whole_response_is_charged_what_was_reserved(
    fields: dict[str, Any], budget: str, usage: Usage, cost: int
) -> None:
    """The upstream works on, and bills. No more is charged than what the budget had."""
    setup, principal = (
        make_inference(failing(asyncio.CancelledError()), prices=PRICES),
        token_with({**LIMITS, "budget": budget}),
    )
    with pytest.raises(asyncio.CancelledError):
        await setup.respond(principal, chat(**fields))
    [entry] = setup.ledger.entries
    assert (entry.usage, entry.cost, entry.estimated, entry.partial) == (usage, cost, True, True)
    await check_settled(setup, principal, usage.total_tokens, cost)


async def test_without_limits_the_ledger_has_the_response_that_the_request_allowed() -> None:
    setup = make_inference(failing(asyncio.CancelledError()), prices=PRICES)
    with pytest.raises(asyncio.CancelledError):
        await setup.respond(token_with(None), chat(max_tokens=70))
    assert (setup.ledger.entries[0].usage, setup.ledger.entries[0].cost) == (Usage(11, 70), 711)


async def test_a_client_that_leaves_in_the_middle_of_a_whole_response_is_charged_what_was_reserved() -> None:
    setup, principal = (
        make_inference(
            streaming(b'{"choices":', error=asyncio.CancelledError(), content_type="application/json"), prices=PRICES
        ),
        token_with(LIMITS),
    )
    with pytest.raises(asyncio.CancelledError):
        await setup.respond(principal, chat(max_tokens=500))
    await check_settled(setup, principal, 511, 5011)


@pytest.mark.parametrize("content_type", ["application/json", "application/octet-stream"])
async def test_a_response_in_chunks_that_reports_nothing_is_counted_by_its_size(content_type: str) -> None:
    body = json.dumps({"choices": [{"message": {"role": "assistant", "content": "word " * 80}}]}).encode()
    setup = make_inference(streaming(body[:50], body[50:], content_type=content_type), prices=PRICES)
    await setup.respond(token_with(LIMITS), chat())
    by_size = -(-len(body) // 4)
    assert setup.ledger.entries[0].usage == Usage(11, 100 if content_type == "application/json" else by_size)


async def test_a_stream_that_reports_early_and_breaks_is_charged_its_text() -> None:
    """Anthropic reports one completion token at the beginning, and the rest at the end."""
    begin = sse.encode_event(b'{"type":"message_start","message":{"usage":{"input_tokens":25,"output_tokens":1}}}')
    text = sse.encode_event(b'{"type":"content_block_delta","delta":{"type":"text_delta","text":"%s"}}' % (b"a" * 400))
    setup = make_inference(streaming(begin, text, text, error=UpstreamInvalid("broken")), prices=PRICES)
    with pytest.raises(UpstreamInvalid):
        await setup.respond(token_with(LIMITS), chat(stream=True))
    assert setup.ledger.entries[0].usage == Usage(25, 200)


@pytest.mark.parametrize("turns", range(1, 30, 3))
async def test_cancelled_at_any_moment_nothing_stays_reserved(turns: int) -> None:
    setup, principal = make_inference(streaming(*[WORD] * 3, hangs=True), prices=PRICES), token_with(LIMITS)
    task = asyncio.create_task(setup.respond(principal, chat(stream=True)))
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert all(reserved == 0 for _, reserved in (await setup.counters(principal)).values())
    assert len(setup.ledger.entries) <= 1


async def test_ids_do_not_become_endpoints() -> None:
    setup = make_inference(answering(b"{}"))
    await setup.respond(token_with(None), ProviderRequest("GET", "files/file-123/content"))
    [entry] = setup.ledger.entries
    assert (entry.endpoint, entry.model, entry.usage, entry.estimated) == ("files", None, Usage(), False)


async def test_usage_is_read_from_json_that_passes_in_chunks() -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(WHOLE), 7):
            yield WHOLE[start : start + 7]

    setup = make_inference(answering(chunks), prices=PRICES)
    await setup.respond(token_with(None), post("images/generations", {"model": "m", "query": "q"}))
    assert setup.body == WHOLE
    [entry] = setup.ledger.entries
    assert (entry.usage, entry.endpoint, entry.partial) == (Usage(5, 3, images=1), "images/generations", False)


async def test_other_bodies_that_break_off_are_charged_the_prompt() -> None:
    setup = make_inference(
        streaming(b"sound", error=UpstreamInvalid("broken"), content_type="audio/mpeg"), prices=PRICES
    )
    with pytest.raises(UpstreamInvalid):
        await setup.respond(token_with(None), post("audio/speech", {"model": "m", "input": "Hello"}))
    [entry] = setup.ledger.entries
    assert (entry.partial, entry.estimated, entry.usage.completion_tokens) == (True, True, 0)
    assert entry.usage.prompt_tokens > 0


async def test_a_body_that_is_too_long_to_keep_passes_and_is_estimated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.inference.usage_tracker.MAX_READ_BYTES", 10)

    async def chunks() -> AsyncIterator[bytes]:
        yield WHOLE

    setup = make_inference(answering(chunks), prices=PRICES)
    await setup.respond(token_with(None), post("images/generations", {"model": "m", "query": "q"}))
    assert setup.body == WHOLE
    assert setup.ledger.entries[0].estimated


@pytest.mark.parametrize("number", ["1e999", "9" * 5000])
async def test_a_number_that_no_machine_can_hold_is_refused(number: str) -> None:
    body = b'{"model":"m","messages":[],"max_tokens":%s}' % number.encode()
    setup = make_inference(streaming(WORD), prices=PRICES)
    principal = token_with({"max_parallel": 2})
    with pytest.raises(BadRequest):
        await setup.respond(principal, post("chat/completions", body))
    assert setup.ledger.entries == []
    assert (await setup.counters(principal))["parallel"] == (0, 0)


@pytest.mark.parametrize("number", ["1e300", "9" * 30])
async def test_a_number_that_no_model_can_reach_leaks_nothing(number: str) -> None:
    body = b'{"model":"m","messages":[],"stream":true,"max_tokens":%s}' % number.encode()
    setup = make_inference(streaming(WORD, error=asyncio.CancelledError()), prices=PRICES)
    principal = token_with({"max_parallel": 2})
    with pytest.raises(asyncio.CancelledError):
        await setup.respond(principal, post("chat/completions", body))
    assert [entry.usage.completion_tokens for entry in setup.ledger.entries] == [1]
    assert (await setup.counters(principal))["parallel"] == (0, 0)


async def test_what_is_read_again_was_counted_when_it_was_made() -> None:
    setup = make_inference(answering(WHOLE), prices=PRICES)
    await setup.respond(token_with(None), ProviderRequest("GET", "responses/resp_1"))
    assert (setup.ledger.entries[0].usage, setup.ledger.entries[0].cost) == (Usage(), 0)


@pytest.mark.parametrize("limits", [None, LIMITS])
async def test_headers_tell_what_remains_of_limits(limits: dict[str, Any] | None) -> None:
    setup = make_inference(answering(WHOLE), prices=PRICES)
    request = InferenceRequest("req_1", chat())
    async with setup.inference.open(token_with(limits), request):
        assert request.usage is not None
        headers = request.usage.headers()
    assert headers.get("x-ratelimit-remaining-requests") == (None if limits is None else "99")
