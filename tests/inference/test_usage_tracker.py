"""One admitted request: whatever happens to it, it is settled and written down once."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from gateway.auth.principal import Principal
from gateway.core import sse
from gateway.core.errors import QuotaExceeded, RateLimited, UpstreamInvalid, UpstreamTimeout, UpstreamUnreachable
from gateway.core.json_body import parse_object
from gateway.inference.service import Origin
from gateway.limits.config import read_limits
from gateway.providers.base import EVENT_STREAM, JSON, ProviderRequest, ProviderResponse
from gateway.tokens.hierarchy import SecretMatch
from gateway.tokens.models import Role, TokenRecord
from gateway.usage.models import Usage
from tests.support.inference import World, world

PRICES = {"m": {"input": 1, "output": 10}}
LIMITS = {"rpm": 100, "tpm": 100_000, "max_parallel": 5, "budget": "1"}
USAGE = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}
WHOLE = json.dumps({"choices": [], "usage": USAGE}).encode()
HELLO = [{"role": "user", "content": "Hello there"}]


def word(text: str = "x", **more: Any) -> bytes:
    return sse.encode_event(json.dumps({"choices": [{"index": 0, "delta": {"content": text}}], **more}).encode())


REPORT = sse.encode_event(json.dumps({"choices": [], "usage": USAGE}).encode())


class Scripted:
    """A backend that does what the test says."""

    name = "scripted"

    def __init__(self, act: Callable[[ProviderRequest], Awaitable[ProviderResponse]]) -> None:
        self.act = act
        self.requests: list[ProviderRequest] = []

    async def send(self, request: ProviderRequest) -> ProviderResponse:
        self.requests.append(request)
        return await self.act(request)

    async def models(self) -> list[dict[str, Any]]:
        return []

    async def aclose(self) -> None: ...


def answering(body: Any, content_type: str = JSON) -> Scripted:
    async def act(_request: ProviderRequest) -> ProviderResponse:
        return ProviderResponse(200, content_type, body() if callable(body) else body)

    return Scripted(act)


def streaming(*blocks: bytes, error: Exception | None = None, hangs: bool = False) -> Scripted:
    async def stream() -> AsyncIterator[bytes]:
        for block in blocks:
            yield block
        if error is not None:
            raise error
        if hangs:
            await asyncio.Event().wait()

    return answering(stream, EVENT_STREAM)


def failing(error: Exception) -> Scripted:
    async def act(_request: ProviderRequest) -> ProviderResponse:
        raise error

    return Scripted(act)


def holder(limits: dict[str, Any] | None = LIMITS, prefix: str = "sk-abcdefghijk") -> Principal:
    record = TokenRecord(
        id="tok_1",
        name="t",
        prefix=prefix,
        hash="0" * 64,
        created_at=0,
        owner="ann@example.com",
        limits=read_limits(limits),
    )
    return Principal("t", Role.MEMBER, SecretMatch(record, None))


def chat(**fields: Any) -> ProviderRequest:
    body = json.dumps({"model": "m", "messages": HELLO, **fields}).encode()
    stream = fields.get("stream") is True
    return ProviderRequest("POST", "chat/completions", body=body, fields=parse_object(body), model="m", stream=stream)


async def served(
    backend: Scripted, request: ProviderRequest | None = None, principal: Principal | None = None
) -> tuple[World, list[bytes]]:
    """What the client got; raises what it was refused or broken off with. The world is on the error as ``world``."""
    made = world(backend, backend, prices=PRICES)
    principal = principal or holder()
    got: list[bytes] = []
    try:
        usage_tracker = await made.inference.admit(principal, request or chat(), Origin("req_1", 0))
        with usage_tracker:
            answer = await made.inference.run(principal, request or chat(), usage_tracker)
            if isinstance(answer.body, bytes):
                got.append(answer.body)
            else:
                async for piece in answer.body:
                    got.append(piece)
    except BaseException as error:
        error.world, error.got = made, got  # type: ignore[attr-defined]
        raise
    return made, got


def check_settled(made: World, tokens: int, cost: int) -> None:
    """Nothing is reserved any more, and the truth is what counts."""
    for levels in made.counters._tokens.values():
        for name, level in levels.items():
            assert level.reserved == 0, name
            if name.endswith("|tokens"):
                assert level.used == tokens * 60_000
            if "|budget" in name:
                assert level.used == cost


async def test_a_whole_answer_is_settled_by_its_usage() -> None:
    made, got = await served(answering(WHOLE))
    assert got == [WHOLE]
    check_settled(made, 8, 35)
    [entry] = made.ledger.entries
    assert (entry.usage, entry.cost, entry.partial, entry.estimated) == (Usage(5, 3), 35, False, False)
    assert (entry.request_id, entry.token_id, entry.owner) == ("req_1", "tok_1", "ann@example.com")
    assert (entry.model, entry.deployment, entry.endpoint, entry.status) == ("m", "scripted", "chat/completions", 200)


async def test_a_whole_answer_that_does_not_say_is_guessed_and_marked() -> None:
    made, _ = await served(answering(b'{"choices":[{"message":{"content":"Hello"}}]}'))
    [entry] = made.ledger.entries
    assert entry.estimated
    assert entry.usage == Usage(11, 12)
    check_settled(made, 23, entry.cost)


async def test_a_stream_is_asked_for_usage_and_the_client_does_not_see_it() -> None:
    backend = streaming(word(), word(), REPORT, sse.DONE)
    made, got = await served(backend, chat(stream=True))
    assert b"".join(got) == word() * 2 + sse.DONE
    assert json.loads(backend.requests[0].body)["stream_options"] == {"include_usage": True}  # type: ignore[arg-type]
    assert backend.requests[0].fields == parse_object(backend.requests[0].body)  # type: ignore[arg-type]
    check_settled(made, 8, 35)
    assert made.ledger.entries[0].usage == Usage(5, 3)


@pytest.mark.parametrize("options", [{"include_usage": False}, {"include_obfuscation": False}])
async def test_other_stream_options_stay(options: dict[str, Any]) -> None:
    backend = streaming(REPORT, sse.DONE)
    _, got = await served(backend, chat(stream=True, stream_options=options))
    assert got == [sse.DONE]
    sent = json.loads(backend.requests[0].body)["stream_options"]  # type: ignore[arg-type]
    assert sent == {**options, "include_usage": True}


async def test_a_client_that_asks_gets_the_usage() -> None:
    request = chat(stream=True, stream_options={"include_usage": True})
    backend = streaming(word(), REPORT, sse.DONE)
    _, got = await served(backend, request)
    assert REPORT in got
    assert backend.requests[0].body == request.body


@pytest.mark.parametrize("options", ["yes", 1, []])
async def test_stream_options_that_are_none_are_the_upstreams_to_refuse(options: Any) -> None:
    request = chat(stream=True, stream_options=options)
    backend = streaming(sse.DONE)
    await served(backend, request)
    assert backend.requests[0].body == request.body


async def test_a_stream_that_does_not_say_is_counted_by_its_pieces() -> None:
    made, _ = await served(streaming(word(), word(), word(), sse.DONE), chat(stream=True))
    [entry] = made.ledger.entries
    assert (entry.usage, entry.estimated, entry.partial) == (Usage(11, 3), True, False)


@pytest.mark.parametrize("error", [UpstreamInvalid("broken"), asyncio.CancelledError(), ConnectionResetError()])
async def test_a_stream_that_breaks_is_counted_as_far_as_it_came(error: BaseException) -> None:
    """Also when it is the client that has gone: what was used is not for free."""
    with pytest.raises(type(error)) as caught:
        await served(streaming(word(), word(), error=error), chat(stream=True))  # type: ignore[arg-type]
    made = caught.value.world  # type: ignore[attr-defined]
    [entry] = made.ledger.entries
    assert (entry.usage, entry.estimated, entry.partial) == (Usage(11, 2), True, True)
    assert entry.status == (502 if isinstance(error, UpstreamInvalid) else 499)
    check_settled(made, 13, entry.cost)


@pytest.mark.parametrize("error", [UpstreamUnreachable("refused"), UpstreamInvalid("nonsense"), RuntimeError("bug")])
async def test_what_never_began_costs_nothing(error: Exception) -> None:
    with pytest.raises(type(error)) as caught:
        await served(failing(error))
    made = caught.value.world  # type: ignore[attr-defined]
    [entry] = made.ledger.entries
    assert (entry.usage, entry.cost, entry.partial) == (Usage(), 0, False)
    assert entry.status == (500 if isinstance(error, RuntimeError) else 502)
    check_settled(made, 0, 0)


@pytest.mark.parametrize("error", [UpstreamTimeout("slow"), asyncio.CancelledError()])
async def test_an_upstream_that_was_at_work_has_read_the_prompt_at_least(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught:
        await served(failing(error))  # type: ignore[arg-type]
    made = caught.value.world  # type: ignore[attr-defined]
    [entry] = made.ledger.entries
    assert (entry.usage, entry.estimated, entry.partial) == (Usage(11, 0), True, True)
    check_settled(made, 11, 11)


@pytest.mark.parametrize("turns", range(1, 30, 3))
async def test_cancelled_at_any_moment_nothing_stays_reserved(turns: int) -> None:
    backend = streaming(*[word()] * 3, hangs=True)
    made = world(backend, backend, prices=PRICES)
    principal = holder()

    async def request() -> None:
        with await made.inference.admit(principal, chat(stream=True), Origin("req_1", 0)) as usage_tracker:
            answer = await made.inference.run(principal, chat(stream=True), usage_tracker)
            async for _ in answer.body:  # type: ignore[union-attr]
                await asyncio.sleep(0)

    task = asyncio.create_task(request())
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert all(level.reserved == 0 for levels in made.counters._tokens.values() for level in levels.values())
    assert len(made.ledger.entries) <= 1


async def test_a_stream_whose_budget_runs_out_is_cut() -> None:
    """The price is ten micro-dollars for each piece, and there is money for twenty."""
    principal = holder({"budget": "0.000200"})
    with pytest.raises(QuotaExceeded) as caught:
        await served(streaming(*[word()] * 500, REPORT, sse.DONE), chat(stream=True), principal)
    made, got = caught.value.world, caught.value.got  # type: ignore[attr-defined]
    assert "ran out while it was answered" in caught.value.message
    assert 15 <= len(got) <= 22
    [entry] = made.ledger.entries
    assert (entry.partial, entry.status) == (True, 429)
    assert entry.cost <= 240
    check_settled(made, 0, entry.cost)


async def test_a_stream_reserves_more_as_long_as_there_is_some() -> None:
    made, got = await served(
        streaming(*[word()] * 3000, sse.DONE), chat(stream=True, max_tokens=None), holder({"budget": "1"})
    )
    assert len(got) == 3001
    assert made.ledger.entries[0].cost == 11 + 3000 * 10


async def test_a_budget_and_a_model_without_a_price_do_not_go_together() -> None:
    backend = answering(WHOLE)
    made = world(backend, backend)
    with pytest.raises(QuotaExceeded, match=r"nobody knows what the model 'm' costs.*\[prices"):
        await made.inference.admit(holder(), chat(), Origin("req_1", 0))
    assert made.refusals == ["price"]
    assert made.ledger.entries == []


async def test_without_a_budget_an_unknown_price_is_none() -> None:
    backend = answering(WHOLE)
    made = world(backend, backend)
    principal = holder({"rpm": 5})
    with await made.inference.admit(principal, chat(), Origin("req_1", 0)) as usage_tracker:
        await made.inference.run(principal, chat(), usage_tracker)
    assert (made.ledger.entries[0].usage, made.ledger.entries[0].cost) == (Usage(5, 3), 0)


async def test_a_test_token_costs_nothing() -> None:
    made, _ = await served(answering(WHOLE), principal=holder({"budget": "0.000001"}, "sk_test_abcdef"))
    assert (made.ledger.entries[0].usage, made.ledger.entries[0].cost) == (Usage(5, 3), 0)


async def test_a_token_without_limits_reserves_nothing() -> None:
    made, _ = await served(answering(WHOLE), principal=holder(None))
    assert made.counters._tokens == {}
    assert made.ledger.entries[0].cost == 35


async def test_a_refused_request_is_not_in_the_ledger() -> None:
    backend = answering(WHOLE)
    made = world(backend, backend, prices=PRICES)
    principal = holder({"rpm": 1})
    with await made.inference.admit(principal, chat(), Origin("req_1", 0)) as usage_tracker:
        await made.inference.run(principal, chat(), usage_tracker)
    with pytest.raises(RateLimited):
        await made.inference.admit(principal, chat(), Origin("req_2", 0))
    assert [entry.request_id for entry in made.ledger.entries] == ["req_1"]
    assert made.refusals == ["requests"]


async def test_ids_do_not_become_endpoints() -> None:
    request = ProviderRequest("GET", "files/file-123/content")
    made, _ = await served(answering(b"{}"), request)
    [entry] = made.ledger.entries
    assert (entry.endpoint, entry.model, entry.usage, entry.estimated) == ("files", None, Usage(), False)


async def test_usage_is_read_from_json_that_passes_in_pieces() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for at in range(0, len(WHOLE), 7):
            yield WHOLE[at : at + 7]

    body = json.dumps({"model": "m", "query": "q"}).encode()
    request = ProviderRequest("POST", "images/generations", body=body, fields=parse_object(body), model="m")
    made, got = await served(answering(pieces), request)
    assert b"".join(got) == WHOLE
    assert (made.ledger.entries[0].usage, made.ledger.entries[0].endpoint) == (Usage(5, 3), "images/generations")


@pytest.mark.parametrize("number", ["1e999", "9" * 5000])
async def test_a_number_that_no_machine_can_hold_leaks_nothing(number: str) -> None:
    body = b'{"model":"m","messages":[],"stream":true,"max_tokens":%s}' % number.encode()
    request = ProviderRequest("POST", "chat/completions", body=body, fields=parse_object(body), model="m", stream=True)
    with pytest.raises(asyncio.CancelledError) as caught:
        await served(streaming(word(), error=asyncio.CancelledError()), request, holder({"max_parallel": 2}))  # type: ignore[arg-type]
    made = caught.value.world  # type: ignore[attr-defined]
    assert [entry.usage.completion_tokens for entry in made.ledger.entries] == [1]
    check_settled(made, 0, 0)


async def test_what_is_looked_at_again_was_counted_when_it_was_made() -> None:
    made, _ = await served(answering(WHOLE), ProviderRequest("GET", "responses/resp_1"))
    assert (made.ledger.entries[0].usage, made.ledger.entries[0].cost) == (Usage(), 0)


@pytest.mark.parametrize(
    ("path", "fields"),
    [("responses", {"background": True}), ("fine_tuning/jobs", {}), ("threads/runs", {}), ("batches", {})],
)
async def test_what_costs_later_does_not_pass_a_budget(path: str, fields: dict[str, Any]) -> None:
    body = json.dumps({"model": "m", "input": "x", **fields}).encode()
    request = ProviderRequest("POST", path, body=body, fields=parse_object(body), model="m")
    with pytest.raises(QuotaExceeded):
        await served(answering(WHOLE), request)


@pytest.mark.parametrize("model", ["paid-1", "PAID-2", "cheap"])
async def test_limits_on_a_model_hold_under_all_its_names(model: str) -> None:
    backend = answering(WHOLE)
    made = world(backend, backend, {"cheap": "paid-1"}, prices={"paid*": {"input": 1, "output": 1}})
    principal = holder({"models": {"paid*": {"rpm": 1}}})
    request = ProviderRequest("POST", "chat/completions", body=b"{}", fields=parse_object(b"{}"), model=model)
    with await made.inference.admit(principal, request, Origin("req_1", 0)):
        pass
    with pytest.raises(RateLimited):
        await made.inference.admit(principal, request, Origin("req_2", 0))
