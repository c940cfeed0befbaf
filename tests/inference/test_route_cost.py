"""What requests cost by their route, and which a budget does not let pass because nobody knows."""

from decimal import Decimal
from typing import Any

import pytest

from gateway.core.errors import Forbidden, QuotaExceeded
from gateway.inference.route_cost import check_route_cost
from gateway.providers.base import ProviderRequest
from tests.support.inference import (
    PRICES,
    answering,
    make_inference,
    post,
    token_with,
)

WHOLE = b'{"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":3,"total_tokens":8}}'


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


@pytest.mark.parametrize(
    ("path", "fields", "price", "cost"),
    [
        ("audio/speech", {"input": "x" * 4000, "voice": "v"}, {"character": Decimal("0.000015")}, 60_000),
        ("audio/speech", {"input": "x", "voice": "v"}, {"request": Decimal("0.02")}, 20_000),
        ("images/generations", {"prompt": "cat", "n": 4}, {"image": Decimal("0.04")}, 160_000),
        ("images/generations", {"prompt": "cat"}, {"request": Decimal("0.04")}, 40_000),
    ],
)
async def test_what_reports_no_usage_needs_a_price_of_its_own(
    path: str, fields: dict[str, Any], price: dict[str, Any], cost: int
) -> None:
    tokens_alone = make_inference(answering(b"{}"), prices={"m": {"input": 10, "output": 40}})
    unit = "character" if path == "audio/speech" else "image"
    with pytest.raises(QuotaExceeded, match=f"/v1/{path} for the model 'm' costs.*{unit} or request"):
        await tokens_alone.respond(token_with({"budget": "1"}), post(path, {"model": "m", **fields}))
    setup, principal = (
        make_inference(answering(b"{}"), prices={"m": {"input": 0, "output": 0, **price}}),
        token_with({"budget": "0.2"}),
    )
    await setup.respond(principal, post(path, {"model": "m", **fields}))
    assert (await setup.counters(principal))["budget"] == (cost, 0)


@pytest.mark.parametrize("path", ["messages/count_tokens", "responses/input_tokens", "moderations"])
async def test_counting_tokens_is_free_whatever_the_model_costs(path: str) -> None:
    setup, principal = (
        make_inference(answering(b'{"input_tokens":2095}'), prices=PRICES),
        token_with({"budget": "0.000001"}),
    )
    await setup.respond(principal, post(path, {"model": "m", "input": "x" * 8000}))
    assert setup.ledger.entries[0].cost == 0
    assert path == "moderations" or setup.ledger.entries[0].usage.total_tokens == 0


ROUTES_WITHOUT_A_PRICE = ["messages/batches", "batches", "responses/compact", "threads/runs", "fine_tuning/jobs"]


@pytest.mark.parametrize("path", ROUTES_WITHOUT_A_PRICE)
@pytest.mark.parametrize("limits", [{"budget": "1"}, {"models": {"m": {"budget": "1"}}}])
def test_routes_are_compared_as_a_whole(path: str, limits: dict[str, Any]) -> None:
    with pytest.raises(QuotaExceeded, match=f"what a request to /v1/{path} costs is not known when it ends"):
        check_route_cost(token_with(limits), "POST", path)
    check_route_cost(token_with(limits), "GET", path)
    check_route_cost(token_with({"rpm": 1, "models": {"m": {"rpm": 1}}}), "POST", path)
    check_route_cost(token_with(limits, "sk_test_abcdef"), "POST", path)
    check_route_cost(token_with(limits), "POST", "messages/count_tokens")
    check_route_cost(token_with(limits), "POST", "messages")
