"""The life of a token over HTTP: made, shown once, used, listed, changed, rotated, revoked, deleted, and what goes with it."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from gateway.app import WorkerShared
from gateway.core.clock import SteadyClock, to_iso
from gateway.http.middleware.ip_rate_limit import IpRateLimit
from gateway.observability.shared_metrics import SharedMetrics
from gateway.storage.shared_memory import SharedLatch
from gateway.tokens import secret
from tests.http.test_revocation import FIRST_PIECE, begins, start
from tests.support.gateway import CHAT, JSON, KEY, Running, running_gateway
from tests.support.reply import Headers, Reply, check_error
from tests.support.tokens import NOW, STRANGE_KEY, Clock, content, entry
from tests.support.upstream import always, answer, running_upstream
from tests.support.wire import connected

ANN, BOB = "ann@example.com", "bob@example.com"
INVALID, DENIED = "invalid_request_error", "permission_error"
HOUR, DAY, YEAR = 3600, 86_400, 365 * 86_400
FIELDS = [
    "id", "name", "prefix", "status", "owner", "role", "parent_id", "created_at", "expires_at", "revoked_at",
    "last_used", "usage_count", "models", "limits", "metadata", "previous_secrets",
]  # fmt: skip


class Api:
    """A gateway, its clock, and somebody with the environment key who asks it."""

    def __init__(self, gateway: Running, clock: Clock, folder: Path) -> None:
        self.gateway = gateway
        self.clock = clock
        self.folder = folder
        self.path = folder / "api_tokens.json"

    async def ask(self, method: str, path: str, body: Any = None, held: str | None = KEY, more: Headers = ()) -> Reply:
        """``body`` goes as JSON, bytes as they are; ``held`` is the secret to send."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        headers = [JSON, *more] if held is None else [JSON, ("Authorization", f"Bearer {held}"), *more]
        return await self.gateway.request(method, path, headers, data)

    async def done(self, method: str, path: str, body: Any = None, held: str | None = KEY, more: Headers = ()) -> Any:
        reply = await self.ask(method, path, body, held, more)
        assert reply.status == (201 if (method, path) == ("POST", "/api/tokens") else 200), reply
        assert reply.header("Cache-Control") == "no-store"
        return reply.json()

    async def made(self, held: str | None = KEY, **fields: Any) -> Any:
        return await self.done("POST", "/api/tokens", {"name": "application", **fields}, held)

    async def shown(self, made: Any) -> Any:
        return await self.done("GET", f"/api/tokens/{made['id']}")

    async def verdict(self, held: str) -> Any:
        return await self.done("POST", "/api/tokens/validate", {"token": held}, None)

    async def enters(self, held: str, more: Headers = ()) -> bool:
        """Whether a model would answer whoever holds this."""
        reply = await self.ask("GET", "/v1/models", held=held, more=more)
        assert reply.status in (200, 401), reply
        return reply.status == 200

    async def uses_are_written(self) -> None:
        await self.gateway.flush_last_used()

    def stored(self) -> Any:
        return json.loads(self.path.read_bytes())["tokens"]


@asynccontextmanager
async def gateway_with_api(folder: Path, **values: str) -> AsyncIterator[Api]:
    clock = Clock()
    values = {"FREEGPT_API_KEY": KEY, "GATEWAY_DATA_DIR": str(folder / "data"), "GATEWAY_LOG_LEVEL": "error", **values}
    async with running_gateway(folder, app_options={"clock": clock}, **values) as gateway:
        yield Api(gateway, clock, folder)


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with gateway_with_api(tmp_path) as found:
        yield found


# Made, and shown once


async def test_a_new_token(api: Api) -> None:
    made = await api.made(name="my application")
    assert list(made) == ["token", *FIELDS]
    assert made["name"] == "my application"
    assert (len(made["token"]), made["token"].startswith("sk-")) == (52, True)
    assert made["prefix"] == made["token"][:14]
    assert (made["status"], made["role"], made["created_at"]) == ("active", "member", to_iso(NOW))
    assert await api.enters(made["token"])


async def test_the_secret_is_shown_once_and_kept_nowhere(api: Api) -> None:
    made = await api.made(owner=ANN)
    rotated = await api.done("POST", f"/api/tokens/{made['id']}/rotate")
    hashes = [hashlib.sha256(one["token"].encode()).hexdigest() for one in (made, rotated)]
    (stored,) = api.stored()
    assert [stored["previous_secrets"][0]["hash"], stored["hash"]] == hashes
    assert api.path.stat().st_mode & 0o777 == 0o600
    for path in (f"/api/tokens/{made['id']}", "/api/tokens", f"/api/user/key/{ANN}"):
        text = (await api.ask("GET", path)).body.decode()
        assert not any(one in text for one in (made["token"], rotated["token"], *hashes))
    written = b"".join(path.read_bytes() for path in api.folder.rglob("*") if path.is_file())
    assert not any(one["token"].encode() in written for one in (made, rotated))
    assert hashes[0].encode() not in (api.folder / "data" / "audit.jsonl").read_bytes()


@pytest.mark.parametrize("prefix", ["sk-", "sk_live_", "sk_test_"])
async def test_prefixes(api: Api, prefix: str) -> None:
    made = await api.made(prefix=prefix)
    assert made["token"].startswith(prefix)
    assert len(made["token"]) == len(prefix) + 49
    assert not secret.has_bad_checksum(made["token"])
    assert await api.enters(made["token"])
    rotated = await api.done("POST", f"/api/tokens/{made['id']}/rotate")
    assert rotated["token"].startswith(prefix)


async def test_everything_that_can_be_set(api: Api) -> None:
    spec = {
        "name": "a", "owner": ANN, "role": "service", "expires_at": to_iso(NOW + DAY), "models": ["gpt-4o*", "o3"],
        "limits": {"rpm": 60, "tpm": 9000, "max_parallel": 2, "budget": "2.5/day"}, "metadata": {"team": ["x", 1]},
    }  # fmt: skip
    made = await api.made(**spec)
    assert {name: made[name] for name in spec} == spec
    nothing = {"expires_at": None, "models": None, "limits": None, "metadata": {}}
    other = {"name": "b", "owner": BOB, "role": "admin", **nothing}
    patched = await api.done("PATCH", f"/api/tokens/{made['id']}", other)
    assert patched == await api.shown(made) == {**{name: made[name] for name in FIELDS}, **other}


# Is it good?


async def test_a_good_secret_is_told_about(api: Api) -> None:
    made = await api.made(name="mine", expires_in="30d")
    assert await api.verdict(made["token"]) == {
        "valid": True, "name": "mine", "created_at": to_iso(NOW), "last_used": None, "usage_count": 0,
        "status": "active", "expires_at": to_iso(NOW + 30 * DAY),
    }  # fmt: skip
    of_key = await api.verdict(KEY)
    assert (of_key["valid"], of_key["name"], of_key["status"]) == (True, "environment", "active")


async def test_of_a_bad_secret_only_is_told_why(api: Api) -> None:
    expired, revoked, parent = [await one for one in (api.made(expires_in="1h"), api.made(), api.made())]
    child = await api.made(parent["token"])
    for one in (revoked, parent):
        await api.done("POST", f"/api/tokens/{one['id']}/revoke")
    api.clock.now += HOUR
    found = {name: await api.verdict(held) for name, held in {
        "expired": expired["token"], "revoked": revoked["token"], "child": child["token"], "unknown": STRANGE_KEY,
        "mistyped": revoked["token"][:-1] + "-", "hash": hashlib.sha256(revoked["token"].encode()).hexdigest(),
        "prefix": expired["prefix"], "odd": "\u00e4\u2713 \x00", "long": "x" * 2000, "empty": "",
    }.items()}  # fmt: skip
    status = {"expired": "expired", "revoked": "revoked", "child": "revoked"}
    assert found == {name: {"valid": False, "status": status.get(name, "unknown")} for name in found}


async def test_asking_is_no_use(api: Api) -> None:
    made = await api.made()
    for _ in range(3):
        assert (await api.verdict(made["token"]))["usage_count"] == 0
    await api.uses_are_written()
    assert (await api.verdict(made["token"]))["usage_count"] == 0
    api.clock.now += 5
    assert [await api.enters(made["token"]) for _ in range(3)] == [True] * 3
    await api.uses_are_written()
    told = await api.verdict(made["token"])
    assert (told["usage_count"], told["last_used"]) == (3, to_iso(NOW + 5))


async def test_a_use_that_was_not_allowed_is_a_use(api: Api) -> None:
    made = await api.made(role="service")
    check_error(
        await api.ask("POST", "/api/tokens", {"name": "x"}, made["token"]), 403, DENIED, "insufficient_permissions"
    )
    await api.uses_are_written()
    assert (await api.shown(made))["usage_count"] == 1


# Lists


async def test_lists_come_in_pages(api: Api) -> None:
    ids = [(await api.made(name=f"n{number}"))["id"] for number in range(5)]
    whole = await api.done("GET", "/api/tokens")
    assert [one["id"] for one in whole["tokens"]] == ids
    assert list(whole["tokens"][0]) == FIELDS
    assert whole["pagination"] == {
        "page": 1, "per_page": 100, "total": 5, "total_pages": 1, "has_next": False, "has_prev": False,
    }  # fmt: skip
    pages = [await api.done("GET", f"/api/tokens?page={page}&per_page=2") for page in (1, 2, 3, 4)]
    assert [[one["id"] for one in page["tokens"]] for page in pages] == [ids[:2], ids[2:4], ids[4:], []]
    turns = [(page["pagination"]["has_prev"], page["pagination"]["has_next"]) for page in pages]
    assert turns == [(False, True), (True, True), (True, False), (True, False)]
    assert {(page["pagination"]["total"], page["pagination"]["total_pages"]) for page in pages} == {(5, 3)}


async def test_an_empty_list(api: Api) -> None:
    assert await api.done("GET", "/api/tokens?per_page=7") == {
        "tokens": [],
        "pagination": {"page": 1, "per_page": 7, "total": 0, "total_pages": 0, "has_next": False, "has_prev": False},
    }


async def test_filters(api: Api) -> None:
    one = await api.made(name="web-a", owner=ANN)
    two = await api.made(name="web-b", expires_in="1h")
    three = await api.made(name="50% [x]?", owner=ANN)
    await api.done("POST", f"/api/tokens/{three['id']}/revoke")
    api.clock.now += HOUR
    for query, due in {
        f"owner={ANN}": [one, three], f"owner={BOB}": [], "status=active": [one], "status=expired": [two],
        "status=revoked": [three], "name=web-a": [one], "name=web-*": [one, two], "name=*": [one, two, three],
        "name=50%25+%5Bx%5D%3F": [three], "name=": [], f"owner={ANN}&status=active&per_page=1": [one],
    }.items():  # fmt: skip
        found = await api.done("GET", f"/api/tokens?{query}")
        assert [token["id"] for token in found["tokens"]] == [token["id"] for token in due], query
        assert found["pagination"]["total"] == len(due)


@pytest.mark.parametrize(
    ("query", "param"),
    [("page=0", "page"), ("page=-1", "page"), ("page=1.5", "page"), ("page=%D9%A1", "page"), ("page=", "page"),
     ("page=99999999999", "page"), ("per_page=0", "per_page"), ("per_page=101", "per_page"), ("page=1&page=2", "page"),
     ("status=dead", "status"), ("limit=5", "limit"), ("Page=1", "Page"), ("owner=%FF", None)],
)  # fmt: skip
async def test_queries_that_mean_nothing(api: Api, query: str, param: str | None) -> None:
    reply = await api.ask("GET", f"/api/tokens?{query}")
    assert check_error(reply, 400, INVALID, reply.json()["error"]["code"])["param"] == param


# Values that do not fit

BAD: list[tuple[str, Any, str]] = [
    *(("name", value, "name") for value in ("", " ", "a\nb", "x" * 201, 5, None, ["x"], True)),
    *(("owner", value, "owner") for value in ("ann", "a b@c", "a@b@c", "@", 5, ["a@b"], "a\u2028b@c", "x" * 65 + "@y")),
    *(("role", value, "role") for value in ("root", "Admin", "", None, 5, ["admin"], {})),
    *(("models", value, "models") for value in ("gpt-4o", [5], [""], ["x" * 257], ["m"] * 201, {}, [None], 0, ["a\n"])),
    *(("limits", value, "limits") for value in ([], "60", 5, True)),
    *(("limits", {"rpm": value}, "limits.rpm") for value in (0, -1, 1.5, "60", True, 10**13)),
    *(("limits", {"budget": value}, "limits.budget") for value in (10, "0", "1/year", "-1", "1e3", "0.0000001", "1,5")),
    ("limits", {"rpm": 1, "rps": 1}, "limits.rps"), ("limits", {"RPM": 1}, "limits.RPM"),
    *(("metadata", value, "metadata") for value in ([], "x", 5, {"a": "x" * 5000}, {"a": 2**70}, {"a": [[[[[[[[]]]]]]]]})),
    *(("expires_at", value, "expires_at") for value in (
        "soon", "", 5, True, ["2030-01-01"], "2020-01-01", "1960-01-01", to_iso(NOW), "2026-02-30", "2027-13-01",
        "2027-02-29", "10000-01-01", "0000-01-01", "9999-12-31T23:59:59-23:59", "2030-01-01T24:00:00", "30d")),
    *(("expires_in", value, "expires_in") for value in (
        "30", "0", "0d", "1.5d", "-1d", "", "30 d", "1M", "never ", "9000y", "9999999999d", "\u0663d", None, 5, ["1d"])),
]  # fmt: skip


@pytest.mark.parametrize("method", ["POST", "PATCH"])
async def test_values_that_do_not_fit(api: Api, method: str) -> None:
    made = await api.made()
    path = "/api/tokens" if method == "POST" else f"/api/tokens/{made['id']}"
    before = api.path.read_bytes()
    for field, value, param in BAD:
        reply = await api.ask(method, path, {"name": "x", field: value})
        error = check_error(reply, 400, INVALID, "invalid_value")
        assert error["param"] == param, (field, value, error)
    assert api.path.read_bytes() == before


@pytest.mark.parametrize(
    ("field", "value"), [("prefix", "pk-"), ("prefix", None), ("prefix", 5), ("parent_id", 5), ("parent_id", ""),
                         ("parent_id", "tok_nobodys"), ("parent_id", {})],
)  # fmt: skip
async def test_values_that_only_a_new_token_has(api: Api, field: str, value: Any) -> None:
    reply = await api.ask("POST", "/api/tokens", {"name": "x", field: value})
    assert check_error(reply, 400, INVALID, "invalid_value")["param"] == field
    assert not api.path.exists()


@pytest.mark.parametrize(
    ("field", "value", "due"),
    [("expires_in", "90s", to_iso(NOW + 90)), ("expires_in", "30m", to_iso(NOW + 1800)),
     ("expires_in", "30d", to_iso(NOW + 30 * DAY)), ("expires_in", "1y", to_iso(NOW + YEAR)), ("expires_in", "never", None),
     ("expires_at", "2027-01-31", "2027-01-31T00:00:00Z"), ("expires_at", "2027-01-31T10:30:00", "2027-01-31T10:30:00Z"),
     ("expires_at", "2027-01-31T10:30:00+02:00", "2027-01-31T08:30:00Z"), ("expires_at", None, None),
     ("expires_at", "2028-02-29T00:00:00Z", "2028-02-29T00:00:00Z"), ("expires_at", to_iso(NOW + 1), to_iso(NOW + 1))],
)  # fmt: skip
async def test_when_it_ends(api: Api, field: str, value: Any, due: str | None) -> None:
    made = await api.made(**{field: value})
    assert made["expires_at"] == due
    other = await api.made(expires_in="5d")
    assert (await api.done("PATCH", f"/api/tokens/{other['id']}", {field: value}))["expires_at"] == due


async def test_two_ends_are_one_too_many(api: Api) -> None:
    both = {"name": "x", "expires_at": None, "expires_in": "never"}
    assert (
        check_error(await api.ask("POST", "/api/tokens", both), 400, INVALID, "invalid_value")["param"] == "expires_in"
    )


async def test_it_ends_in_that_very_second(api: Api) -> None:
    made = await api.made(expires_in="1h")
    api.clock.now = NOW + HOUR - 0.01
    assert await api.enters(made["token"])
    api.clock.now = NOW + HOUR
    reply = await api.ask("GET", "/v1/models", held=made["token"])
    assert "it is expired" in check_error(reply, 401, INVALID, "invalid_api_key")["message"]
    assert (await api.shown(made))["status"] == "expired"
    await api.done("PATCH", f"/api/tokens/{made['id']}", {"expires_in": "1h"})
    assert await api.enters(made["token"])


BODIES = [
    (b"", "invalid_json", None), (b"[]", "invalid_json", None), (b'"name"', "invalid_json", None),
    (b"null", "invalid_json", None), (b'{"name":"x"', "invalid_json", None), (b'{"name":"x"} {}', "invalid_json", None),
    (b'{"name":"\\ud800"}', "invalid_json", None), (b'{"name":"\xff"}', "invalid_json", None),
    (b'{"name":NaN}', "invalid_json", None), (b'{"name":"x",}', "invalid_json", None),
    (b"{}", "missing_required_parameter", "name"), (b'{"Name":"x"}', "unknown_parameter", "Name"),
    (b'{"name":"x","role":"member","role":"admin"}', "duplicate_key", None),
    (b'{"name":"x","r\\u006fle":"member","role":"admin"}', "duplicate_key", None),
    (b'{"name":"x","rolle":"member"}', "unknown_parameter", "rolle"),
    (b'{"name":"x","":1}', "unknown_parameter", ""),
]  # fmt: skip


@pytest.mark.parametrize(("body", "code", "param"), BODIES)
async def test_bodies_that_are_no_wish(api: Api, body: bytes, code: str, param: str | None) -> None:
    assert check_error(await api.ask("POST", "/api/tokens", body), 400, INVALID, code)["param"] == param
    assert not api.path.exists()


async def test_bodies_that_are_too_large_or_packed(api: Api) -> None:
    large = await api.ask("POST", "/api/tokens", {"name": "x", "metadata": {"a": "x" * 70_000}})
    check_error(large, 413, INVALID, "request_too_large")
    packed = await api.ask("POST", "/api/tokens", b"\x1f\x8b", more=[("Content-Encoding", "gzip")])
    check_error(packed, 415, INVALID, "unsupported_encoding")


async def test_nothing_to_change(api: Api) -> None:
    made = await api.made()
    for body in (None, b"", {}):
        reply = await api.ask("PATCH", f"/api/tokens/{made['id']}", body)
        check_error(reply, 400, INVALID, "missing_required_parameter")


async def test_what_takes_no_fields_takes_none(api: Api) -> None:
    made = await api.made()
    before = api.path.read_bytes()
    for method, path in (("DELETE", ""), ("POST", "/revoke"), ("POST", "/rotate")):
        reply = await api.ask(method, f"/api/tokens/{made['id']}{path}", {"id": "tok_other"})
        assert check_error(reply, 400, INVALID, "unknown_parameter")["param"] == "id"
    assert api.path.read_bytes() == before


# Ended


async def test_revoked_is_for_ever(api: Api) -> None:
    made = await api.made()
    revoked = await api.done("POST", f"/api/tokens/{made['id']}/revoke")
    assert (revoked["status"], revoked["revoked_at"]) == ("revoked", to_iso(NOW))
    reply = await api.ask("GET", "/v1/models", held=made["token"])
    assert "it is revoked" in check_error(reply, 401, INVALID, "invalid_api_key")["message"]
    api.clock.now += 60
    assert await api.done("POST", f"/api/tokens/{made['id']}/revoke") == revoked
    for field in ("revoked_at", "status"):
        check_error(
            await api.ask("PATCH", f"/api/tokens/{made['id']}", {field: None}), 400, INVALID, "unknown_parameter"
        )
    reply = await api.ask("POST", f"/api/tokens/{made['id']}/rotate")
    check_error(reply, 409, INVALID, "token_not_active")
    assert await api.shown(made) == revoked


async def test_deleted_is_gone(api: Api) -> None:
    made = await api.made()
    assert await api.done("DELETE", f"/api/tokens/{made['id']}") == {"id": made["id"], "deleted": True}
    assert api.stored() == []
    reply = await api.ask("GET", "/v1/models", held=made["token"])
    assert "it is not known here" in check_error(reply, 401, INVALID, "invalid_api_key")["message"]
    for method, path in (("GET", ""), ("PATCH", ""), ("DELETE", ""), ("POST", "/revoke"), ("POST", "/rotate")):
        body = {"name": "x"} if method == "PATCH" else None
        reply = await api.ask(method, f"/api/tokens/{made['id']}{path}", body)
        check_error(reply, 404, INVALID, "token_not_found")
    assert (await api.verdict(made["token"]))["status"] == "unknown"


@pytest.mark.parametrize("how", ["revoke", "delete", "by its secret"])
async def test_what_is_below_ends_too(api: Api, how: str) -> None:
    parent = await api.made()
    child = await api.made(parent["token"])
    grandchild = await api.made(child["token"])
    other = await api.made()
    if how == "by its secret":
        await api.done("POST", "/api/tokens/revoke", {"token": parent["token"]}, None)
    else:
        path = f"/api/tokens/{parent['id']}"
        await (api.done("DELETE", path) if how == "delete" else api.done("POST", f"{path}/revoke"))
    assert [await api.enters(one["token"]) for one in (parent, child, grandchild, other)] == [False] * 3 + [True]
    assert [(await api.shown(one))["revoked_at"] for one in (child, grandchild)] == [to_iso(NOW)] * 2


async def test_an_expired_parent_ends_what_is_below_until_it_lives_again(api: Api) -> None:
    parent = await api.made(expires_in="1h")
    child = await api.made(parent["token"])
    assert child["expires_at"] == to_iso(NOW + HOUR)
    api.clock.now += HOUR
    assert not await api.enters(child["token"])
    await api.done("PATCH", f"/api/tokens/{parent['id']}", {"expires_in": "1h"})
    await api.done("PATCH", f"/api/tokens/{child['id']}", {"expires_in": "30m"})
    assert await api.enters(child["token"])


async def test_whoever_holds_a_secret_can_end_it(api: Api) -> None:
    made = await api.made()
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
        reply = await api.ask("POST", "/api/tokens/revoke", {"token": given}, None)
        answers.append((reply.status, reply.body))
    assert len(set(answers)) == 1
    assert answers[0][0] == 200
    assert (await api.shown(made))["status"] == "revoked"
    assert await api.enters(KEY)


@pytest.mark.parametrize("path", ["/api/tokens/validate", "/api/tokens/revoke"])
async def test_what_anybody_may_ask_is_read_strictly(api: Api, path: str) -> None:
    for body, code in (
        ({}, "missing_required_parameter"), ({"token": 5}, "invalid_value"), ({"token": None}, "invalid_value"),
        ({"token": "x", "id": "y"}, "unknown_parameter"), (b'{"token":"x","token":"y"}', "duplicate_key"),
        (b"token=x", "invalid_json"),
    ):  # fmt: skip
        check_error(await api.ask("POST", path, body, None), 400, INVALID, code)
    assert check_error(await api.ask("GET", path, held=None), 405, INVALID, "method_not_supported")


# Rotation


async def test_rotation_keeps_everything_but_the_secret(api: Api) -> None:
    made = await api.made(name="mine", owner=ANN, models=["m"], limits={"rpm": 5}, metadata={"a": 1}, expires_in="1y")
    await api.enters(made["token"])
    await api.uses_are_written()
    before = await api.shown(made)
    api.clock.now += 10
    rotated = await api.done("POST", f"/api/tokens/{made['id']}/rotate", {"grace": "1h"})
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
async def test_both_work_until_the_grace_ends_in_that_very_second(api: Api, body: Any, seconds: int) -> None:
    old = await api.made()
    new = await api.done("POST", f"/api/tokens/{old['id']}/rotate", body)
    api.clock.now = NOW + seconds - 0.01
    assert (await api.enters(old["token"]), await api.enters(new["token"])) == (True, True)
    assert (await api.verdict(old["token"]))["expires_at"] == to_iso(NOW + seconds)
    assert (await api.verdict(new["token"]))["expires_at"] is None
    api.clock.now = NOW + seconds
    assert (await api.enters(old["token"]), await api.enters(new["token"])) == (False, True)
    assert await api.verdict(old["token"]) == {"valid": False, "status": "expired"}
    assert (await api.shown(old))["previous_secrets"][0]["status"] == "expired"


async def test_without_grace_every_older_secret_ends_now(api: Api) -> None:
    first = await api.made()
    second = await api.done("POST", f"/api/tokens/{first['id']}/rotate")
    third = await api.done("POST", f"/api/tokens/{first['id']}/rotate", {"grace": "0"})
    assert [await api.enters(one["token"]) for one in (first, second, third)] == [False, False, True]
    assert [old["status"] for old in third["previous_secrets"]] == ["revoked", "revoked"]


@pytest.mark.parametrize("grace", [5, None, "", "-1h", "soon", "2y", "never", ["1h"], "367d"])
async def test_graces_that_cannot_be(api: Api, grace: Any) -> None:
    made = await api.made()
    reply = await api.ask("POST", f"/api/tokens/{made['id']}/rotate", {"grace": grace})
    assert check_error(reply, 400, INVALID, "invalid_value")["param"] == "grace"
    assert (await api.shown(made))["previous_secrets"] == []


async def test_old_secrets_do_not_pile_up(api: Api) -> None:
    made = await api.made()
    for _ in range(5):
        await api.done("POST", f"/api/tokens/{made['id']}/rotate", {"grace": "1h"})
    reply = await api.ask("POST", f"/api/tokens/{made['id']}/rotate", {"grace": "1h"})
    assert check_error(reply, 400, INVALID, "invalid_value")["param"] == "grace"
    api.clock.now += HOUR
    await api.done("POST", f"/api/tokens/{made['id']}/rotate", {"grace": "1h"})
    assert len((await api.shown(made))["previous_secrets"]) == 1


async def test_a_grace_never_outlasts_the_token(api: Api) -> None:
    made = await api.made(expires_in="1h")
    rotated = await api.done("POST", f"/api/tokens/{made['id']}/rotate")
    assert rotated["previous_secrets"][0]["valid_until"] == to_iso(NOW + HOUR)


async def test_who_still_uses_the_old_secret_is_told(tmp_path: Path) -> None:
    async with gateway_with_api(tmp_path, GATEWAY_TRUSTED_PROXIES="127.0.0.0/8") as api:
        made = await api.made()
        await api.enters(made["token"])
        new = await api.done("POST", f"/api/tokens/{made['id']}/rotate")
        for seconds, address in ((1, "203.0.113.9"), (2, "2001:db8::7")):
            api.clock.now = NOW + seconds
            await api.enters(made["token"], [("X-Forwarded-For", address)])
        api.clock.now = NOW + 3
        await api.enters(new["token"], [("X-Forwarded-For", "198.51.100.1")])
        await api.uses_are_written()
        shown = await api.shown(made)
        (old,) = shown["previous_secrets"]
        assert (old["usage_count"], old["last_used"], old["last_used_from"]) == (2, to_iso(NOW + 2), "2001:db8::7")
        assert (shown["usage_count"], shown["last_used"]) == (4, to_iso(NOW + 3))


async def test_a_replaced_secret_ends_alone(api: Api) -> None:
    old = await api.made()
    child = await api.made(old["token"])
    new = await api.done("POST", f"/api/tokens/{old['id']}/rotate")
    await api.done("POST", "/api/tokens/revoke", {"token": old["token"]}, None)
    assert [await api.enters(one["token"]) for one in (old, new, child)] == [False, True, True]
    shown = await api.shown(old)
    assert (shown["status"], shown["previous_secrets"][0]["status"]) == ("active", "revoked")
    assert await api.verdict(old["token"]) == {"valid": False, "status": "revoked"}


async def test_a_replaced_secret_is_no_way_back(api: Api) -> None:
    """Whoever found an old secret must not get a new one out of it, nor anything that lives longer."""
    old = await api.made(owner=ANN)
    await api.done("POST", f"/api/tokens/{old['id']}/rotate", {"grace": "1h"})
    before = api.path.read_bytes()
    path = f"/api/tokens/{old['id']}"
    for method, where, body in (
        ("POST", f"{path}/rotate", None), ("PATCH", path, {"name": "x"}), ("DELETE", path, None),
        ("POST", "/api/tokens", {"name": "x"}), ("POST", "/api/tokens", {"name": "x", "expires_in": "2h"}),
    ):  # fmt: skip
        error = check_error(await api.ask(method, where, body, old["token"]), 403, DENIED, "insufficient_permissions")
        assert (error["param"], "has been replaced" in error["message"]) == ("expires_at", True)
    assert api.path.read_bytes() == before
    assert (await api.made(old["token"], expires_in="1h"))["expires_at"] == to_iso(NOW + HOUR)
    key = await api.done("POST", "/api/user/key", {"email": ANN}, old["token"])
    assert (await api.verdict(key["key"]))["expires_at"] == to_iso(NOW + HOUR)


# Children


@pytest.mark.parametrize(
    ("field", "value"),
    [("models", None), ("models", ["gpt-4o", "o3"]), ("models", ["*"]), ("limits", None), ("limits", {"rpm": 11}),
     ("limits", {"tpm": 5}), ("limits", {"rpm": 10, "budget": "2/day"}), ("expires_at", None), ("expires_in", "never"),
     ("expires_in", "2d"), ("role", "admin"), ("owner", BOB), ("owner", None)],
)  # fmt: skip
async def test_a_child_has_no_more_than_its_parent(api: Api, field: str, value: Any) -> None:
    limits = {"rpm": 10, "budget": "10/week"}
    parent = await api.made(owner=ANN, models=["gpt-4o*"], limits=limits, expires_in="1d")
    child = await api.made(parent["token"])
    inherited = ("owner", "role", "models", "limits", "expires_at")
    assert [child[name] for name in inherited] == [parent[name] for name in inherited]
    before = api.path.read_bytes()
    for held, status, kind in ((parent["token"], 403, DENIED), (KEY, 400, INVALID)):
        for method, path in (("POST", "/api/tokens"), ("PATCH", f"/api/tokens/{child['id']}")):
            body = {"name": "x", field: value, **({"parent_id": parent["id"]} if method == "POST" else {})}
            reply = await api.ask(method, path, body, held)
            error = check_error(reply, status, kind, "insufficient_permissions" if status == 403 else "invalid_value")
            assert error["param"] == field.replace("expires_in", "expires_at")
    assert await asyncio.to_thread(lambda: without_uses(api.path.read_bytes())) == without_uses(before)


def without_uses(data: bytes) -> Any:
    tokens = json.loads(data)["tokens"]
    return [{name: one[name] for name in one if name not in ("last_used", "usage_count")} for one in tokens]


async def test_narrowing_a_parent_narrows_its_children_at_once(api: Api) -> None:
    parent = await api.made(role="admin")
    child = await api.made(parent["token"], parent_id=parent["id"], role="admin")
    assert (await api.ask("POST", "/v1/chat/completions", CHAT, child["token"])).status == 200
    assert (await api.ask("GET", "/metrics", held=child["token"])).status == 200
    await api.done("PATCH", f"/api/tokens/{parent['id']}", {"models": ["other"], "role": "service", "expires_in": "1h"})
    reply = await api.ask("POST", "/v1/chat/completions", CHAT, child["token"])
    check_error(reply, 404, INVALID, "model_not_found")
    for method, path, body in (("POST", "/api/tokens", {"name": "x"}), ("GET", "/metrics", None)):
        reply = await api.ask(method, path, body, child["token"])
        check_error(reply, 403, DENIED, "insufficient_permissions")
    told = await api.done("GET", "/api/me", held=child["token"])
    assert (told["role"], told["models"], told["expires_at"]) == ("service", ["other"], to_iso(NOW + HOUR))
    api.clock.now += HOUR
    assert not await api.enters(child["token"])


async def test_a_new_owner_gets_what_is_below(api: Api) -> None:
    parent = await api.made(owner=ANN)
    child = await api.made(parent["token"])
    await api.done("PATCH", f"/api/tokens/{parent['id']}", {"owner": BOB})
    assert (await api.shown(child))["owner"] == BOB


async def test_a_child_below_a_line_that_was_narrowed_takes_what_is_left(api: Api) -> None:
    """Each of two sets of limits holds, and neither keeps to the other. Whoever wishes for nothing gets both."""
    parent = await api.made(limits={"rpm": 10})
    child = await api.made(parent["token"], limits={"rpm": 10, "tpm": 5})
    await api.done("PATCH", f"/api/tokens/{parent['id']}", {"limits": {"rpm": 5}})
    for held in (child["token"], KEY):
        assert (await api.made(held, parent_id=child["id"]))["limits"] == {"rpm": 5, "tpm": 5}


@pytest.mark.parametrize("name", ["a+b", "a'b", "\u00fc", "A.b_c-d", "a/b", "a%b", "a?b", "a#b", "a;b", "a\\b"])
async def test_every_users_key_that_can_be_made_can_be_ended(api: Api, name: str) -> None:
    email = f"{name}@example.com"
    made = await api.ask("POST", "/api/user/key", {"email": email})
    ended = await api.ask("DELETE", f"/api/user/key/{quote(email, safe='')}")
    assert (made.status, ended.status) in ((200, 200), (400, 404)), (made, ended)


# Test tokens


async def test_test_tokens_and_their_children_reach_no_model(tmp_path: Path) -> None:
    async with (
        running_upstream(always(answer(b'{"id":"1","object":"x","model":"m","choices":[]}'))) as upstream,
        gateway_with_api(tmp_path, GATEWAY_UPSTREAM_URL=upstream.url) as api,
    ):
        parent = await api.made(prefix="sk_test_")
        child = await api.made(parent["token"])
        assert child["token"].startswith("sk_test_")
        for one in (parent, child):
            reply = await api.ask("POST", "/v1/chat/completions", CHAT, one["token"])
            assert reply.json()["choices"][0]["message"]["content"] == "Hello there"
        for prefix in ("sk-", "sk_live_"):
            reply = await api.ask("POST", "/api/tokens", {"name": "x", "prefix": prefix}, parent["token"])
            assert check_error(reply, 403, DENIED, "insufficient_permissions")["param"] == "prefix"
        assert not upstream.requests
        live = await api.made(prefix="sk_live_")
        assert (await api.ask("POST", "/v1/chat/completions", CHAT, live["token"])).json()["choices"] == []
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
        reply = await api.ask("POST", "/v1/chat/completions", CHAT, child)
        assert reply.json()["choices"][0]["message"]["content"] == "Hello there"
        assert not upstream.requests


# So many a minute


@asynccontextmanager
async def throttled(folder: Path, **values: str) -> AsyncIterator[tuple[Running, Clock]]:
    """A gateway whose minutes pass when the test says so."""
    clock = Clock()
    shared = WorkerShared(SharedLatch(), SteadyClock(), IpRateLimit(60, clock), SharedMetrics(2))
    values = {"FREEGPT_API_KEY": KEY, "GATEWAY_DATA_DIR": str(folder / "data"), **values}
    async with running_gateway(folder, app_options={"shared": shared}, **values) as gateway:
        yield gateway, clock


async def asks(gateway: Running, address: str, path: str = "/api/tokens/validate") -> Reply:
    return await gateway.post(path, b'{"token":"x"}', [("X-Forwarded-For", address)])


async def test_sixty_a_minute_from_each_address(tmp_path: Path) -> None:
    async with throttled(tmp_path, GATEWAY_TRUSTED_PROXIES="127.0.0.1") as (gateway, clock):
        for number in range(60):
            path = "/api/tokens/validate" if number % 2 else "/api/tokens/revoke"
            assert (await asks(gateway, "203.0.113.9", path)).status == 200
        for path in ("/api/tokens/validate", "/api/tokens/revoke"):
            reply = await asks(gateway, "203.0.113.9", path)
            check_error(reply, 429, "requests", "rate_limit_exceeded")
            assert (reply.header("Retry-After"), reply.header("retry-after-ms")) == ("1", "1000")
        assert (await asks(gateway, "203.0.113.10")).status == 200
        assert (await asks(gateway, "203.0.113.10, 203.0.113.9")).status == 429
        clock.now += 1
        assert [(await asks(gateway, "203.0.113.9")).status for _ in range(2)] == [200, 429]
        clock.now += 60
        assert [(await asks(gateway, "203.0.113.9")).status for _ in range(61)] == [200] * 60 + [429]


async def test_an_address_that_anybody_can_write_counts_for_nothing(tmp_path: Path) -> None:
    async with throttled(tmp_path) as (gateway, _):
        found = [(await asks(gateway, f"203.0.113.{number}")).status for number in range(61)]
        assert found == [200] * 60 + [429]
        assert (await gateway.request("GET", "/api/tokens", [("api-key", KEY)])).status == 200


# A store that is down


def lock_is_a_link(api: Api) -> None:
    lock = Path(f"{api.path}.lock")
    lock.unlink(missing_ok=True)
    lock.symlink_to(api.folder / "elsewhere")


def log_is_a_folder(api: Api) -> None:
    (api.folder / "data" / "audit.jsonl").unlink()
    (api.folder / "data" / "audit.jsonl").mkdir()


def file_is_cut_short(api: Api) -> None:
    api.path.write_bytes(api.path.read_bytes()[:-30])


@pytest.mark.parametrize("breaks", [lock_is_a_link, log_is_a_folder, file_is_cut_short])
async def test_what_cannot_be_written_is_not_done(api: Api, breaks: Any) -> None:
    made = await api.made(owner=ANN)
    breaks(api)
    before = api.path.read_bytes()
    path = f"/api/tokens/{made['id']}"
    for method, where, body in (
        ("POST", "/api/tokens", {"name": "x"}), ("PATCH", path, {"name": "x"}), ("DELETE", path, None),
        ("POST", f"{path}/revoke", None), ("POST", f"{path}/rotate", None),
        ("POST", "/api/tokens/revoke", {"token": made["token"]}), ("POST", "/api/user/key", {"email": ANN}),
    ):  # fmt: skip
        reply = await api.ask(method, where, body)
        check_error(reply, 503, "server_error", "store_unavailable")
        assert int(reply.header("Retry-After") or 0) >= 1
    assert api.path.read_bytes() == before
    assert await api.enters(made["token"])
    assert (await api.shown(made))["status"] == "active"


# All at once


@pytest.mark.parametrize("kind", ["token", "key"])
async def test_of_two_first_tokens_at_once_one_is_made(tmp_path: Path, kind: str) -> None:
    body, path = ({"name": "x"}, "/api/tokens") if kind == "token" else ({"email": ANN}, "/api/user/key")
    async with gateway_with_api(tmp_path, FREEGPT_API_KEY="") as api:
        replies = await asyncio.gather(*(api.ask("POST", path, body, None) for _ in range(8)))
        made = [reply for reply in replies if reply.status < 300]
        assert len(made) == len(api.stored()) == 1
        for reply in replies:
            if reply not in made:
                check_error(reply, 401, INVALID, None)
        shown = made[0].json()
        assert await api.enters(shown.get("token") or shown["key"])


async def test_no_change_is_lost(api: Api) -> None:
    made = await api.made()
    fields = {"name": "changed", "owner": ANN, "models": ["m"], "limits": {"rpm": 5}, "metadata": {"a": 1}}
    path = f"/api/tokens/{made['id']}"
    patches = [api.done("PATCH", path, {name: value}) for name, value in fields.items()]
    others = [api.made(name=f"n{number}") for number in range(5)]
    await asyncio.gather(*patches, *others)
    shown = await api.shown(made)
    assert {name: shown[name] for name in fields} == fields
    assert len(api.stored()) == 6


@pytest.mark.parametrize("how", ["/revoke", "/rotate", ""])
async def test_a_token_that_ends_itself_is_told_so(api: Api, how: str) -> None:
    made = await api.made(owner=ANN)
    body = {"grace": "0"} if how == "/rotate" else None
    done = await api.done("POST" if how else "DELETE", f"/api/tokens/{made['id']}{how}", body, made["token"])
    assert done["id"] == made["id"]
    assert not await api.enters(made["token"])
    assert how != "/rotate" or await api.enters(done["token"])


async def test_a_key_that_replaces_itself_is_told_the_new_one(api: Api) -> None:
    first = await api.done("POST", "/api/user/key", {"email": ANN})
    second = await api.done("POST", "/api/user/key", {"email": ANN}, first["key"])
    assert (await api.enters(first["key"]), await api.enters(second["key"])) == (False, True)


# Streams


@asynccontextmanager
async def streaming(folder: Path) -> AsyncIterator[tuple[Api, Any]]:
    async with (
        running_upstream(begins) as upstream,
        gateway_with_api(folder, GATEWAY_UPSTREAM_URL=upstream.url) as api,
    ):
        yield api, upstream


async def is_cut(client: Any) -> bool:
    """An error event and the end. Not so for one that goes on."""
    last = await client.piece(5)
    return bool(last and b'"code":"invalid_api_key"' in last and await client.piece(5) is None)


@pytest.mark.parametrize("how", ["rotate", "revoke", "by its secret", "delete"])
async def test_streams_of_a_secret_that_ends_are_cut(tmp_path: Path, how: str) -> None:
    async with streaming(tmp_path) as (api, _), connected(api.gateway.port) as client:
        made = await api.made()
        await start(client, made["token"])
        path = f"/api/tokens/{made['id']}"
        await {
            "rotate": lambda: api.done("POST", f"{path}/rotate", {"grace": "0"}),
            "revoke": lambda: api.done("POST", f"{path}/revoke"),
            "by its secret": lambda: api.done("POST", "/api/tokens/revoke", {"token": made["token"]}, None),
            "delete": lambda: api.done("DELETE", path),
        }[how]()
        assert await is_cut(client)


async def test_streams_of_a_replaced_secret_end_with_it_alone(tmp_path: Path) -> None:
    async with (
        streaming(tmp_path) as (api, upstream),
        connected(api.gateway.port) as old,
        connected(api.gateway.port) as new,
    ):
        made = await api.made()
        await start(old, made["token"])
        rotated = await api.done("POST", f"/api/tokens/{made['id']}/rotate")
        await start(new, rotated["token"])
        await upstream.connections[0].chunk(FIRST_PIECE)
        assert await old.piece() == FIRST_PIECE
        await api.done("POST", "/api/tokens/revoke", {"token": made["token"]}, None)
        assert await is_cut(old)
        await upstream.connections[1].chunk(FIRST_PIECE)
        assert await new.piece() == FIRST_PIECE


async def test_streams_of_children_end_with_their_parent(tmp_path: Path) -> None:
    async with streaming(tmp_path) as (api, _), connected(api.gateway.port) as client:
        parent = await api.made()
        await start(client, (await api.made(parent["token"]))["token"])
        await api.done("DELETE", f"/api/tokens/{parent['id']}")
        assert await is_cut(client)
