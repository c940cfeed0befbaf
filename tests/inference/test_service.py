"""The life of a request: who may ask for which model, what the provider is sent, and that every exit settles and records."""

import asyncio
import json
from typing import Any

import pytest

from gateway.auth.principal import ENVIRONMENT_KEY
from gateway.core import sse
from gateway.core.errors import ModelNotFound, StoreUnavailable
from gateway.core.json_body import parse_object
from gateway.core.upstream_errors import UpstreamInvalid, UpstreamRefused
from gateway.inference.models import InferenceRequest
from gateway.providers.base import ProviderRequest, ProviderResponse
from tests.support.inference import (
    LIMITS,
    PRICES,
    ScriptedProvider,
    answering,
    chat,
    failing,
    make_inference,
    post,
    streaming,
    token_with,
)

WHOLE = b'{"model":"real","choices":[],"usage":{"prompt_tokens":5,"completion_tokens":3,"total_tokens":8}}'
REPORT = sse.encode_event(b'{"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":3,"total_tokens":8}}')
WORD = sse.encode_event(b'{"choices":[{"index":0,"delta":{"content":"x"}}]}')


async def test_a_token_may_use_its_models_only() -> None:
    provider = answering(b"{}")
    setup = make_inference(provider, aliases={"alias": "real"})
    for allowed, asked in ((("gpt-*",), "real"), ((), "alias"), (("real",), "alias"), (("ALIAS",), "alias")):
        with pytest.raises(ModelNotFound):
            await setup.respond(token_with(models=allowed), chat(asked))
    assert (provider.requests, setup.ledger.entries) == ([], [])
    await setup.respond(token_with(models=("alias",)), chat("alias"))
    assert provider.requests[0].model == "real"


async def test_an_error_of_the_provider_has_the_alias() -> None:
    provider = failing(UpstreamRefused(404, "The model `real` is unknown", {}, b'{"error":{"message":"`real`"}}'))
    setup = make_inference(provider, aliases={"alias": "real"})
    with pytest.raises(UpstreamRefused) as raised:
        await setup.respond(ENVIRONMENT_KEY, chat("alias"))
    assert (raised.value.message, raised.value.openai_body) == (
        "The model `alias` is unknown",
        b'{"error":{"message":"`alias`"}}',
    )


async def test_an_alias_is_replaced_on_both_ways() -> None:
    provider = answering(WHOLE)
    setup = make_inference(provider, aliases={"alias": "real"})
    await setup.respond(ENVIRONMENT_KEY, chat("alias"))
    assert json.loads(provider.requests[0].body)["model"] == "real"  # type: ignore[arg-type]
    assert json.loads(setup.body)["model"] == "alias"
    assert setup.ledger.entries[0].model == "alias", "the ledger has the name that the client used"


async def test_a_request_without_a_model_goes_on() -> None:
    provider = answering(b"{}")
    await make_inference(provider).respond(token_with(models=()), ProviderRequest("GET", "files"))
    assert provider.requests


async def test_test_tokens_are_answered_by_the_offline_provider() -> None:
    real, offline = answering(b"{}"), answering(b'{"model":"alias"}')
    setup = make_inference(real, test_provider=offline, aliases={"alias": "real"})
    await setup.respond(token_with(prefix="sk_test_abcdef"), chat("alias"))
    assert (real.requests, offline.requests[0].model) == ([], "alias")


async def test_nothing_is_admitted_while_the_ledger_is_full() -> None:
    """Nobody would ever know what such a request used."""
    provider = answering(WHOLE)
    setup = make_inference(provider)
    setup.ledger.is_full = True
    with pytest.raises(StoreUnavailable):
        await setup.respond(ENVIRONMENT_KEY, chat())
    assert provider.requests == []
    setup.ledger.is_full = False
    await setup.respond(ENVIRONMENT_KEY, chat())


async def test_the_ledger_has_the_time_of_the_admission() -> None:
    """Not of the arrival: a request that waits for its turn may be admitted in the next hour."""
    may_answer = asyncio.Event()

    async def answer_later(_request: ProviderRequest) -> ProviderResponse:
        await may_answer.wait()
        return ProviderResponse(200, "application/json", WHOLE)

    async def send(request_id: str) -> None:
        async with setup.inference.open(principal, InferenceRequest(request_id, chat())):
            pass

    setup, principal = make_inference(ScriptedProvider(answer_later), queue_seconds=10), token_with({"max_parallel": 1})
    arrived, queues = setup.clock.now, asyncio.create_task(setup.admission.limiter.run())
    requests = [asyncio.create_task(send(name)) for name in ("req_1", "req_2")]
    for _ in range(10):
        await asyncio.sleep(0)
    assert setup.admission.limiter.queued == 1
    setup.clock.now += 3600
    may_answer.set()
    await asyncio.gather(*requests)
    queues.cancel()
    assert [(entry.request_id, entry.at // 1000 - arrived) for entry in setup.ledger.entries] == [
        ("req_1", 0),
        ("req_2", 3600),
    ]


async def test_the_request_knows_its_deployment_and_its_usage() -> None:
    setup = make_inference(answering(WHOLE), prices=PRICES)
    request = InferenceRequest("req_1", chat())
    assert (request.deployment, request.usage, request.model) == (None, None, "m")
    async with setup.inference.open(token_with(LIMITS), request):
        pass
    assert request.deployment == "scripted"
    assert request.usage is not None
    assert (request.usage.cost, request.usage.usage.total_tokens) == (35, 8)
    assert request.upstream_seconds > 0


async def test_a_refused_request_knows_where_it_would_have_gone() -> None:
    setup = make_inference(answering(WHOLE))
    request = InferenceRequest("req_1", chat())
    with pytest.raises(ModelNotFound):
        async with setup.inference.open(token_with(models=()), request):
            pass
    assert (request.deployment, request.usage) == ("scripted", None)


@pytest.mark.parametrize("error", [None, RuntimeError("bug"), asyncio.CancelledError(), ConnectionResetError()])
async def test_however_the_block_ends_the_response_is_closed_and_recorded(error: BaseException | None) -> None:
    provider = streaming(WORD, REPORT, sse.DONE)
    setup = make_inference(provider, prices=PRICES)
    principal = token_with(LIMITS)

    async def request() -> None:
        async with setup.inference.open(principal, InferenceRequest("req_1", chat(stream=True))):
            if error is not None:
                raise error

    if error is None:
        await request()
    else:
        with pytest.raises(type(error)):
            await request()
    assert provider.closed == 1
    assert [entry.request_id for entry in setup.ledger.entries] == ["req_1"]
    assert all(reserved == 0 for _, reserved in (await setup.counters(principal)).values())


async def test_a_provider_that_fails_is_recorded() -> None:
    setup = make_inference(failing(UpstreamInvalid("nonsense")))
    with pytest.raises(UpstreamInvalid):
        await setup.respond(ENVIRONMENT_KEY, chat())
    assert [(entry.status, entry.token_id) for entry in setup.ledger.entries] == [(502, "environment")]


async def test_a_stream_is_asked_for_usage_and_the_client_does_not_see_it() -> None:
    provider = streaming(WORD, WORD, REPORT, sse.DONE)
    setup = make_inference(provider, prices=PRICES)
    await setup.respond(ENVIRONMENT_KEY, chat(stream=True))
    assert setup.body == WORD * 2 + sse.DONE
    sent = provider.requests[0]
    assert json.loads(sent.body)["stream_options"] == {"include_usage": True}  # type: ignore[arg-type]
    assert sent.fields == parse_object(sent.body)  # type: ignore[arg-type]
    assert setup.ledger.entries[0].usage.total_tokens == 8


@pytest.mark.parametrize("options", [{"include_usage": False}, {"include_obfuscation": False}])
async def test_other_stream_options_stay(options: dict[str, Any]) -> None:
    provider = streaming(REPORT, sse.DONE)
    setup = make_inference(provider)
    await setup.respond(ENVIRONMENT_KEY, chat(stream=True, stream_options=options))
    assert setup.received == [sse.DONE]
    sent = json.loads(provider.requests[0].body)["stream_options"]  # type: ignore[arg-type]
    assert sent == {**options, "include_usage": True}


async def test_a_client_that_asks_for_usage_gets_it() -> None:
    request = chat(stream=True, stream_options={"include_usage": True})
    provider = streaming(WORD, REPORT, sse.DONE)
    setup = make_inference(provider)
    await setup.respond(ENVIRONMENT_KEY, request)
    assert REPORT in setup.received
    assert provider.requests[0].body == request.body


@pytest.mark.parametrize(
    "options",
    [
        "yes",
        "",
        1,
        0,
        False,
        [],
        None,
        {"include_usage": "false"},
        {"include_usage": 1},
        {"Include_Usage": False},
        {"includeUsage": True},
    ],
)
@pytest.mark.parametrize("path", ["chat/completions", "completions"])
async def test_no_stream_options_keep_the_usage_away(options: Any, path: str) -> None:
    provider = streaming(WORD, REPORT, sse.DONE)
    setup = make_inference(provider)
    await setup.respond(
        ENVIRONMENT_KEY, post(path, {"model": "m", "prompt": "x", "stream": True, "stream_options": options})
    )
    assert json.loads(provider.requests[0].body)["stream_options"] == {"include_usage": True}  # type: ignore[arg-type]
    assert setup.received == [WORD, sse.DONE], "the client has not asked for the usage in a way that is valid"


async def test_a_second_key_within_stream_options_does_not_keep_the_usage_away() -> None:
    body = (
        b'{"model":"m","messages":[],"stream":true,"stream_options":{"include_usage":false,"include_usage":true,"a":1}}'
    )
    provider = streaming(REPORT, sse.DONE)
    setup = make_inference(provider)
    await setup.respond(ENVIRONMENT_KEY, post("chat/completions", body))
    assert b'"stream_options":{"a":1,"include_usage":true}' in provider.requests[0].body  # type: ignore[operator]
    assert setup.received == [REPORT, sse.DONE]


async def test_streams_are_not_asked_where_the_operator_does_not_want_it() -> None:
    request = chat(stream=True)
    provider = streaming(sse.DONE)
    await make_inference(provider, asks_for_usage=False).respond(ENVIRONMENT_KEY, request)
    assert provider.requests[0].body == request.body


async def test_an_alias_is_shown_for_what_is_read_again() -> None:
    setup = make_inference(answering(b'{"id":"resp_1","model":"real-2024-07-18"}'), aliases={"alias": "real"})
    await setup.respond(ENVIRONMENT_KEY, ProviderRequest("GET", "responses/resp_1"))
    assert json.loads(setup.body)["model"] == "alias"


def refusing_options(error: UpstreamRefused) -> ScriptedProvider:
    async def act(request: ProviderRequest) -> ProviderResponse:
        if request.fields is not None and "stream_options" in request.fields:
            raise error
        return ProviderResponse(200, "application/json", b"{}")

    return ScriptedProvider(act)


async def test_an_upstream_that_refuses_stream_options_is_asked_without_them_from_then_on() -> None:
    error = UpstreamRefused(422, "extra_forbidden", {}, b'{"detail":[{"loc":["body","stream_options"]}]}')
    provider = refusing_options(error)
    setup = make_inference(provider)
    await setup.respond(ENVIRONMENT_KEY, chat(stream=True))
    await setup.respond(ENVIRONMENT_KEY, chat(stream=True))
    assert ["stream_options" in (sent.fields or {}) for sent in provider.requests] == [True, False, False]
    await setup.respond(ENVIRONMENT_KEY, chat("other", stream=True))
    assert len(provider.requests) == 5, "another model may know them"


@pytest.mark.parametrize("error", [UpstreamRefused(422, "too long", {}), UpstreamRefused(429, "stream_options", {})])
async def test_another_error_is_not_tried_again(error: UpstreamRefused) -> None:
    provider = refusing_options(error)
    with pytest.raises(UpstreamRefused):
        await make_inference(provider).respond(ENVIRONMENT_KEY, chat(stream=True))
    assert len(provider.requests) == 1


async def test_options_that_the_client_has_sent_are_its_own_matter() -> None:
    provider = refusing_options(UpstreamRefused(400, "unknown stream_options", {}))
    request = chat(stream=True, stream_options={"include_usage": True})
    with pytest.raises(UpstreamRefused):
        await make_inference(provider).respond(ENVIRONMENT_KEY, request)
