"""What may pass the limits, what nobody may pass with, and what a dry run says about it."""

from typing import Any

import pytest

from gateway.core.errors import Forbidden, QuotaExceeded, RateLimited, TokensLimited
from gateway.providers.base import ProviderRequest
from tests.support.inference import PRICES, answering, chat, make_inference, post, token_with

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


@pytest.mark.parametrize(
    ("path", "fields"),
    [("responses", {"background": True}), ("fine_tuning/jobs", {}), ("threads/runs", {}), ("batches", {})],
)
async def test_what_costs_something_later_does_not_pass_a_budget(path: str, fields: dict[str, Any]) -> None:
    setup = make_inference(answering(WHOLE), prices=PRICES)
    with pytest.raises((QuotaExceeded, Forbidden)):
        await setup.respond(token_with({"budget": "1"}), post(path, {"model": "m", "input": "x", **fields}))
    assert setup.ledger.entries == []


async def test_reading_is_free_whatever_is_read() -> None:
    setup = make_inference(answering(WHOLE), prices=PRICES)
    await setup.respond(token_with({"budget": "0.000001"}), ProviderRequest("GET", "responses/resp_1"))
    assert setup.ledger.entries[0].cost == 0


async def test_what_no_provider_takes_money_for_passes_a_budget() -> None:
    setup = make_inference(answering(b"{}"))
    await setup.respond(token_with({"budget": "0.000001"}), post("moderations", {"input": "x"}))
    assert setup.ledger.entries[0].cost == 0


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
