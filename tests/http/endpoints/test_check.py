"""``POST /api/check`` and what ``GET /api/me`` tells of limits: the truth, before, during and after requests."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.core.clock import to_iso
from tests.support.gateway import CHAT, JSON, KEY, Running, running_gateway
from tests.support.reply import Reply, check_error
from tests.support.tokens import NOW, Clock, content, entry
from tests.support.upstream import Connection, Received, running_upstream
from tests.support.wire import Client, connected, post

INVALID = "invalid_request_error"
SECRET, PARENT_SECRET = "sk-token-to-check-that-is-made-up", "sk-parent-to-check-that-is-made-up"
TOKEN, PARENT = "tok_checked", "tok_parent"
DEAR = CHAT.replace(b'"m"', b'"dear"')
"""Two words there and two back: 0.006 USD."""
PRICES = """
[prices.dear]
input = 1000
output = 2000
"""


class Checked:
    """A gateway before the echo, or before an upstream, and a token with limits."""

    def __init__(self, gateway: Running, clock: Clock) -> None:
        self.gateway = gateway
        self.clock = clock

    async def ask(self, method: str, target: str, body: bytes | None = None, secret: str = SECRET) -> Reply:
        return await self.gateway.request(method, target, [JSON, ("Authorization", f"Bearer {secret}")], body)

    async def chat(self, body: bytes = CHAT) -> int:
        return (await self.ask("POST", "/v1/chat/completions", body)).status

    async def check(self, model: str = "m", secret: str = SECRET, **fields: Any) -> Any:
        reply = await self.ask("POST", "/api/check", msgspec.json.encode({"model": model, **fields}), secret)
        assert (reply.status, reply.header("Cache-Control")) == (200, "no-store"), reply
        found = reply.json()
        assert list(found) == ["allowed", "status", "error", "retry_after_ms", "limit"]
        assert found["allowed"] == (found["error"] is None) == (found["status"] == 200)
        return found

    async def left(self, secret: str = SECRET) -> Any:
        reply = await self.ask("GET", "/api/me", secret=secret)
        assert reply.status == 200, reply
        return reply.json()["left"]


@asynccontextmanager
async def checked(
    folder: Path, limits: Any = None, parents: Any = None, upstream: str | None = None, **fields: Any
) -> AsyncIterator[Checked]:
    below = {} if parents is None else {"parent_id": PARENT}
    child = entry(SECRET, id=TOKEN, limits=limits, **below, **fields)
    found = [child] if parents is None else [entry(PARENT_SECRET, id=PARENT, name="parent", limits=parents), child]
    (folder / "api_tokens.json").write_bytes(content(*found))
    (folder / "prices.toml").write_text(PRICES)
    clock = Clock()
    values = {"FREEGPT_API_KEY": KEY, "GATEWAY_CONFIG": str(folder / "prices.toml"), "GATEWAY_QUEUE_SECONDS": "0"}
    if upstream is not None:
        values["GATEWAY_UPSTREAM_URL"] = upstream
    async with running_gateway(folder, app_options={"clock": clock}, **values) as gateway:
        yield Checked(gateway, clock)


def limit(kind: str, size: float, used: float = 0, reserved: float = 0, **more: Any) -> dict[str, Any]:
    """What is told of a limit. ``wait`` is the time until all of it is there again, in seconds."""
    wait = more.pop("wait", None if kind == "parallel" else 0)
    return {
        "token_id": TOKEN,
        "model": None,
        "kind": kind,
        "per": None if kind == "parallel" else "minute",
        "limit": size,
        "used": used,
        "reserved": reserved,
        "remaining": size - used - reserved,
        "resets_at": None if wait is None else to_iso(NOW + wait),
        **more,
    }


# Would it pass?


@pytest.mark.parametrize("secret", [SECRET, KEY], ids=["token", "environment"])
async def test_without_limits_everything_passes(tmp_path: Path, secret: str) -> None:
    async with checked(tmp_path) as gateway:
        passes = {"allowed": True, "status": 200, "error": None, "retry_after_ms": None, "limit": None}
        assert await gateway.check(secret=secret) == passes
        assert await gateway.check("nobody-knows-it", secret, tokens=10**9, endpoint="/v1/embeddings") == passes


async def test_requests_used_up(tmp_path: Path) -> None:
    async with checked(tmp_path, {"rpm": 3}) as gateway:
        assert (await gateway.check())["limit"] == limit("requests", 3)
        for _ in range(3):
            assert await gateway.chat() == 200
        found = await gateway.check()
        assert (found["allowed"], found["status"], found["retry_after_ms"]) == (False, 429, 20_000)
        assert (found["error"]["type"], found["error"]["code"]) == ("requests", "rate_limit_exceeded")
        assert found["limit"] == limit("requests", 3, 3, wait=60)
        refusal = await gateway.ask("POST", "/v1/chat/completions", CHAT)
        assert refusal.json()["error"] == found["error"]
        assert (refusal.header("retry-after-ms"), refusal.header("Retry-After")) == ("20000", "20")
        gateway.clock.now += 20
        assert (await gateway.check())["allowed"]


async def test_tokens_that_do_not_fit(tmp_path: Path) -> None:
    async with checked(tmp_path, {"tpm": 100}) as gateway:
        assert await gateway.chat() == 200
        assert (await gateway.check(tokens=96))["allowed"]
        found = await gateway.check(tokens=97)
        assert (found["error"]["type"], found["retry_after_ms"]) == ("tokens", 600)
        assert found["limit"] == limit("tokens", 100, 4, wait=3)
        found = await gateway.check(tokens=101)
        assert (found["allowed"], found["retry_after_ms"]) == (False, None)
        assert "larger than the limit" in found["error"]["message"]
        assert (await gateway.check())["allowed"], "a guess is cut to what is left"


@pytest.mark.parametrize(("per", "wait"), [("", None), ("/day", 16 * 3600 * 1000)])
async def test_a_budget_used_up(tmp_path: Path, per: str, wait: int | None) -> None:
    ends = None if wait is None else "2027-01-16T00:00:00Z"
    more: dict[str, Any] = {"per": per.removeprefix("/") or None, "wait": None, "resets_at": ends}
    async with checked(tmp_path, {"budget": f"0.006{per}"}) as gateway:
        found = await gateway.check("dear")
        assert (found["allowed"], found["limit"]) == (True, limit("budget", 0.006, **more))
        assert not (await gateway.check("dear", tokens=4))["allowed"], "0.008 USD, if all are the completion's"
        assert await gateway.chat(DEAR) == 200
        found = await gateway.check("dear")
        assert (found["allowed"], found["status"], found["retry_after_ms"]) == (False, 429, wait)
        assert (found["error"]["type"], found["error"]["code"]) == ("insufficient_quota", "insufficient_quota")
        assert found["limit"] == limit("budget", 0.006, 0.006, **more)
        assert await gateway.chat(DEAR) == 429
        assert (await gateway.check("echo"))["allowed"], "what is free needs no money"


async def test_a_model_that_is_not_allowed(tmp_path: Path) -> None:
    async with checked(tmp_path, {"rpm": 1}, models=["gpt-*"]) as gateway:
        found = await gateway.check("o3")
        assert (found["allowed"], found["status"], found["limit"]) == (False, 404, None)
        assert (found["error"]["code"], found["error"]["param"]) == ("model_not_found", "model")
        assert (await gateway.check("gpt-4o"))["allowed"]


async def test_a_budget_and_a_model_without_a_price(tmp_path: Path) -> None:
    async with checked(tmp_path, {"budget": "10"}) as gateway:
        found = await gateway.check("nobody-knows-it")
        assert (found["allowed"], found["status"], found["retry_after_ms"], found["limit"]) == (False, 429, None, None)
        assert (found["error"]["type"], found["error"]["code"]) == ("insufficient_quota", "insufficient_quota")
        refusal = await gateway.ask("POST", "/v1/chat/completions", CHAT.replace(b'"m"', b'"nobody-knows-it"'))
        assert refusal.json()["error"] == found["error"]


async def test_a_parents_limit_stands_in_the_way(tmp_path: Path) -> None:
    async with checked(tmp_path, {"rpm": 5}, {"rpm": 1}) as gateway:
        assert await gateway.chat() == 200
        found = await gateway.check()
        assert (found["allowed"], found["retry_after_ms"]) == (False, 60_000)
        assert found["limit"] == limit("requests", 1, 1, wait=60, token_id=PARENT)
        assert "parent" in found["error"]["message"]


async def test_limits_of_a_model(tmp_path: Path) -> None:
    async with checked(tmp_path, {"rpm": 10, "models": {"m*": {"rpm": 1}}}) as gateway:
        assert await gateway.chat() == 200
        found = await gateway.check("m2")
        assert (found["allowed"], found["limit"]) == (False, limit("requests", 1, 1, wait=60, model="m*"))
        found = await gateway.check("other")
        assert (found["allowed"], found["limit"]) == (True, limit("requests", 10, 1, wait=6))


async def test_the_tightest_limit_is_told(tmp_path: Path) -> None:
    async with checked(tmp_path, {"rpm": 2, "tpm": 100, "max_parallel": 9}) as gateway:
        assert await gateway.chat() == 200
        assert (await gateway.check(tokens=1))["limit"] == limit("requests", 2, 1, wait=30)


async def test_a_hundred_checks_count_as_nothing(tmp_path: Path) -> None:
    limits = {"rpm": 5, "tpm": 10_000, "max_parallel": 1, "budget": "0.03"}
    async with checked(tmp_path, limits, limits) as gateway:
        before = await gateway.left()
        first = await gateway.check("dear", tokens=4)
        for _ in range(100):
            assert await gateway.check("dear", tokens=4) == first
        assert await gateway.left() == before
        assert [await gateway.chat(DEAR) for _ in range(6)] == [200] * 5 + [429]
        await gateway.gateway.flush_usage()
        usage = (await gateway.ask("GET", "/api/usage?to=2027-01-16", secret=KEY)).json()["total"]
        assert (usage["requests"], usage["cost_usd"]) == (5, 0.03)


@pytest.mark.parametrize(
    "endpoint", ["chat/completions", "/chat/completions", "v1/chat/completions", "/v1/x", "e" * 100]
)
async def test_endpoints(tmp_path: Path, endpoint: str) -> None:
    async with checked(tmp_path, {"rpm": 1}) as gateway:
        assert (await gateway.check(endpoint=endpoint))["allowed"]


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        (b"", "invalid_json", None),
        (b"[]", "invalid_json", None),
        (b"{}", "missing_required_parameter", "model"),
        (b'{"tokens":1}', "missing_required_parameter", "model"),
        (b'{"model":"m","token":1}', "unknown_parameter", "token"),
        (b'{"model":"m","messages":[]}', "unknown_parameter", "messages"),
        (b'{"model":"m","model":"n"}', "duplicate_key", None),
        *(
            (b'{"model":%s}' % value, "invalid_value", "model")
            for value in (b'""', b"1", b"null", b'"%s"' % (b"m" * 257))
        ),
        *(
            (b'{"model":"m","tokens":%s}' % value, "invalid_value", "tokens")
            for value in (b"-1", b"1.5", b"1.0", b"true", b"null", b'"1"', b"1000000001")
        ),
        *(
            (b'{"model":"m","endpoint":%s}' % value, "invalid_value", "endpoint")
            for value in (b'""', b'"/"', b'"/v1/"', b"1", b"null", b'"%s"' % (b"e" * 101))
        ),
    ],
)
async def test_bad_fields(tmp_path: Path, body: bytes, code: str, param: str | None) -> None:
    async with checked(tmp_path, {"rpm": 1}) as gateway:
        error = check_error(await gateway.ask("POST", "/api/check", body), 400, INVALID, code)
        assert param is None or error["param"] == param


async def test_there_is_no_query(tmp_path: Path) -> None:
    async with checked(tmp_path) as gateway:
        reply = await gateway.ask("POST", "/api/check?model=m", b'{"model":"m"}')
        assert check_error(reply, 400, INVALID, "unknown_parameter")["param"] == "model"


# What is left?


async def test_nothing_is_left_of_nothing(tmp_path: Path) -> None:
    async with checked(tmp_path) as gateway:
        assert (await gateway.left(), await gateway.left(KEY)) == ([], [])


async def test_what_is_left_before_and_after(tmp_path: Path) -> None:
    limits = {"rpm": 10, "tpm": 1000, "max_parallel": 2, "budget": "1/day", "models": {"dear*": {"rpm": 1}}}
    midnight: dict[str, Any] = {"per": "day", "wait": None, "resets_at": "2027-01-16T00:00:00Z"}
    async with checked(tmp_path, limits, {"tpm": 5000}) as gateway:
        parents: dict[str, Any] = {"token_id": PARENT}
        assert await gateway.left() == [
            limit("requests", 10),
            limit("tokens", 1000),
            limit("parallel", 2),
            limit("budget", 1, **midnight),
            limit("tokens", 5000, **parents),
            limit("requests", 1, model="dear*"),
        ]
        assert await gateway.chat(DEAR) == 200
        assert await gateway.left() == [
            limit("requests", 10, 1, wait=6),
            limit("tokens", 1000, 4, wait=1),  # 0.24 s, rounded up
            limit("parallel", 2),
            limit("budget", 1, 0.006, **midnight),
            limit("tokens", 5000, 4, **parents, wait=1),
            limit("requests", 1, 1, model="dear*", wait=60),
        ]
        assert await gateway.left(PARENT_SECRET) == [limit("tokens", 5000, 4, **parents, wait=1)]
        gateway.clock.now += 60
        again = {one["kind"]: one["used"] for one in await gateway.left()}
        assert again == {"requests": 0, "tokens": 0, "parallel": 0, "budget": 0.006}


FIRST = b'data: {"choices":[{"index":0,"delta":{"content":"Hi"},"finish_reason":null}]}\n\n'
LAST = (
    b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
    b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7}}\n\n'
    b"data: [DONE]\n\n"
)
STREAM = DEAR[:-1] + b',"max_tokens":10,"stream":true}'
"""Eleven model tokens of prompt, as it is guessed, and ten of completion: 0.031 USD."""


@asynccontextmanager
async def running_stream(
    folder: Path, limits: Any, parents: Any
) -> AsyncIterator[tuple[Checked, Client, asyncio.Event]]:
    """An answer of which the first piece is there; the rest comes when the event is set."""
    end = asyncio.Event()

    async def behave(_received: Received, connection: Connection) -> None:
        await connection.start_stream()
        await connection.chunk(FIRST)
        await end.wait()
        await connection.chunk(LAST)
        await connection.end_stream()

    async with running_upstream(behave) as upstream, checked(folder, limits, parents, upstream.url) as gateway:
        async with connected(gateway.gateway.port) as client:
            await client.send(post(body=STREAM, headers=[("Authorization", f"Bearer {SECRET}")]))
            assert (await client.head()).status == 200
            assert await client.piece() == FIRST
            yield gateway, client, end
        end.set()


async def test_what_is_left_while_a_stream_runs(tmp_path: Path) -> None:
    limits = {"tpm": 600, "max_parallel": 1, "budget": "2"}
    forever: dict[str, Any] = {"per": None, "wait": None}
    async with running_stream(tmp_path, limits, {"max_parallel": 3}) as (gateway, client, end):
        tokens, parallel, budget, parents = await gateway.left()
        assert tokens == limit("tokens", 600, 0, 21, wait=3)  # 2.1 s, rounded up
        assert parallel == limit("parallel", 1, 1)
        assert parents == limit("parallel", 3, 1, token_id=PARENT)
        assert (budget["used"], budget["reserved"] >= 0.031) == (0, True)
        assert budget["remaining"] == pytest.approx(2 - budget["reserved"])
        found = await gateway.check("dear", tokens=1)
        assert (found["allowed"], found["error"]["type"], found["limit"]) == (False, "requests", parallel)
        assert found["retry_after_ms"] > 0
        end.set()
        while await client.piece():
            pass
        assert await gateway.left() == [
            limit("tokens", 600, 7, wait=1),  # 0.7 s
            limit("parallel", 1),
            limit("budget", 2, 0.011, **forever),
            limit("parallel", 3, token_id=PARENT),
        ]
        assert (await gateway.check("dear"))["allowed"]


async def test_a_client_that_leaves_gives_back_what_it_reserved(tmp_path: Path) -> None:
    async with running_stream(tmp_path, {"max_parallel": 1}, {"rpm": 9}) as (gateway, client, _):
        assert (await gateway.left())[0] == limit("parallel", 1, 1)
        client.abort()
        async with asyncio.timeout(10):
            while (await gateway.left())[0]["used"]:
                pass
        assert await gateway.left() == [limit("parallel", 1), limit("requests", 9, 1, wait=7, token_id=PARENT)]
