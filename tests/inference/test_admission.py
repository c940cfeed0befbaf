"""What may pass the limits, what nobody may pass with, and what a dry run says about it."""

import asyncio
import json
from typing import Any

import pytest

from gateway.core.errors import QuotaExceeded, RateLimited, TokensLimited
from gateway.inference.admission import request_price
from gateway.providers.base import ProviderRequest, ProviderResponse
from gateway.usage.pricing.prices import FREE, Price
from tests.support.inference import (
    HELLO,
    PRICES,
    InferenceSetup,
    ScriptedProvider,
    answering,
    chat,
    make_inference,
    post,
    streaming,
    token_with,
)

WHOLE = b'{"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":3,"total_tokens":8}}'


async def test_a_budget_needs_a_price() -> None:
    setup = make_inference(answering(WHOLE))
    with pytest.raises(QuotaExceeded, match=r"nobody knows what the model 'm' costs.*\[prices") as caught:
        await setup.respond(token_with({"budget": "1"}), chat())
    assert caught.value.param == "model"
    assert (setup.refusals, setup.ledger.entries) == (["price"], [])


async def test_without_a_budget_an_unknown_price_does_not_matter() -> None:
    setup = make_inference(answering(WHOLE))
    await setup.respond(token_with({"rpm": 5}), chat())
    assert (setup.ledger.entries[0].usage.total_tokens, setup.ledger.entries[0].cost) == (8, 0)


async def test_a_test_token_costs_nothing() -> None:
    setup = make_inference(answering(WHOLE), prices=PRICES)
    await setup.respond(token_with({"budget": "0.000001"}, "sk_test_abcdef"), chat())
    assert (setup.ledger.entries[0].usage.total_tokens, setup.ledger.entries[0].cost) == (8, 0)


async def test_a_token_without_limits_reserves_nothing() -> None:
    setup = make_inference(answering(WHOLE), prices=PRICES)
    await setup.respond(token_with(None), chat())
    assert setup.ledger.entries[0].cost == 35


async def test_a_refused_request_is_not_in_the_ledger() -> None:
    setup = make_inference(answering(WHOLE), prices=PRICES)
    principal = token_with({"rpm": 1})
    await setup.respond(principal, chat())
    with pytest.raises(RateLimited) as caught:
        await setup.respond(principal, chat(), "req_2")
    assert caught.value.headers["x-ratelimit-remaining-requests"] == "0"
    assert [entry.request_id for entry in setup.ledger.entries] == ["req_1"]
    assert setup.refusals == ["requests"]


async def test_a_prompt_that_is_larger_than_the_limit_is_refused() -> None:
    setup = make_inference(answering(WHOLE))
    with pytest.raises(TokensLimited, match="larger than the limit"):
        await setup.respond(token_with({"tpm": 10}), chat(max_tokens=1000))
    assert setup.refusals == ["tokens"]


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "GET"])
def test_a_body_is_priced_whatever_the_method_is(method: str) -> None:
    body = post("messages", {"model": "m"})
    request = ProviderRequest(method, "messages", body=body.body, fields=body.fields, model="m")
    assert price_of(request, make_inference(answering(b"{}"), prices=PRICES)) is None
    reading = ProviderRequest(method, "messages/1")
    assert price_of(reading, make_inference(answering(b"{}"))) == (FREE if method in ("GET", "DELETE") else None)


def price_of(request: ProviderRequest, setup: InferenceSetup) -> Price | None:
    return request_price(request, setup.inference.catalog.resolve(token_with({"budget": "1"}), request.model))


NOT_IN_THE_BODY: list[tuple[str, dict[str, Any]]] = [
    ("chat/completions", {}),
    ("chat/completions", {"max_tokens": None}),
    ("chat/completions", {"max_tokens": 5, "messages": [{"content": [{"image_url": {"url": "https://x/a.png"}}]}]}),
    ("responses", {"max_output_tokens": 5, "previous_response_id": "resp_1", "input": "go on"}),
    ("responses", {"max_output_tokens": 5, "input": [{"content": [{"type": "input_file", "file_id": "file-1"}]}]}),
    ("responses", {"max_output_tokens": 5, "input": "x", "tools": [{"type": "web_search"}]}),
    ("chat/completions", {"max_tokens": 5, "prediction": {"type": "content", "content": "word " * 200_000}}),
    ("chat/completions", {"max_tokens": 5, "anything": "by this name"}),
]


@pytest.mark.parametrize(("path", "fields"), NOT_IN_THE_BODY)
async def test_what_the_body_does_not_bound_goes_one_at_a_time(path: str, fields: dict[str, Any]) -> None:
    """The budget is 1 USD, and a million tokens of the prompt cost 1 USD."""
    begun = asyncio.Event()

    async def answer(_request: ProviderRequest) -> ProviderResponse:
        begun.set()
        await asyncio.Event().wait()
        raise AssertionError

    setup, principal = make_inference(ScriptedProvider(answer), prices=PRICES), token_with({"budget": "0.5"})
    request = post(path, {"model": "m", "messages": [], **fields})
    first = asyncio.create_task(setup.respond(principal, request))
    await begun.wait()
    assert (await setup.counters(principal))["budget"] == (0, 500_000)
    for _ in range(3):
        with pytest.raises(QuotaExceeded):
            await setup.respond(principal, request)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)


async def test_a_large_budget_lets_unbounded_responses_run_together() -> None:
    """Each reserves the longest response of the model, not all that is left."""
    table = {"m": {"input": 1, "output": 10, "context_window": 20_000}, "n": {"input": 1, "output": 10}}
    reserved = []
    for model in ("m", "n"):
        setup, principal = make_inference(streaming(hangs=True), prices=table), token_with({"budget": "100"})
        tasks = [asyncio.create_task(setup.respond(principal, chat(model))) for _ in range(5)]
        for _ in range(20):
            await asyncio.sleep(0)
        reserved.append((await setup.counters(principal))["budget"][1])
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    prompt = len(json.dumps(HELLO))
    assert reserved == [5 * (200_000 + prompt), 5 * (128 * 1024 * 10 + prompt)]


@pytest.mark.parametrize("model", ["paid-1", "PAID-2", "cheap"])
async def test_limits_on_a_model_hold_under_all_its_names(model: str) -> None:
    setup = make_inference(answering(WHOLE), aliases={"cheap": "paid-1"}, prices={"paid*": {"input": 1, "output": 1}})
    principal = token_with({"models": {"paid*": {"rpm": 1}}})
    await setup.respond(principal, chat(model))
    with pytest.raises(RateLimited):
        await setup.respond(principal, chat(model))


async def test_a_dry_run_reserves_nothing_and_names_the_tightest_limit() -> None:
    setup = make_inference(answering(WHOLE), prices=PRICES)
    principal = token_with({"rpm": 2, "tpm": 1000})
    target = setup.inference.catalog.resolve(principal, "m")
    for _ in range(5):
        dry_run = await setup.admission.check(principal, chat(), target, 100)
        assert dry_run.exceeded is None
    assert dry_run.tightest is not None
    await setup.respond(principal, chat())
    await setup.respond(principal, chat())
    dry_run = await setup.admission.check(principal, chat(), target, 100)
    assert dry_run.exceeded is not None
    assert dry_run.exceeded.charge.limit.kind.value == "requests"


async def test_a_dry_run_of_a_token_without_limits_has_nothing_to_say() -> None:
    setup = make_inference(answering(WHOLE))
    principal = token_with(None)
    dry_run = await setup.admission.check(principal, chat(), setup.inference.catalog.resolve(principal, "m"), None)
    assert (dry_run.exceeded, dry_run.tightest) == (None, None)


async def test_a_dry_run_says_that_a_price_is_missing() -> None:
    setup = make_inference(answering(WHOLE))
    principal = token_with({"budget": "1"})
    with pytest.raises(QuotaExceeded):
        await setup.admission.check(principal, chat(), setup.inference.catalog.resolve(principal, "m"), None)
    assert setup.refusals == [], "asking is not a refusal"


async def test_current_usage_has_the_limits_on_models_too() -> None:
    setup = make_inference(answering(WHOLE))
    principal = token_with({"rpm": 2, "models": {"a*": {"rpm": 1}, "b": {"tpm": 5}}})
    found = await setup.admission.current_usage(principal.limits)
    assert {(limit.kind.value, limit.model) for limit, _ in found} == {
        ("requests", None), ("requests", "a*"), ("tokens", "b"),
    }  # fmt: skip
