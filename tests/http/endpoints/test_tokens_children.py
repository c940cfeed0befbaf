"""Children of tokens, and test tokens: neither has more rights than its parent."""

import asyncio
import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from gateway.core.clock import to_iso
from tests.support.gateway import CHAT, KEY
from tests.support.reply import check_error
from tests.support.token_api import ANN, BOB, DENIED, HOUR, INVALID, TokenApi, gateway_with_api
from tests.support.tokens import NOW, content, entry
from tests.support.upstream import always, answer, running_upstream

# Children


@pytest.mark.parametrize(
    ("field", "value"),
    [("models", None), ("models", ["gpt-4o", "o3"]), ("models", ["*"]), ("limits", None), ("limits", {"rpm": 11}),
     ("limits", {"tpm": 5}), ("limits", {"rpm": 10, "budget": "2/day"}), ("expires_at", None), ("expires_in", "never"),
     ("expires_in", "2d"), ("role", "admin"), ("owner", BOB), ("owner", None)],
)  # fmt: skip
async def test_a_child_has_no_more_than_its_parent(api: TokenApi, field: str, value: Any) -> None:
    limits = {"rpm": 10, "budget": "10/week"}
    parent = await api.create(owner=ANN, models=["gpt-4o*"], limits=limits, expires_in="1d")
    child = await api.create(parent["token"])
    inherited = ("owner", "role", "models", "limits", "expires_at")
    assert [child[name] for name in inherited] == [parent[name] for name in inherited]
    before = api.path.read_bytes()
    for key, status, kind in ((parent["token"], 403, DENIED), (KEY, 400, INVALID)):
        for method, path in (("POST", "/api/tokens"), ("PATCH", f"/api/tokens/{child['id']}")):
            body = {"name": "x", field: value, **({"parent_id": parent["id"]} if method == "POST" else {})}
            reply = await api.request(method, path, body, key)
            error = check_error(reply, status, kind, "insufficient_permissions" if status == 403 else "invalid_value")
            assert error["param"] == field.replace("expires_in", "expires_at")
    assert await asyncio.to_thread(lambda: without_uses(api.path.read_bytes())) == without_uses(before)


def without_uses(data: bytes) -> Any:
    tokens = json.loads(data)["tokens"]
    return [{name: one[name] for name in one if name not in ("last_used", "usage_count")} for one in tokens]


async def test_narrowing_a_parent_narrows_its_children_at_once(api: TokenApi) -> None:
    parent = await api.create(role="admin")
    child = await api.create(parent["token"], parent_id=parent["id"], role="admin")
    assert (await api.request("POST", "/v1/chat/completions", CHAT, child["token"])).status == 200
    assert (await api.request("GET", "/metrics", secret=child["token"])).status == 200
    await api.call("PATCH", f"/api/tokens/{parent['id']}", {"models": ["other"], "role": "service", "expires_in": "1h"})
    reply = await api.request("POST", "/v1/chat/completions", CHAT, child["token"])
    check_error(reply, 404, INVALID, "model_not_found")
    for method, path, body in (("POST", "/api/tokens", {"name": "x"}), ("GET", "/metrics", None)):
        reply = await api.request(method, path, body, child["token"])
        check_error(reply, 403, DENIED, "insufficient_permissions")
    told = await api.call("GET", "/api/me", secret=child["token"])
    assert (told["role"], told["models"], told["expires_at"]) == ("service", ["other"], to_iso(NOW + HOUR))
    api.clock.now += HOUR
    assert not await api.is_accepted(child["token"])


async def test_a_new_owner_gets_what_is_below(api: TokenApi) -> None:
    parent = await api.create(owner=ANN)
    child = await api.create(parent["token"])
    await api.call("PATCH", f"/api/tokens/{parent['id']}", {"owner": BOB})
    assert (await api.get(child))["owner"] == BOB


async def test_a_child_below_a_line_that_was_narrowed_takes_what_is_left(api: TokenApi) -> None:
    """Each of two sets of limits holds, and neither keeps to the other. Whoever wishes for nothing gets both."""
    parent = await api.create(limits={"rpm": 10})
    child = await api.create(parent["token"], limits={"rpm": 10, "tpm": 5})
    await api.call("PATCH", f"/api/tokens/{parent['id']}", {"limits": {"rpm": 5}})
    for key in (child["token"], KEY):
        assert (await api.create(key, parent_id=child["id"]))["limits"] == {"rpm": 5, "tpm": 5}


@pytest.mark.parametrize("name", ["a+b", "a'b", "\u00fc", "A.b_c-d", "a/b", "a%b", "a?b", "a#b", "a;b", "a\\b"])
async def test_every_users_key_that_can_be_made_can_be_ended(api: TokenApi, name: str) -> None:
    email = f"{name}@example.com"
    made = await api.request("POST", "/api/user/key", {"email": email})
    ended = await api.request("DELETE", f"/api/user/key/{quote(email, safe='')}")
    assert (made.status, ended.status) in ((200, 200), (400, 404)), (made, ended)


# Test tokens


async def test_test_tokens_and_their_children_reach_no_model(tmp_path: Path) -> None:
    async with (
        running_upstream(always(answer(b'{"id":"1","object":"x","model":"m","choices":[]}'))) as upstream,
        gateway_with_api(tmp_path, GATEWAY_UPSTREAM_URL=upstream.url) as api,
    ):
        parent = await api.create(prefix="sk_test_")
        child = await api.create(parent["token"])
        assert child["token"].startswith("sk_test_")
        for one in (parent, child):
            reply = await api.request("POST", "/v1/chat/completions", CHAT, one["token"])
            assert reply.json()["choices"][0]["message"]["content"] == "Hello there"
        for prefix in ("sk-", "sk_live_"):
            reply = await api.request("POST", "/api/tokens", {"name": "x", "prefix": prefix}, parent["token"])
            assert check_error(reply, 403, DENIED, "insufficient_permissions")["param"] == "prefix"
        assert not upstream.requests
        live = await api.create(prefix="sk_live_")
        assert (await api.request("POST", "/v1/chat/completions", CHAT, live["token"])).json()["choices"] == []
        assert len(upstream.requests) == 1


async def test_below_a_test_token_nothing_reaches_a_model_whatever_its_prefix(tmp_path: Path) -> None:
    """Nobody can make such a child; somebody can write it into the file."""
    parent, child = "sk_test_parent-that-is-made-up", "sk-child-that-is-made-up"
    below = entry(child, parent_id=entry(parent)["id"])
    (tmp_path / "api_tokens.json").write_bytes(content(entry(parent), below))
    async with (
        running_upstream(always(answer(b"{}"))) as upstream,
        gateway_with_api(tmp_path, GATEWAY_UPSTREAM_URL=upstream.url) as api,
    ):
        reply = await api.request("POST", "/v1/chat/completions", CHAT, child)
        assert reply.json()["choices"][0]["message"]["content"] == "Hello there"
        assert not upstream.requests
