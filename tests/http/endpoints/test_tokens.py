"""Tokens over HTTP: created, shown once, validated, listed, and values that are refused."""

import hashlib
from typing import Any

import pytest

from gateway.core.clock import to_iso
from gateway.tokens import secret
from tests.support.gateway import KEY
from tests.support.reply import check_error
from tests.support.token_api import ANN, BOB, DAY, DENIED, FIELDS, HOUR, INVALID, YEAR, TokenApi
from tests.support.tokens import NOW, STRANGE_KEY

# Made, and shown once


async def test_a_new_token(api: TokenApi) -> None:
    made = await api.create(name="my application")
    assert list(made) == ["token", *FIELDS]
    assert made["name"] == "my application"
    assert (len(made["token"]), made["token"].startswith("sk-")) == (52, True)
    assert made["prefix"] == made["token"][:14]
    assert (made["status"], made["role"], made["created_at"]) == ("active", "member", to_iso(NOW))
    assert await api.is_accepted(made["token"])


async def test_the_secret_is_shown_once_and_kept_nowhere(api: TokenApi) -> None:
    made = await api.create(owner=ANN)
    rotated = await api.call("POST", f"/api/tokens/{made['id']}/rotate")
    hashes = [hashlib.sha256(one["token"].encode()).hexdigest() for one in (made, rotated)]
    (stored,) = api.stored_tokens()
    assert [stored["previous_secrets"][0]["hash"], stored["hash"]] == hashes
    assert api.path.stat().st_mode & 0o777 == 0o600
    for path in (f"/api/tokens/{made['id']}", "/api/tokens", f"/api/user/key/{ANN}"):
        text = (await api.request("GET", path)).body.decode()
        assert not any(one in text for one in (made["token"], rotated["token"], *hashes))
    written = b"".join(path.read_bytes() for path in api.folder.rglob("*") if path.is_file())
    assert not any(one["token"].encode() in written for one in (made, rotated))
    assert hashes[0].encode() not in (api.folder / "data" / "audit.jsonl").read_bytes()


@pytest.mark.parametrize("prefix", ["sk-", "sk_live_", "sk_test_"])
async def test_prefixes(api: TokenApi, prefix: str) -> None:
    made = await api.create(prefix=prefix)
    assert made["token"].startswith(prefix)
    assert len(made["token"]) == len(prefix) + 49
    assert not secret.has_bad_checksum(made["token"])
    assert await api.is_accepted(made["token"])
    rotated = await api.call("POST", f"/api/tokens/{made['id']}/rotate")
    assert rotated["token"].startswith(prefix)


async def test_everything_that_can_be_set(api: TokenApi) -> None:
    spec = {
        "name": "a", "owner": ANN, "role": "service", "expires_at": to_iso(NOW + DAY), "models": ["gpt-4o*", "o3"],
        "limits": {"rpm": 60, "tpm": 9000, "max_parallel": 2, "budget": "2.5/day"}, "metadata": {"team": ["x", 1]},
    }  # fmt: skip
    made = await api.create(**spec)
    assert {name: made[name] for name in spec} == spec
    nothing = {"expires_at": None, "models": None, "limits": None, "metadata": {}}
    other = {"name": "b", "owner": BOB, "role": "admin", **nothing}
    patched = await api.call("PATCH", f"/api/tokens/{made['id']}", other)
    assert patched == await api.get(made) == {**{name: made[name] for name in FIELDS}, **other}


# Is it good?


async def test_a_good_secret_is_told_about(api: TokenApi) -> None:
    made = await api.create(name="mine", expires_in="30d")
    assert await api.validate(made["token"]) == {
        "valid": True, "name": "mine", "created_at": to_iso(NOW), "last_used": None, "usage_count": 0,
        "status": "active", "expires_at": to_iso(NOW + 30 * DAY),
    }  # fmt: skip
    of_key = await api.validate(KEY)
    assert (of_key["valid"], of_key["name"], of_key["status"]) == (True, "environment", "active")


async def test_of_a_bad_secret_only_is_told_why(api: TokenApi) -> None:
    expired, revoked, parent = [await one for one in (api.create(expires_in="1h"), api.create(), api.create())]
    child = await api.create(parent["token"])
    for one in (revoked, parent):
        await api.call("POST", f"/api/tokens/{one['id']}/revoke")
    api.clock.now += HOUR
    found = {name: await api.validate(one) for name, one in {
        "expired": expired["token"], "revoked": revoked["token"], "child": child["token"], "unknown": STRANGE_KEY,
        "mistyped": revoked["token"][:-1] + "-", "hash": hashlib.sha256(revoked["token"].encode()).hexdigest(),
        "prefix": expired["prefix"], "odd": "\u00e4\u2713 \x00", "long": "x" * 2000, "empty": "",
    }.items()}  # fmt: skip
    status = {"expired": "expired", "revoked": "revoked", "child": "revoked"}
    assert found == {name: {"valid": False, "status": status.get(name, "unknown")} for name in found}


async def test_asking_is_no_use(api: TokenApi) -> None:
    made = await api.create()
    for _ in range(3):
        assert (await api.validate(made["token"]))["usage_count"] == 0
    await api.flush_last_used()
    assert (await api.validate(made["token"]))["usage_count"] == 0
    api.clock.now += 5
    assert [await api.is_accepted(made["token"]) for _ in range(3)] == [True] * 3
    await api.flush_last_used()
    told = await api.validate(made["token"])
    assert (told["usage_count"], told["last_used"]) == (3, to_iso(NOW + 5))


async def test_a_use_that_was_not_allowed_is_a_use(api: TokenApi) -> None:
    made = await api.create(role="service")
    check_error(
        await api.request("POST", "/api/tokens", {"name": "x"}, made["token"]), 403, DENIED, "insufficient_permissions"
    )
    await api.flush_last_used()
    assert (await api.get(made))["usage_count"] == 1


# Lists


async def test_lists_come_in_pages(api: TokenApi) -> None:
    ids = [(await api.create(name=f"n{number}"))["id"] for number in range(5)]
    whole = await api.call("GET", "/api/tokens")
    assert [one["id"] for one in whole["tokens"]] == ids
    assert list(whole["tokens"][0]) == FIELDS
    assert whole["pagination"] == {
        "page": 1, "per_page": 100, "total": 5, "total_pages": 1, "has_next": False, "has_prev": False,
    }  # fmt: skip
    pages = [await api.call("GET", f"/api/tokens?page={page}&per_page=2") for page in (1, 2, 3, 4)]
    assert [[one["id"] for one in page["tokens"]] for page in pages] == [ids[:2], ids[2:4], ids[4:], []]
    turns = [(page["pagination"]["has_prev"], page["pagination"]["has_next"]) for page in pages]
    assert turns == [(False, True), (True, True), (True, False), (True, False)]
    assert {(page["pagination"]["total"], page["pagination"]["total_pages"]) for page in pages} == {(5, 3)}


async def test_an_empty_list(api: TokenApi) -> None:
    assert await api.call("GET", "/api/tokens?per_page=7") == {
        "tokens": [],
        "pagination": {"page": 1, "per_page": 7, "total": 0, "total_pages": 0, "has_next": False, "has_prev": False},
    }


async def test_filters(api: TokenApi) -> None:
    one = await api.create(name="web-a", owner=ANN)
    two = await api.create(name="web-b", expires_in="1h")
    three = await api.create(name="50% [x]?", owner=ANN)
    await api.call("POST", f"/api/tokens/{three['id']}/revoke")
    api.clock.now += HOUR
    for query, due in {
        f"owner={ANN}": [one, three], f"owner={BOB}": [], "status=active": [one], "status=expired": [two],
        "status=revoked": [three], "name=web-a": [one], "name=web-*": [one, two], "name=*": [one, two, three],
        "name=50%25+%5Bx%5D%3F": [three], "name=": [], f"owner={ANN}&status=active&per_page=1": [one],
    }.items():  # fmt: skip
        found = await api.call("GET", f"/api/tokens?{query}")
        assert [token["id"] for token in found["tokens"]] == [token["id"] for token in due], query
        assert found["pagination"]["total"] == len(due)


@pytest.mark.parametrize(
    ("query", "param"),
    [("page=0", "page"), ("page=-1", "page"), ("page=1.5", "page"), ("page=%D9%A1", "page"), ("page=", "page"),
     ("page=99999999999", "page"), ("per_page=0", "per_page"), ("per_page=101", "per_page"), ("page=1&page=2", "page"),
     ("status=dead", "status"), ("limit=5", "limit"), ("Page=1", "Page"), ("owner=%FF", None)],
)  # fmt: skip
async def test_queries_that_mean_nothing(api: TokenApi, query: str, param: str | None) -> None:
    reply = await api.request("GET", f"/api/tokens?{query}")
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
async def test_values_that_do_not_fit(api: TokenApi, method: str) -> None:
    made = await api.create()
    path = "/api/tokens" if method == "POST" else f"/api/tokens/{made['id']}"
    before = api.path.read_bytes()
    for field, value, param in BAD:
        reply = await api.request(method, path, {"name": "x", field: value})
        error = check_error(reply, 400, INVALID, "invalid_value")
        assert error["param"] == param, (field, value, error)
    assert api.path.read_bytes() == before


@pytest.mark.parametrize(
    ("field", "value"), [("prefix", "pk-"), ("prefix", None), ("prefix", 5), ("parent_id", 5), ("parent_id", ""),
                         ("parent_id", "tok_nobodys"), ("parent_id", {})],
)  # fmt: skip
async def test_values_that_only_a_new_token_has(api: TokenApi, field: str, value: Any) -> None:
    reply = await api.request("POST", "/api/tokens", {"name": "x", field: value})
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
async def test_when_it_ends(api: TokenApi, field: str, value: Any, due: str | None) -> None:
    made = await api.create(**{field: value})
    assert made["expires_at"] == due
    other = await api.create(expires_in="5d")
    assert (await api.call("PATCH", f"/api/tokens/{other['id']}", {field: value}))["expires_at"] == due


async def test_two_ends_are_one_too_many(api: TokenApi) -> None:
    both = {"name": "x", "expires_at": None, "expires_in": "never"}
    assert (
        check_error(await api.request("POST", "/api/tokens", both), 400, INVALID, "invalid_value")["param"]
        == "expires_in"
    )


async def test_it_ends_in_that_very_second(api: TokenApi) -> None:
    made = await api.create(expires_in="1h")
    api.clock.now = NOW + HOUR - 0.01
    assert await api.is_accepted(made["token"])
    api.clock.now = NOW + HOUR
    reply = await api.request("GET", "/v1/models", secret=made["token"])
    assert "it is expired" in check_error(reply, 401, INVALID, "invalid_api_key")["message"]
    assert (await api.get(made))["status"] == "expired"
    await api.call("PATCH", f"/api/tokens/{made['id']}", {"expires_in": "1h"})
    assert await api.is_accepted(made["token"])


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
async def test_bodies_that_are_no_wish(api: TokenApi, body: bytes, code: str, param: str | None) -> None:
    assert check_error(await api.request("POST", "/api/tokens", body), 400, INVALID, code)["param"] == param
    assert not api.path.exists()


async def test_bodies_that_are_too_large_or_packed(api: TokenApi) -> None:
    large = await api.request("POST", "/api/tokens", {"name": "x", "metadata": {"a": "x" * 70_000}})
    check_error(large, 413, INVALID, "request_too_large")
    packed = await api.request("POST", "/api/tokens", b"\x1f\x8b", headers=[("Content-Encoding", "gzip")])
    check_error(packed, 415, INVALID, "unsupported_encoding")


async def test_nothing_to_change(api: TokenApi) -> None:
    made = await api.create()
    for body in (None, b"", {}):
        reply = await api.request("PATCH", f"/api/tokens/{made['id']}", body)
        check_error(reply, 400, INVALID, "missing_required_parameter")


async def test_what_takes_no_fields_takes_none(api: TokenApi) -> None:
    made = await api.create()
    before = api.path.read_bytes()
    for method, path in (("DELETE", ""), ("POST", "/revoke"), ("POST", "/rotate")):
        reply = await api.request(method, f"/api/tokens/{made['id']}{path}", {"id": "tok_other"})
        assert check_error(reply, 400, INVALID, "unknown_parameter")["param"] == "id"
    assert api.path.read_bytes() == before
