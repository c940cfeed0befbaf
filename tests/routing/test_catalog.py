"""Where a request goes: which provider, which name of the model, which price; and which models a caller sees."""

import pytest

from gateway.auth.principal import ENVIRONMENT_KEY
from gateway.core.errors import ModelNotFound
from gateway.providers.echo.provider import EchoProvider
from gateway.routing.catalog import Catalog
from gateway.usage.pricing.prices import FREE, load_prices, packaged_prices, read_price_table
from tests.support.inference import answering, token_with

PRICES = load_prices(
    packaged_prices(), read_price_table({"m": {"input": 1, "output": 10}, "alias": {"input": 2, "output": 2}})
)


def catalog(**aliases: str) -> Catalog:
    return Catalog(answering(b"{}"), answering(b"echo"), aliases, PRICES)


def test_a_model_goes_under_its_own_name() -> None:
    target = catalog().resolve(ENVIRONMENT_KEY, "m")
    assert (target.model, target.names, target.is_renamed) == ("m", ("m",), False)
    assert target.price == PRICES.find("m")


def test_an_alias_goes_under_the_providers_name_and_both_names_count() -> None:
    target = catalog(alias="m").resolve(ENVIRONMENT_KEY, "alias")
    assert (target.model, target.names, target.is_renamed) == ("m", ("alias", "m"), True)
    assert target.price == PRICES.find("m"), "the model's own price goes before the alias's"


def test_an_alias_has_a_price_where_its_model_has_none() -> None:
    assert catalog(alias="unheard-of").resolve(ENVIRONMENT_KEY, "alias").price == PRICES.find("alias")


@pytest.mark.parametrize("model", ["unheard-of", "ALIAS"])
def test_any_name_resolves(model: str) -> None:
    target = catalog(alias="m").resolve(ENVIRONMENT_KEY, model)
    assert (target.model, target.is_renamed) == (model, False)


def test_a_request_without_a_model_goes_to_the_provider() -> None:
    target = catalog().resolve(ENVIRONMENT_KEY, None)
    assert (target.model, target.names, target.price, target.is_renamed) == (None, (), None, False)


def test_test_tokens_go_to_the_offline_provider_and_nothing_is_renamed() -> None:
    found = catalog(alias="m")
    real, test = found.provider_for(ENVIRONMENT_KEY), found.provider_for(token_with(prefix="sk_test_abcdef"))
    assert real is not test
    target = found.resolve(token_with(prefix="sk_test_abcdef"), "alias")
    assert (target.provider, target.is_test, target.is_renamed) == (test, True, False)


def test_echo_is_free_at_the_offline_provider_alone() -> None:
    """An upstream that has one model answers for any name."""
    offline = EchoProvider()
    found = Catalog(offline, offline, {"mirror": "echo"}, PRICES)
    assert [found.resolve(ENVIRONMENT_KEY, name).price for name in ("echo", "ECHO", "mirror", "m")] == [
        FREE, FREE, FREE, PRICES.find("m"),
    ]  # fmt: skip
    assert catalog().resolve(ENVIRONMENT_KEY, "echo").price is None


def test_a_name_is_free_only_where_the_operator_says_so() -> None:
    name = "deepseek/deepseek-r1:free"
    packaged = PRICES.find(name)
    assert packaged is not None
    assert packaged.is_free
    assert catalog().resolve(ENVIRONMENT_KEY, name).price is None
    table = read_price_table(
        {"*:free": {"input": 0, "output": 0}, "own": {"input": 0, "output": 0, "context_window": 9}}
    )
    believing = Catalog(answering(b"{}"), answering(b"echo"), {}, load_prices(packaged_prices(), table))
    assert [believing.resolve(ENVIRONMENT_KEY, each).price for each in (name, "own")] == [FREE, FREE]


async def test_the_list_has_what_the_caller_may_use_and_aliases() -> None:
    found = catalog(alias="real", ghost="nowhere")
    everything = {model["id"]: model["created"] for model in await found.models(ENVIRONMENT_KEY)}
    assert everything == {"real": 5, "gpt-4o": 5, "alias": 5, "ghost": 0}
    allowed = await found.models(token_with(models=("a*", "gpt-4*")))
    assert [model["id"] for model in allowed] == ["gpt-4o", "alias"]
    assert await found.models(token_with(models=("gpt-4?", "[a-z]*"))) == [], "the star is the only wildcard"


async def test_one_model_is_found_or_not() -> None:
    found = catalog(alias="real")
    assert (await found.model(ENVIRONMENT_KEY, "alias"))["id"] == "alias"
    with pytest.raises(ModelNotFound):
        await found.model(token_with(models=("a*",)), "real")


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("m", "alias"),
        ("m-2024-07-18", "alias"),
        ("m-20240718", "alias"),
        ("m@20240718", "alias"),
        ("m-mini", None),
        ("other", None),
        ("alias", None),
    ],
)
def test_clients_know_a_model_by_its_first_alias(name: str, shown: str | None) -> None:
    assert catalog(alias="m", second="m").client_name(name) == shown
