"""The one key of an e-mail address: what may be asked for it, and how often a token was used."""

from typing import Any

import pytest

from gateway.core.clock import to_iso
from gateway.tokens import cache
from tests.support.reply import check_error
from tests.support.token_api import ANN, BOB, INVALID, TokenApi


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "email"),
        ({"email": None}, "email"),
        ({"email": "nobody"}, "email"),
        ({"email": 1}, "email"),
        ({"email": ANN, "key_name": ""}, "key_name"),
        ({"email": ANN, "key_name": None}, "key_name"),
        ({"email": ANN, "keyName": "x"}, "keyName"),
    ],
)
async def test_what_is_no_wish_for_a_key(api: TokenApi, body: Any, param: str) -> None:
    reply = await api.request("POST", "/api/user/key", body)
    assert (reply.status, reply.json()["error"]["param"]) == (400, param)
    assert "null" not in reply.json()["error"]["message"]
    assert not api.path.exists()


async def test_a_key_needs_no_name(api: TokenApi) -> None:
    made = await api.call("POST", "/api/user/key", {"email": ANN})
    assert made["key"].startswith(made["keyPrefix"])
    told = (await api.call("GET", f"/api/user/key/{ANN}"))["keyPreference"]
    assert (told["hasKey"], told["keyName"], told["keyPrefix"]) == (True, "API key", made["keyPrefix"])


async def test_a_new_key_keeps_the_limits_of_the_old_one_and_its_id(api: TokenApi) -> None:
    limited = {"prefix": "sk_live_", "owner": ANN, "models": ["m"], "limits": {"rpm": 5}, "expires_in": "30d"}
    old = await api.create(**limited)
    api.clock.now += 60
    made = await api.call("POST", "/api/user/key", {"email": ANN})
    (new,) = (await api.call("GET", "/api/tokens"))["tokens"]
    kept = ("id", "owner", "models", "limits", "expires_at", "created_at")
    assert [new[name] for name in kept] == [old[name] for name in kept]
    assert (new["name"], new["prefix"]) == ("API key", made["keyPrefix"])
    check_error(await api.request("GET", "/api/me", secret=old["token"]), 401, INVALID, "invalid_api_key")
    told = (await api.call("GET", f"/api/user/key/{ANN}"))["keyPreference"]
    assert told["generatedAt"] == to_iso(int(api.clock.now))


async def test_a_key_that_has_expired_holds_its_successor_to_nothing(api: TokenApi) -> None:
    await api.create(prefix="sk_live_", owner=ANN, models=["m"], expires_in="1h")
    api.clock.now += 3600
    assert (await api.call("GET", f"/api/user/key/{ANN}"))["keyPreference"]["hasKey"] is False
    made = await api.call("POST", "/api/user/key", {"email": ANN})
    assert (await api.call("GET", "/api/me", secret=made["key"]))["models"] is None


async def test_a_key_can_be_ended_once(api: TokenApi) -> None:
    await api.call("POST", "/api/user/key", {"email": ANN})
    assert (await api.call("DELETE", f"/api/user/key/{ANN}"))["success"] is True
    check_error(await api.request("DELETE", f"/api/user/key/{ANN}"), 404, INVALID, "key_not_found")


async def test_a_test_token_makes_no_key_that_reaches_a_model(api: TokenApi) -> None:
    tester = await api.create(owner=ANN, prefix="sk_test_")
    reply = await api.request("POST", "/api/user/key", {"email": ANN}, tester["token"])
    assert check_error(reply, 403, "permission_error", "insufficient_permissions")["param"] == "prefix"


async def test_how_often_a_token_and_its_replaced_secret_were_used(api: TokenApi) -> None:
    made = await api.create(name="busy")
    await api.call("POST", f"/api/tokens/{made['id']}/rotate", {"grace": "1h"})
    for _ in range(3):
        await api.request("GET", "/v1/models", secret=made["token"])
    await api.gateway.flush_last_used()
    told = await api.call("GET", f"/api/tokens/{made['id']}/usage")
    assert (told["id"], told["name"], told["usage_count"]) == (made["id"], "busy", 3)
    (old,) = told["previous_secrets"]
    assert (old["prefix"], old["usage_count"], old["last_used_from"]) == (made["prefix"], 3, "127.0.0.1")
    stranger = await api.create(owner=BOB)
    check_error(
        await api.request("GET", f"/api/tokens/{made['id']}/usage", secret=stranger["token"]),
        404,
        INVALID,
        "token_not_found",
    )


async def test_a_secret_that_cannot_be_looked_up_is_not_called_revoked(
    api: TokenApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file may come back, and with it the token."""
    monkeypatch.setattr(cache, "GONE_SECONDS", 0.0)
    made = await api.create()
    api.path.rename(api.folder / "away")
    await api.gateway.refresh_tokens()
    await api.gateway.refresh_tokens()
    for body, path in (({"token": made["token"]}, "/api/tokens/revoke"), ({"name": "x"}, "/api/tokens")):
        check_error(await api.request("POST", path, body), 503, "server_error", "store_unavailable")
    assert not api.path.exists(), "nor is a new file begun in its place"
