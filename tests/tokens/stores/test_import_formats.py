"""Which forms `import` reads, and what becomes of each restriction in them."""

import json
from typing import Any

import pytest

from gateway.core.clock import to_iso
from gateway.tokens import secret
from gateway.tokens.models import Status, TokenRecord
from gateway.tokens.store import TokensDamaged
from gateway.tokens.stores.import_formats import decode
from tests.support.tokens import NOW, content, entry, freegpt

HASH = "88dc28d0f030c55ed4ab77ed8faf098196cb1c05df778539800c9f1243fe6b4b"
LITELLM = {"token": HASH, "key_name": "sk-...7sFg", "key_alias": "ci", "blocked": None}
ONE_API = {"id": 1, "key": "aBcdEfGhIjKlMnOpQrStUvWxYz0123", "status": 1, "name": "test", "created_time": 1_700_000_000}


def read(document: Any) -> tuple[TokenRecord, ...]:
    return decode(json.dumps(document).encode(), NOW)


def one(**fields: Any) -> TokenRecord:
    base = LITELLM if not any(name in fields for name in ("key", "status", "remain_quota", "expired_time")) else ONE_API
    (found,) = read([{**base, **fields}])
    return found


@pytest.mark.parametrize("document", [json.loads(content(entry())), freegpt()])
def test_our_own_forms_are_read(document: Any) -> None:
    assert len(read(document)) == 1


@pytest.mark.parametrize(
    "document", [{"keys": [LITELLM], "total_count": 1}, [LITELLM], {"data": [LITELLM]}, {"data": {"keys": [LITELLM]}}]
)
def test_litellm_keeps_the_same_hash(document: Any) -> None:
    (found,) = read(document)
    assert (found.hash, found.name, found.prefix) == (HASH, "ci", "sk-...7sFg")
    assert (found.models, found.limits, found.created_at, found.status(NOW)) == (None, None, int(NOW), Status.ACTIVE)


@pytest.mark.parametrize(
    "document",
    [
        {"success": True, "message": "", "data": [ONE_API]},
        [ONE_API],
        {"success": True, "data": {"items": [ONE_API], "total": 1}},
        [{**ONE_API, "key": "sk-" + ONE_API["key"]}],  # type: ignore[operator]
    ],
)
def test_one_api_keeps_keys_without_their_prefix(document: Any) -> None:
    (found,) = read(document)
    assert found.hash == secret.digest("sk-aBcdEfGhIjKlMnOpQrStUvWxYz0123")
    assert (found.name, found.prefix, found.created_at) == ("test", "sk-aBcdEfGhIjK", 1_700_000_000)


@pytest.mark.parametrize(
    ("fields", "limits"),
    [
        ({"rpm_limit": 60, "tpm_limit": 1000, "max_parallel_requests": 2}, {"rpm": 60, "tpm": 1000, "max_parallel": 2}),
        ({"max_budget": 10, "spend": 2.5}, {"budget": "7.5"}),
        ({"max_budget": 1, "spend": 5}, {"budget": "0.000001"}),
        ({"max_budget": 10.0, "budget_duration": "30d"}, {"budget": "10/month"}),
        ({"max_budget": 0.5, "budget_duration": "24h"}, {"budget": "0.5/day"}),
        ({"remain_quota": 750_000}, {"budget": "1.5"}),
        ({"remain_quota": 0, "unlimited_quota": True}, None),
    ],
)
def test_limits_are_kept(fields: dict[str, Any], limits: dict[str, Any] | None) -> None:
    found = one(**fields).limits
    assert (found and found.as_json()) == limits


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"blocked": True}, Status.REVOKED),
        ({"expires": "2020-01-01T00:00:00+00:00"}, Status.EXPIRED),
        ({"expires": "2099-01-01T00:00:00+00:00"}, Status.ACTIVE),
        ({"status": 2}, Status.REVOKED),
        ({"status": 4}, Status.REVOKED),
        ({"remain_quota": 0}, Status.REVOKED),
        ({"expired_time": 1_700_000_001}, Status.EXPIRED),
        ({"expired_time": -1}, Status.ACTIVE),
    ],
)
def test_a_key_that_had_ended_does_not_come_back(fields: dict[str, Any], status: Status) -> None:
    assert one(**fields).status(NOW) is status


@pytest.mark.parametrize(
    ("fields", "models"),
    [
        ({"models": ["gpt-4o"]}, ("gpt-4o",)),
        ({"models": []}, None),
        ({"models": ["all-proxy-models"]}, None),
        ({"key": "abcdefghijkl", "models": "a,b"}, ("a", "b")),
        ({"key": "abcdefghijkl", "model_limits_enabled": True, "model_limits": "a"}, ("a",)),
        ({"key": "abcdefghijkl", "model_limits_enabled": False, "model_limits": "a"}, None),
    ],
)
def test_models_are_kept(fields: dict[str, Any], models: tuple[str, ...] | None) -> None:
    document = {**(ONE_API if "key" in fields else LITELLM), **fields}
    assert read([document])[0].models == models


def test_owners_and_names_come_from_what_is_there() -> None:
    assert one(user_id="ann@example.com").owner == "ann@example.com"
    assert one(user_id="default_user_id").owner is None
    assert one(key_alias=None).name == "sk-...7sFg"
    nameless = one(key_alias=None, key_name=None)
    assert (nameless.name, nameless.prefix) == (f"litellm {HASH[:8]}", HASH[:8])
    clear = one(token="sk-in-clear-0123456789", key_alias=None, key_name=None)
    assert (clear.hash, clear.prefix) == (secret.digest("sk-in-clear-0123456789"), "sk-in-clear")
    assert one(key_name="\n").prefix == "sk-"
    assert one(status=1, name="").name.startswith("one-api sk-")
    assert to_iso(one(status=1, accessed_time=1_700_000_002).last_used) == "2023-11-14T22:13:22Z"


@pytest.mark.parametrize(
    ("document", "complaint"),
    [
        ([{**LITELLM, "allowed_routes": ["/v1/models"]}], "entry 1: `allowed_routes` restricts the key"),
        ([{**LITELLM, "models": ["all-team-models"]}], "refers to a team"),
        ([{**LITELLM, "max_budget": 1, "budget_duration": "3h"}], "`budget_duration` '3h' has no equivalent"),
        ([{**LITELLM, "max_budget": "much"}], "must be numbers"),
        ([{**LITELLM, "max_budget": 1e30}], "too large"),
        ([{**LITELLM, "token": "a b"}], "`token` must be a key or its SHA-256"),
        ([{**LITELLM, "rpm_limit": 0}], "must be a whole number, 1 to"),
        ([LITELLM, LITELLM], "appears twice"),
        ([{**ONE_API, "subnet": "10.0.0.0/8"}], "`subnet` restricts the key"),
        ([{**ONE_API, "key": "abcd**********wxyz"}], "must be a whole key"),
        ([{**ONE_API, "expired_time": "never"}], "seconds since 1970"),
        ([{"id": 1}], "entry 1: has neither `token` nor `key`"),
        ({"keys": [HASH]}, "unknown form"),
        ([], "unknown form"),
        ("x", "unknown form"),
        ({"success": False, "message": "no"}, "unknown form"),
        ({"data": {"data": {"data": {"data": []}}}}, "unknown form"),
        ({"version": 2}, "this gateway reads version 1"),
    ],
)
def test_what_cannot_be_kept_is_refused_with_the_reason(document: Any, complaint: str) -> None:
    with pytest.raises(TokensDamaged) as caught:
        read(document)
    assert complaint in str(caught.value)


def test_the_forms_are_named() -> None:
    with pytest.raises(
        TokensDamaged, match=r"a token file of this gateway or of FreeGPT; LiteLLM's .*one-api and new-api"
    ):
        read(["x"])
