"""The life of a token over HTTP: revoked, deleted, rotated, and requests that change it at the same time."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from gateway.core.clock import to_iso
from tests.support.gateway import KEY
from tests.support.reply import check_error
from tests.support.token_api import ANN, DAY, DENIED, FIELDS, HOUR, INVALID, TokenApi, gateway_with_api
from tests.support.tokens import NOW, STRANGE_KEY

# Ended


async def test_revoked_is_for_ever(api: TokenApi) -> None:
    made = await api.create()
    revoked = await api.call("POST", f"/api/tokens/{made['id']}/revoke")
    assert (revoked["status"], revoked["revoked_at"]) == ("revoked", to_iso(NOW))
    reply = await api.request("GET", "/v1/models", secret=made["token"])
    assert "it is revoked" in check_error(reply, 401, INVALID, "invalid_api_key")["message"]
    api.clock.now += 60
    assert await api.call("POST", f"/api/tokens/{made['id']}/revoke") == revoked
    for field in ("revoked_at", "status"):
        check_error(
            await api.request("PATCH", f"/api/tokens/{made['id']}", {field: None}), 400, INVALID, "unknown_parameter"
        )
    reply = await api.request("POST", f"/api/tokens/{made['id']}/rotate")
    check_error(reply, 409, INVALID, "token_not_active")
    assert await api.get(made) == revoked


async def test_deleted_is_gone(api: TokenApi) -> None:
    made = await api.create()
    assert await api.call("DELETE", f"/api/tokens/{made['id']}") == {"id": made["id"], "deleted": True}
    assert api.stored_tokens() == []
    reply = await api.request("GET", "/v1/models", secret=made["token"])
    assert "it is not known here" in check_error(reply, 401, INVALID, "invalid_api_key")["message"]
    for method, path in (("GET", ""), ("PATCH", ""), ("DELETE", ""), ("POST", "/revoke"), ("POST", "/rotate")):
        body = {"name": "x"} if method == "PATCH" else None
        reply = await api.request(method, f"/api/tokens/{made['id']}{path}", body)
        check_error(reply, 404, INVALID, "token_not_found")
    assert (await api.validate(made["token"]))["status"] == "unknown"


@pytest.mark.parametrize("how", ["revoke", "delete", "by its secret"])
async def test_what_is_below_ends_too(api: TokenApi, how: str) -> None:
    parent = await api.create()
    child = await api.create(parent["token"])
    grandchild = await api.create(child["token"])
    other = await api.create()
    if how == "by its secret":
        await api.call("POST", "/api/tokens/revoke", {"token": parent["token"]}, None)
    else:
        path = f"/api/tokens/{parent['id']}"
        await (api.call("DELETE", path) if how == "delete" else api.call("POST", f"{path}/revoke"))
    assert [await api.is_accepted(one["token"]) for one in (parent, child, grandchild, other)] == [False] * 3 + [True]
    assert [(await api.get(one))["revoked_at"] for one in (child, grandchild)] == [to_iso(NOW)] * 2


async def test_an_expired_parent_ends_what_is_below_until_it_lives_again(api: TokenApi) -> None:
    parent = await api.create(expires_in="1h")
    child = await api.create(parent["token"])
    assert child["expires_at"] == to_iso(NOW + HOUR)
    api.clock.now += HOUR
    assert not await api.is_accepted(child["token"])
    await api.call("PATCH", f"/api/tokens/{parent['id']}", {"expires_in": "1h"})
    await api.call("PATCH", f"/api/tokens/{child['id']}", {"expires_in": "30m"})
    assert await api.is_accepted(child["token"])


async def test_whoever_holds_a_secret_can_end_it(api: TokenApi) -> None:
    made = await api.create()
    answers = []
    for given in (
        STRANGE_KEY,
        made["token"][:-1] + "-",
        "",
        "\u00e4",
        "x" * 3000,
        KEY,
        f"  {made['token']}\n",
        made["token"],
    ):
        reply = await api.request("POST", "/api/tokens/revoke", {"token": given}, None)
        answers.append((reply.status, reply.body))
    assert len(set(answers)) == 1
    assert answers[0][0] == 200
    assert (await api.get(made))["status"] == "revoked"
    assert await api.is_accepted(KEY)


@pytest.mark.parametrize("path", ["/api/tokens/validate", "/api/tokens/revoke"])
async def test_what_anybody_may_ask_is_read_strictly(api: TokenApi, path: str) -> None:
    for body, code in (
        ({}, "missing_required_parameter"), ({"token": 5}, "invalid_value"), ({"token": None}, "invalid_value"),
        ({"token": "x", "id": "y"}, "unknown_parameter"), (b'{"token":"x","token":"y"}', "duplicate_key"),
        (b"token=x", "invalid_json"),
    ):  # fmt: skip
        check_error(await api.request("POST", path, body, None), 400, INVALID, code)
    assert check_error(await api.request("GET", path, secret=None), 405, INVALID, "method_not_supported")


# Rotation


async def test_rotation_keeps_everything_but_the_secret(api: TokenApi) -> None:
    made = await api.create(name="mine", owner=ANN, models=["m"], limits={"rpm": 5}, metadata={"a": 1}, expires_in="1y")
    await api.is_accepted(made["token"])
    await api.flush_last_used()
    before = await api.get(made)
    api.clock.now += 10
    rotated = await api.call("POST", f"/api/tokens/{made['id']}/rotate", {"grace": "1h"})
    assert list(rotated) == ["token", *FIELDS]
    assert rotated["token"] != made["token"]
    assert rotated["prefix"] == rotated["token"][:14]
    kept = [name for name in FIELDS if name not in ("prefix", "previous_secrets")]
    assert [rotated[name] for name in kept] == [before[name] for name in kept]
    assert rotated["previous_secrets"] == [{
        "prefix": made["prefix"], "status": "active", "rotated_at": to_iso(NOW + 10),
        "valid_until": to_iso(NOW + 10 + HOUR), "revoked_at": None, "last_used": None, "last_used_from": None,
        "usage_count": 0,
    }]  # fmt: skip


@pytest.mark.parametrize(("body", "seconds"), [(None, DAY), ({}, DAY), ({"grace": "1h"}, HOUR), ({"grace": "90s"}, 90)])
async def test_both_work_until_the_grace_ends_in_that_very_second(api: TokenApi, body: Any, seconds: int) -> None:
    old = await api.create()
    new = await api.call("POST", f"/api/tokens/{old['id']}/rotate", body)
    api.clock.now = NOW + seconds - 0.01
    assert (await api.is_accepted(old["token"]), await api.is_accepted(new["token"])) == (True, True)
    assert (await api.validate(old["token"]))["expires_at"] == to_iso(NOW + seconds)
    assert (await api.validate(new["token"]))["expires_at"] is None
    api.clock.now = NOW + seconds
    assert (await api.is_accepted(old["token"]), await api.is_accepted(new["token"])) == (False, True)
    assert await api.validate(old["token"]) == {"valid": False, "status": "expired"}
    assert (await api.get(old))["previous_secrets"][0]["status"] == "expired"


async def test_without_grace_every_older_secret_ends_now(api: TokenApi) -> None:
    first = await api.create()
    second = await api.call("POST", f"/api/tokens/{first['id']}/rotate")
    third = await api.call("POST", f"/api/tokens/{first['id']}/rotate", {"grace": "0"})
    assert [await api.is_accepted(one["token"]) for one in (first, second, third)] == [False, False, True]
    assert [old["status"] for old in third["previous_secrets"]] == ["revoked", "revoked"]


@pytest.mark.parametrize("grace", [5, None, "", "-1h", "soon", "2y", "never", ["1h"], "367d"])
async def test_graces_that_cannot_be(api: TokenApi, grace: Any) -> None:
    made = await api.create()
    reply = await api.request("POST", f"/api/tokens/{made['id']}/rotate", {"grace": grace})
    assert check_error(reply, 400, INVALID, "invalid_value")["param"] == "grace"
    assert (await api.get(made))["previous_secrets"] == []


async def test_old_secrets_do_not_pile_up(api: TokenApi) -> None:
    made = await api.create()
    for _ in range(5):
        await api.call("POST", f"/api/tokens/{made['id']}/rotate", {"grace": "1h"})
    reply = await api.request("POST", f"/api/tokens/{made['id']}/rotate", {"grace": "1h"})
    assert check_error(reply, 400, INVALID, "invalid_value")["param"] == "grace"
    api.clock.now += HOUR
    await api.call("POST", f"/api/tokens/{made['id']}/rotate", {"grace": "1h"})
    assert len((await api.get(made))["previous_secrets"]) == 1


async def test_a_grace_never_outlasts_the_token(api: TokenApi) -> None:
    made = await api.create(expires_in="1h")
    rotated = await api.call("POST", f"/api/tokens/{made['id']}/rotate")
    assert rotated["previous_secrets"][0]["valid_until"] == to_iso(NOW + HOUR)


async def test_who_still_uses_the_old_secret_is_told(tmp_path: Path) -> None:
    async with gateway_with_api(tmp_path, GATEWAY_TRUSTED_PROXIES="127.0.0.0/8") as api:
        made = await api.create()
        await api.is_accepted(made["token"])
        new = await api.call("POST", f"/api/tokens/{made['id']}/rotate")
        for seconds, address in ((1, "203.0.113.9"), (2, "2001:db8::7")):
            api.clock.now = NOW + seconds
            await api.is_accepted(made["token"], [("X-Forwarded-For", address)])
        api.clock.now = NOW + 3
        await api.is_accepted(new["token"], [("X-Forwarded-For", "198.51.100.1")])
        await api.flush_last_used()
        shown = await api.get(made)
        (old,) = shown["previous_secrets"]
        assert (old["usage_count"], old["last_used"], old["last_used_from"]) == (2, to_iso(NOW + 2), "2001:db8::7")
        assert (shown["usage_count"], shown["last_used"]) == (4, to_iso(NOW + 3))


async def test_a_replaced_secret_ends_alone(api: TokenApi) -> None:
    old = await api.create()
    child = await api.create(old["token"])
    new = await api.call("POST", f"/api/tokens/{old['id']}/rotate")
    await api.call("POST", "/api/tokens/revoke", {"token": old["token"]}, None)
    assert [await api.is_accepted(one["token"]) for one in (old, new, child)] == [False, True, True]
    shown = await api.get(old)
    assert (shown["status"], shown["previous_secrets"][0]["status"]) == ("active", "revoked")
    assert await api.validate(old["token"]) == {"valid": False, "status": "revoked"}


async def test_a_replaced_secret_is_no_way_back(api: TokenApi) -> None:
    """Whoever found an old secret must not get a new one out of it, nor anything that lives longer."""
    old = await api.create(owner=ANN)
    await api.call("POST", f"/api/tokens/{old['id']}/rotate", {"grace": "1h"})
    before = api.path.read_bytes()
    path = f"/api/tokens/{old['id']}"
    for method, where, body in (
        ("POST", f"{path}/rotate", None), ("PATCH", path, {"name": "x"}), ("DELETE", path, None),
        ("POST", "/api/tokens", {"name": "x"}), ("POST", "/api/tokens", {"name": "x", "expires_in": "2h"}),
    ):  # fmt: skip
        error = check_error(
            await api.request(method, where, body, old["token"]), 403, DENIED, "insufficient_permissions"
        )
        assert (error["param"], "has been replaced" in error["message"]) == ("expires_at", True)
    assert api.path.read_bytes() == before
    assert (await api.create(old["token"], expires_in="1h"))["expires_at"] == to_iso(NOW + HOUR)
    key = await api.call("POST", "/api/user/key", {"email": ANN}, old["token"])
    assert (await api.validate(key["key"]))["expires_at"] == to_iso(NOW + HOUR)


# All at once


@pytest.mark.parametrize("kind", ["token", "key"])
async def test_of_two_first_tokens_at_once_one_is_made(tmp_path: Path, kind: str) -> None:
    body, path = ({"name": "x"}, "/api/tokens") if kind == "token" else ({"email": ANN}, "/api/user/key")
    async with gateway_with_api(tmp_path, FREEGPT_API_KEY="") as api:
        replies = await asyncio.gather(*(api.request("POST", path, body, None) for _ in range(8)))
        made = [reply for reply in replies if reply.status < 300]
        assert len(made) == len(api.stored_tokens()) == 1
        for reply in replies:
            if reply not in made:
                check_error(reply, 401, INVALID, None)
        shown = made[0].json()
        assert await api.is_accepted(shown.get("token") or shown["key"])


async def test_no_change_is_lost(api: TokenApi) -> None:
    made = await api.create()
    fields = {"name": "changed", "owner": ANN, "models": ["m"], "limits": {"rpm": 5}, "metadata": {"a": 1}}
    path = f"/api/tokens/{made['id']}"
    patches = [api.call("PATCH", path, {name: value}) for name, value in fields.items()]
    others = [api.create(name=f"n{number}") for number in range(5)]
    await asyncio.gather(*patches, *others)
    shown = await api.get(made)
    assert {name: shown[name] for name in fields} == fields
    assert len(api.stored_tokens()) == 6


@pytest.mark.parametrize("how", ["/revoke", "/rotate", ""])
async def test_a_token_that_ends_itself_is_told_so(api: TokenApi, how: str) -> None:
    made = await api.create(owner=ANN)
    body = {"grace": "0"} if how == "/rotate" else None
    done = await api.call("POST" if how else "DELETE", f"/api/tokens/{made['id']}{how}", body, made["token"])
    assert done["id"] == made["id"]
    assert not await api.is_accepted(made["token"])
    assert how != "/rotate" or await api.is_accepted(done["token"])


async def test_a_key_that_replaces_itself_is_told_the_new_one(api: TokenApi) -> None:
    first = await api.call("POST", "/api/user/key", {"email": ANN})
    second = await api.call("POST", "/api/user/key", {"email": ANN}, first["key"])
    assert (await api.is_accepted(first["key"]), await api.is_accepted(second["key"])) == (False, True)
