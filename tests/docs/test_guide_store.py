"""The guide of the API store: a key for each user.

What the guide shows is typed in as it shows it, and works. A test with ``differs`` in its name shows a deliberate difference.
"""

import json

import pytest

from gateway.core.clock import to_iso
from tests.docs.guides import EMAIL, GuideGateway, missing_fields
from tests.support.gateway import (
    BEARER,
    JSON,
    KEY,
)
from tests.support.reply import check_error
from tests.support.tokens import NOW

STORE_STATUS = {
    "hasKey": True, "generatedAt": "2023-05-15T14:30:00Z", "lastUsed": "2023-05-16T09:12:43Z", "usageCount": 127,
    "keyName": "Production Key", "keyPrefix": "sk_abc123", "balance": 0,
}  # fmt: skip
STORE_KEY = {
    "success": True,
    "message": "API key generated successfully",
    "key": "sk_live_abcdef123",
    "keyPrefix": "sk_abc123",
}
STORE_REQUEST = {"email": "user@example.com", "key_name": "Production Key"}
STORE_REVOKED = {"success": True, "message": "API key revoked successfully"}


async def test_store_a_key_from_its_making_to_its_end(with_key: GuideGateway) -> None:
    made = await with_key.ask("POST", "/api/user/key", KEY, STORE_REQUEST)
    assert set(made) == set(STORE_KEY)
    assert (made["success"], made["message"]) == (True, STORE_KEY["message"])
    assert made["key"].startswith(made["keyPrefix"])
    assert made["key"].startswith("sk_live_")
    with_key.clock.now += 60
    await with_key.ask("GET", "/v1/models", made["key"])
    await with_key.flush_last_used()
    for path, name in ((f"/api/user/key/{EMAIL}", "keyPreference"), (f"/api/user/usage/{EMAIL}", "usage")):
        for secret in (KEY, made["key"]):
            answer = await with_key.ask("GET", path, secret)
            assert set(answer) == {"success", name}
            assert set(answer[name]) == set(STORE_STATUS)
            assert not missing_fields(answer, {"success": True, name: STORE_STATUS})
    status = (await with_key.ask("GET", f"/api/user/key/{EMAIL}", KEY))["keyPreference"]
    assert (status["hasKey"], status["keyName"], status["usageCount"] >= 1) == (True, "Production Key", True)
    assert (status["generatedAt"], status["lastUsed"]) == (to_iso(NOW), to_iso(NOW + 60))
    assert await with_key.ask("DELETE", f"/api/user/key/{EMAIL}", made["key"]) == STORE_REVOKED
    reply = await with_key.gateway.request("GET", "/v1/models", [("X-API-Key", made["key"])])
    check_error(reply, 401, "invalid_request_error", "invalid_api_key")


async def test_store_without_a_key(with_key: GuideGateway) -> None:
    for path, name in (("key", "keyPreference"), ("usage", "usage")):
        answer = await with_key.ask("GET", f"/api/user/{path}/{EMAIL}", KEY)
        assert answer == {"success": True, name: {
            "hasKey": False, "generatedAt": None, "lastUsed": None, "usageCount": 0, "keyName": None, "keyPrefix": None,
            "balance": 0,
        }}  # fmt: skip
    reply = await with_key.gateway.request("DELETE", f"/api/user/key/{EMAIL}", [BEARER])
    check_error(reply, 404, "invalid_request_error", "key_not_found")


async def test_store_a_new_key_replaces_the_old_one(with_key: GuideGateway) -> None:
    first = await with_key.ask("POST", "/api/user/key", KEY, STORE_REQUEST)
    second = await with_key.ask("POST", "/api/user/key", first["key"], {**STORE_REQUEST, "key_name": "Next"})
    reply = await with_key.gateway.request("GET", "/v1/models", [("X-API-Key", first["key"])])
    check_error(reply, 401, "invalid_request_error", "invalid_api_key")
    await with_key.ask("GET", "/v1/models", second["key"])
    status = (await with_key.ask("GET", f"/api/user/key/{EMAIL}", second["key"]))["keyPreference"]
    assert (status["keyName"], status["keyPrefix"]) == ("Next", second["keyPrefix"])


async def test_store_an_address_may_be_escaped(with_key: GuideGateway) -> None:
    for email, path in (("a+b@example.com", "a+b@example.com"), ("user@example.com", "user%40example.com")):
        await with_key.ask("POST", "/api/user/key", KEY, {"email": email})
        assert (await with_key.ask("GET", f"/api/user/key/{path}", KEY))["keyPreference"]["hasKey"] is True


async def test_store_every_route_takes_the_header(with_key: GuideGateway) -> None:
    made = await with_key.ask("POST", "/api/user/key", KEY, STORE_REQUEST)
    for path in ("/v1/models", "/api/me", "/api/tokens", f"/api/user/key/{EMAIL}", f"/api/user/usage/{EMAIL}"):
        await with_key.ask("GET", path, made["key"])


async def test_store_differs_the_prefix_is_as_long_as_everywhere(with_key: GuideGateway) -> None:
    """There ``sk_abc123``, which is no beginning of the key; here the first 14 characters."""
    made = await with_key.ask("POST", "/api/user/key", KEY, STORE_REQUEST)
    assert made["keyPrefix"] == made["key"][:14]


@pytest.mark.parametrize("method", ["GET", "DELETE", "POST"])
async def test_store_differs_keys_are_for_their_owner(with_key: GuideGateway, method: str) -> None:
    """There, knowing an e-mail address was enough."""
    other = await with_key.ask("POST", "/api/user/key", KEY, {"email": "other@example.com"})
    await with_key.ask("POST", "/api/user/key", KEY, STORE_REQUEST)
    path = "/api/user/key" if method == "POST" else f"/api/user/key/{EMAIL}"
    body = json.dumps(STORE_REQUEST).encode() if method == "POST" else None
    for headers, status in (([], 401), ([("X-API-Key", other["key"])], 403 if method == "POST" else 404)):
        assert (await with_key.gateway.request(method, path, [JSON, *headers], body)).status == status
