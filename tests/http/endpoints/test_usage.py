"""``GET /api/usage``: sums of what was really asked, over a real socket, and nobody sees what others have used."""

import csv
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.core.clock import to_iso
from tests.support.gateway import JSON, KEY, Running, running_gateway
from tests.support.reply import Reply, check_error
from tests.support.tokens import NOW, Clock, content, entry

INVALID = "invalid_request_error"
WHOSE = "token_id"
"""The parameter that asks for one token."""
HALF_PAST = NOW + 1800
HOUR, DAY = to_iso(NOW), "2027-01-15T00:00:00Z"
ANN, BOB = "ann@example.com", "bob@example.com"
WORDS = "one two three"
SECRETS = {name: f"sk-{name}-secret-that-is-made-up" for name in ("member", "child", "anns", "bob", "service", "admin")}
PRICES = """
[prices."dear*"]
input = 1000
output = 2000
"""


def tokens() -> bytes:
    def one(key: str, owner: str | None, **fields: Any) -> dict[str, Any]:
        return entry(SECRETS[key], **{"id": f"tok_{key}", "name": f"[{key}]", "owner": owner, **fields})

    return content(
        one("member", ANN), one("child", ANN, parent_id="tok_member"), one("anns", ANN, name="=1+1"),
        one("bob", BOB), one("service", ANN, role="service"), one("admin", None, role="admin"),
    )  # fmt: skip


class Asked:
    """A gateway that tells of what was asked of it."""

    def __init__(self, gateway: Running, clock: Clock) -> None:
        self.gateway = gateway
        self.clock = clock

    async def chat(self, who: str = KEY, model: str = "echo", words: str = WORDS, status: int = 200) -> None:
        """The echo says what it is told: as many model tokens come back as there are words."""
        messages = [{"role": "user", "content": words}] if words else []
        body = msgspec.json.encode({"model": model, "messages": messages})
        reply = await self.send("POST", "/v1/chat/completions", who, body)
        assert reply.status == status, reply

    async def reply(self, query: str = "", who: str = KEY) -> Reply:
        await self.gateway.flush_usage()
        return await self.send("GET", f"/api/usage{query}", who)

    async def usage(self, query: str = "", who: str = KEY) -> Any:
        reply = await self.reply(query, who)
        assert (reply.status, reply.header("Content-Type")) == (200, "application/json"), reply
        assert reply.header("Cache-Control") == "no-store"
        return reply.json()

    async def groups(self, query: str = "?group_by=token", who: str = KEY) -> dict[str | None, int]:
        """How many requests each group has made."""
        return {row["group"]: row["requests"] for row in (await self.usage(query, who))["data"]}

    async def send(self, method: str, target: str, who: str, body: bytes | None = None) -> Reply:
        bearer = ("Authorization", f"Bearer {SECRETS.get(who, who)}")
        return await self.gateway.request(method, target, [JSON, bearer], body)


@asynccontextmanager
async def gateway_to_ask(folder: Path, now: float = HALF_PAST, **values: str) -> AsyncIterator[Asked]:
    (folder / "api_tokens.json").write_bytes(tokens())
    (folder / "prices.toml").write_text(PRICES)
    clock = Clock(now)
    values = {"FREEGPT_API_KEY": KEY, "GATEWAY_CONFIG": str(folder / "prices.toml"), **values}
    async with running_gateway(folder, app_options={"clock": clock}, **values) as gateway:
        yield Asked(gateway, clock)


@pytest.fixture
async def asked(tmp_path: Path) -> AsyncIterator[Asked]:
    async with gateway_to_ask(tmp_path) as found:
        yield found


@pytest.fixture
async def used(asked: Asked) -> Asked:
    """Everybody has asked, each a different number of times."""
    for times, who in enumerate(("member", "child", "anns", "bob", "service", KEY), 1):
        for _ in range(times):
            await asked.chat(who)
    return asked


# Sums


async def test_nothing_was_used(asked: Asked) -> None:
    found = await asked.usage()
    assert {name: found[name] for name in ("object", "bucket", "group_by", "data")} == {
        "object": "list",
        "bucket": "day",
        "group_by": None,
        "data": [],
    }
    assert (found["from"], found["to"]) == ("2027-01-08T08:00:00Z", "2027-01-15T09:00:00Z")
    assert set(found["total"].values()) == {0}


async def test_what_was_just_used_is_there(asked: Asked) -> None:
    await asked.chat()
    await asked.chat(words="one two three four five")
    await asked.chat(words="", status=400)
    found = await asked.usage()
    sums = {
        "requests": 3, "prompt_tokens": 8, "completion_tokens": 8, "cached_tokens": 0, "reasoning_tokens": 0,
        "cost_usd": 0, "errors": 1, "partial": 0, "estimated": 0,
    }  # fmt: skip
    assert found["total"] == sums
    assert found["data"] == [{"start": DAY, "group": None, **sums}]


async def test_money_is_exact(asked: Asked) -> None:
    await asked.chat(model="gpt-4o-mini", words="word " * 100)
    await asked.chat(model="dearest")
    await asked.chat(model="nobody-knows-its-price")
    found = {row["group"]: row["cost_usd"] for row in (await asked.usage("?group_by=model"))["data"]}
    assert found == {"gpt-4o-mini": 0.000075, "dearest": 0.009, "nobody-knows-its-price": 0}
    body = (await asked.reply()).body
    assert b'"cost_usd":0.009075' in body


async def test_money_keeps_all_its_digits(asked: Asked) -> None:
    for _ in range(3):
        await asked.chat(model="gpt-4o-mini", words="word")  # three quarters of a micro-dollar, rounded up
    assert b'"cost_usd":0.000003' in (await asked.reply()).body


async def test_groups(used: Asked) -> None:
    assert await used.groups() == {
        "tok_member": 1, "tok_child": 2, "tok_anns": 3, "tok_bob": 4, "tok_service": 5, "environment": 6,
    }  # fmt: skip
    assert await used.groups("?group_by=owner") == {ANN: 11, BOB: 4, None: 6}
    assert await used.groups("?group_by=model") == {"echo": 21}
    assert await used.groups("") == {None: 21}


async def test_only_tokens_have_names(used: Asked) -> None:
    rows = (await used.usage("?group_by=token"))["data"]
    assert {row["group"]: row["name"] for row in rows} == {
        "environment": None,
        "tok_anns": "=1+1",
        **{f"tok_{name}": f"[{name}]" for name in ("member", "child", "bob", "service")},
    }
    for query in ("", "?group_by=model", "?group_by=owner"):
        assert all("name" not in row for row in (await used.usage(query))["data"])


async def test_buckets(asked: Asked) -> None:
    await asked.chat()
    asked.clock.now += 3600
    await asked.chat()
    asked.clock.now += 86_400
    await asked.chat()
    days = (await asked.usage("?bucket=day"))["data"]
    assert [(row["start"], row["requests"]) for row in days] == [(DAY, 2), ("2027-01-16T00:00:00Z", 1)]
    hours = (await asked.usage("?bucket=hour"))["data"]
    assert [row["start"] for row in hours] == [HOUR, "2027-01-15T09:00:00Z", "2027-01-16T09:00:00Z"]


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ("from=2027-01-15", 1),
        ("from=2027-01-16", 0),
        ("from=2027-01-15T08:59:59Z", 1),
        ("from=2027-01-15T09:00:00Z&to=2027-01-15T10:00:00Z", 0),
        ("from=2027-01-15T08:00:00Z&to=2027-01-15T08:00:01Z", 1),
        ("from=2027-01-15T09:59:59%2B01:00&to=2027-01-16", 1),
        ("to=2027-01-15T08:00:00Z", 0),
        ("to=2027-01-15T00:00:00Z", 0),
        ("to=2027-01-15", 1),
        ("to=2027-01-14", 0),
        ("from=1970-01-01&to=9999-12-31&bucket=day", None),
        ("from=2027-01-01&to=2028-01-01&bucket=hour", 1),
    ],
)
async def test_ranges_are_widened_to_hours(asked: Asked, query: str, count: int | None) -> None:
    await asked.chat()
    asked.clock.now += 2 * 86_400
    if count is None:
        check_error(await asked.reply(f"?{query}"), 400, INVALID, "invalid_value")
    else:
        assert (await asked.usage(f"?{query}"))["total"]["requests"] == count


async def test_the_first_second_of_an_hour_counts(tmp_path: Path) -> None:
    async with gateway_to_ask(tmp_path, NOW) as asked:
        await asked.chat()
        assert (await asked.usage())["total"]["requests"] == 1


async def test_what_a_deleted_token_has_used_stays(used: Asked) -> None:
    assert (await used.send("DELETE", "/api/tokens/tok_bob", KEY)).status == 200
    rows = {row["group"]: row for row in (await used.usage("?group_by=token"))["data"]}
    assert (rows["tok_bob"]["requests"], rows["tok_bob"]["name"]) == (4, None)


# Who sees what


@pytest.mark.parametrize(
    ("who", "seen"),
    [
        (KEY, {"tok_member", "tok_child", "tok_anns", "tok_bob", "tok_service", "environment"}),
        ("admin", {"tok_member", "tok_child", "tok_anns", "tok_bob", "tok_service", "environment"}),
        ("member", {"tok_member", "tok_child", "tok_anns", "tok_service"}),
        ("child", {"tok_member", "tok_child", "tok_anns", "tok_service"}),
        ("bob", {"tok_bob"}),
        ("service", {"tok_service"}),
    ],
)
async def test_everybody_sees_what_is_theirs(used: Asked, who: str, seen: set[str]) -> None:
    every = await used.groups()
    assert await used.groups(who=who) == {name: every[name] for name in seen}
    assert (await used.usage(who=who))["total"]["requests"] == sum(every[name] for name in seen)
    for group in ("owner", "model"):
        assert sum((await used.groups(f"?group_by={group}", who)).values()) == sum(every[name] for name in seen)


async def test_a_parent_without_an_owner_sees_its_children(tmp_path: Path) -> None:
    async with gateway_to_ask(tmp_path) as asked:
        made = (await asked.send("POST", "/api/tokens", KEY, b'{"name":"lone"}')).json()
        child = (await asked.send("POST", "/api/tokens", made["token"], b'{"name":"its child"}')).json()
        for who in (made["token"], child["token"], "bob"):
            await asked.chat(who)
        assert await asked.groups(who=made["token"]) == {made["id"]: 1, child["id"]: 1}
        assert await asked.groups(who=child["token"]) == {child["id"]: 1}


async def test_one_token(used: Asked) -> None:
    for who in (KEY, "admin", "member"):
        assert (await used.usage(f"?{WHOSE}=tok_child", who))["total"]["requests"] == 2
    assert await used.groups(f"?{WHOSE}=environment&group_by=token") == {"environment": 6}
    assert await used.groups(f"?{WHOSE}=tok_nowhere&group_by=token") == {}


@pytest.mark.parametrize("who", ["member", "service"])
async def test_somebody_elses_token_does_not_exist(used: Asked, who: str) -> None:
    said = []
    for other in ("tok_bob", "tok_admin", "tok_nowhere", "environment", "open", ""):
        reply = await used.reply(f"?{WHOSE}={other}", who)
        check_error(reply, 404, INVALID, "token_not_found")
        said.append(reply.body)
    assert len(set(said)) == 1


# What is asked


@pytest.mark.parametrize(
    ("query", "code", "param"),
    [
        ("form=2027-01-01", "unknown_parameter", "form"),
        ("page=1", "unknown_parameter", "page"),
        ("bucket=week", "invalid_value", "bucket"),
        ("bucket=", "invalid_value", "bucket"),
        ("group_by=name", "invalid_value", "group_by"),
        ("group_by=token&group_by=model", "duplicate_key", "group_by"),
        ("format=xml", "invalid_value", "format"),
        ("from=yesterday", "invalid_value", "from"),
        ("from=", "invalid_value", "from"),
        ("to=2027-02-30", "invalid_value", "to"),
        ("to=1969-12-31", "invalid_value", "to"),
        ("to=9999-12-31T23:59:59-01:00", "invalid_value", "to"),
        ("from=2027-01-16", "invalid_value", "from"),
        ("from=2027-01-15T08:30:00Z&to=2027-01-15T08:30:00Z", "invalid_value", "from"),
        ("from=2020-01-01&bucket=hour", "invalid_value", "from"),
        ("from=%FF", "invalid_value", None),
    ],
)
async def test_bad_queries(asked: Asked, query: str, code: str, param: str | None) -> None:
    assert check_error(await asked.reply(f"?{query}"), 400, INVALID, code)["param"] == param


# As a file


async def test_a_file_for_spreadsheets(used: Asked) -> None:
    await used.chat("bob", "dearest")
    reply = await used.reply("?group_by=token&format=csv")
    assert (reply.status, reply.header("Content-Type")) == (200, "text/csv; charset=utf-8")
    assert reply.header("Content-Disposition") == 'attachment; filename="usage.csv"'
    assert reply.header("Cache-Control") == "no-store"
    headings, *rows = csv.reader(io.StringIO(reply.body.decode(), newline=""))
    assert headings == [
        "start", "group", "name", "requests", "prompt_tokens", "completion_tokens", "cached_tokens", "reasoning_tokens",
        "cost_usd", "errors", "partial", "estimated",
    ]  # fmt: skip
    found = {row[1]: dict(zip(headings, row, strict=True)) for row in rows}
    assert set(found) == set(await used.groups())
    bob = found["tok_bob"]
    assert (bob["start"], bob["name"], bob["requests"], bob["cost_usd"]) == (DAY, "[bob]", "5", "0.009")
    assert found["tok_anns"]["name"] == "'=1+1"
    assert found["environment"]["name"] == ""


async def test_a_file_without_names(used: Asked) -> None:
    lines = (await used.reply("?bucket=hour&format=csv", "member")).body.decode().split("\r\n")
    assert lines[0].startswith('"start","group","requests",')
    assert lines[1:] == [f'"{HOUR}","","11","33","33","0","0","0","0","0","0"', ""]
