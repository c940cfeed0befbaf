"""Limits as clients meet them: exactly so many pass, whatever comes at once. Numbers are those of known failures of LiteLLM."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import openai
import pytest

from gateway.limits.config import read_limits
from gateway.limits.stores.sqlite_file import COUNTERS_FILE
from gateway.tokens.changes import TokenSpec
from gateway.tokens.models import Role
from tests.support.gateway import JSON, Running
from tests.support.reply import Reply, check_error
from tests.support.tokens import BY, Clock, TokenEditor
from tests.support.upstream import Behaviour, Connection, Received, Upstream, always, answer
from tests.support.wire import connected, gateway_before, request

USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
ANSWER = json.dumps({"id": "c", "object": "chat.completion", "choices": [], "usage": USAGE}).encode()
GOOD = always(answer(ANSWER))
COST = 5
"""Micro-dollars of such an answer."""
PRICES = '[prices."m"]\ninput = 1\noutput = 1\n'
CHAT = b'{"model":"m","messages":[{"role":"user","content":"Hello there"}]}'
COUNTERS = pytest.mark.parametrize("counters", ["memory", "sqlite"])


def token(folder: Path, limits: dict[str, Any], **spec: Any) -> str:
    """The secret of a new token."""
    service = TokenEditor(folder / "api_tokens.json", Clock())
    return service.create(BY, TokenSpec(name=spec.pop("name", "limited"), limits=read_limits(limits), **spec)).secret


@asynccontextmanager
async def limiting(
    folder: Path, behave: Behaviour = GOOD, **values: str
) -> AsyncIterator[tuple[Upstream, Running, Clock]]:
    """A gateway in which no time passes. The model ``m`` costs a micro-dollar a token."""
    config = folder / "gateway.toml"
    config.write_text(PRICES)
    clock = Clock()
    async with gateway_before(behave, folder, {"clock": clock}, GATEWAY_CONFIG=str(config), **values) as (up, gateway):
        yield up, gateway, clock


async def ask(gateway: Running, secret: str, body: bytes = CHAT, path: str = "/v1/chat/completions") -> Reply:
    headers = [JSON, ("Authorization", f"Bearer {secret}")]
    return await gateway.request("POST", path, headers, body)


async def me(gateway: Running, secret: str) -> dict[str, dict[str, Any]]:
    """What is left, by kind."""
    reply = await gateway.request("GET", "/api/me", [("Authorization", f"Bearer {secret}")])
    return {one["kind"]: one for one in reply.json()["left"]}


async def all_at_once(gateway: Running, secrets: Sequence[str], count: int, body: bytes = CHAT) -> list[Reply]:
    return await asyncio.gather(*(ask(gateway, secrets[number % len(secrets)], body) for number in range(count)))


def passed(replies: Sequence[Reply]) -> int:
    assert {reply.status for reply in replies} <= {200, 429}
    return sum(reply.status == 200 for reply in replies)


LIMITS: list[tuple[dict[str, Any], str, str]] = [
    ({"rpm": 7}, "requests", "rate_limit_exceeded"),
    ({"tpm": 35}, "tokens", "rate_limit_exceeded"),
    ({"budget": "0.000035"}, "insufficient_quota", "insufficient_quota"),
    ({"rpm": 7, "tpm": 10_000, "max_parallel": 3, "budget": "1/day"}, "requests", "rate_limit_exceeded"),
    ({"models": {"m*": {"budget": "0.000035/month"}}}, "insufficient_quota", "insufficient_quota"),
]


@COUNTERS
@pytest.mark.parametrize(("limits", "kind", "code"), LIMITS)
async def test_exactly_so_many_pass(
    tmp_path: Path, counters: str, limits: dict[str, Any], kind: str, code: str
) -> None:
    """Also where all come at once: #26672, and #40095, where it was the first requests of somebody unknown."""
    secret = token(tmp_path, limits)
    async with limiting(tmp_path, GATEWAY_COUNTERS=counters) as (upstream, gateway, _):
        replies = await all_at_once(gateway, [secret], 32)
        assert passed(replies) == len(upstream.requests) == 7
        check_error(next(reply for reply in replies if reply.status == 429), 429, kind, code)
        assert passed([await ask(gateway, secret)]) == 0
        left = await me(gateway, secret)
        assert all(one["reserved"] == 0 for one in left.values())


@COUNTERS
async def test_34732_children_share_their_parents_budget(tmp_path: Path, counters: str) -> None:
    token(tmp_path, {"budget": "0.000035"}, name="team")
    service = TokenEditor(tmp_path / "api_tokens.json", Clock())
    parent = service.tokens().records[0].id
    children = [token(tmp_path, {"budget": "0.000020"}, name=f"child {at}", parent_id=parent) for at in range(4)]
    async with limiting(tmp_path, GATEWAY_COUNTERS=counters) as (upstream, gateway, _):
        replies = await all_at_once(gateway, children, 48)
        assert passed(replies) == len(upstream.requests) == 7
        message = (await ask(gateway, children[0])).json()["error"]["message"]
        assert f"the parent token 'team' ({parent})" in message or "token 'child 0'" in message


@COUNTERS
async def test_35524_what_cannot_be_priced_does_not_pass_a_budget(tmp_path: Path, counters: str) -> None:
    secret = token(tmp_path, {"budget": "100"})
    async with limiting(tmp_path, GATEWAY_COUNTERS=counters) as (upstream, gateway, _):
        reply = await ask(gateway, secret, CHAT.replace(b'"m"', b'"nobody-knows"'))
        error = check_error(reply, 429, "insufficient_quota", "insufficient_quota")
        assert "nobody knows what the model 'nobody-knows' costs" in error["message"]
        assert 'GATEWAY_CONFIG names: [prices."model-name"]' in error["message"]
        assert reply.header("x-should-retry") == "false"
        form = await gateway.request(
            "POST", "/v1/audio/transcriptions", [("Authorization", f"Bearer {secret}"), ("Content-Type", "a/b")], b"x"
        )
        assert form.status in (400, 403)
        assert upstream.requests == []


@COUNTERS
async def test_33923_counters_that_cannot_be_reached_let_nobody_pass(tmp_path: Path, counters: str) -> None:
    secret, free = token(tmp_path, {"budget": "100"}), token(tmp_path, {}, name="free")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / COUNTERS_FILE).write_bytes(b"no database" * 1000)
    async with limiting(tmp_path, GATEWAY_COUNTERS=counters) as (upstream, gateway, _):
        for reply in await all_at_once(gateway, [secret], 8):
            check_error(reply, 503, "server_error", "store_unavailable")
            assert reply.header("Retry-After")
        assert upstream.requests == []
        assert (await ask(gateway, free)).status == 200
        page = await gateway.metrics()
        assert 'gateway_store_up{store="counters"} 0.0' in page
        assert 'gateway_refusals_total{reason="store"} 8.0' in page


async def test_every_answer_tells_what_is_left(tmp_path: Path) -> None:
    secret = token(tmp_path, {"rpm": 2, "tpm": 600})
    async with limiting(tmp_path) as (_, gateway, clock):
        first, second, third = [await ask(gateway, secret) for _ in range(3)]
        assert [first.header(f"x-ratelimit-{name}-requests") for name in ("limit", "remaining", "reset")] == [
            "2",
            "1",
            "30s",
        ]
        assert [second.header(f"x-ratelimit-{name}-tokens") for name in ("limit", "remaining", "reset")] == [
            "600",
            "590",
            "1s",
        ]
        assert (third.status, third.header("x-ratelimit-remaining-requests")) == (429, "0")
        assert (third.header("Retry-After"), third.header("retry-after-ms")) == ("30", "30000")
        clock.now += 30
        assert (await ask(gateway, secret)).status == 200
        streamed = await ask(gateway, token(tmp_path, {"rpm": 2}, name="other"), CHAT[:-1] + b',"stream":true}')
        assert streamed.header("x-ratelimit-limit-requests") == "2"


async def test_an_upstreams_error_is_a_request_and_costs_nothing(tmp_path: Path) -> None:
    secret = token(tmp_path, {"rpm": 2, "tpm": 600, "budget": "1"})
    refuse = always(answer(b'{"error":{"message":"no","type":"x","param":null,"code":null}}', "400 Bad Request"))
    async with limiting(tmp_path, refuse) as (_, gateway, _):
        reply = await ask(gateway, secret)
        assert (reply.status, reply.header("x-ratelimit-remaining-requests")) == (400, "1")
        left = await me(gateway, secret)
        assert [left[kind]["used"] for kind in ("requests", "tokens", "budget")] == [1, 0, 0]


async def test_a_model_that_is_not_allowed_uses_nothing(tmp_path: Path) -> None:
    secret = token(tmp_path, {"rpm": 1}, models=("other",))
    async with limiting(tmp_path) as (_, gateway, _):
        assert (await ask(gateway, secret)).status == 404
        assert (await me(gateway, secret))["requests"]["used"] == 0


class Holding:
    """An upstream that answers when it is let, and knows the most that it had at a time."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.running = self.most = 0
        self.order: list[str] = []

    async def __call__(self, received: Received, connection: Connection) -> None:
        self.order.append(json.loads(received.body)["user"])
        self.running += 1
        self.most = max(self.most, self.running)
        await self.go.wait()
        self.running -= 1
        await connection.send(answer(ANSWER))

    async def has(self, count: int) -> None:
        async with asyncio.timeout(10):
            while self.running < count:
                await asyncio.sleep(0.001)


def named(user: str) -> bytes:
    return CHAT[:-1] + b',"user":"%s"}' % user.encode()


@COUNTERS
async def test_parallel_requests_take_turns(tmp_path: Path, counters: str) -> None:
    secret = token(tmp_path, {"max_parallel": 2, "rpm": 6})
    upstream = Holding()
    async with limiting(tmp_path, upstream, GATEWAY_COUNTERS=counters) as (_, gateway, _):
        asked = [asyncio.create_task(ask(gateway, secret, named("a"))) for _ in range(6)]
        await upstream.has(2)
        await gateway.wait_queued(4)
        # Who is only waiting has used no request: #39309.
        assert (await me(gateway, secret))["requests"]["used"] == 2
        assert (await me(gateway, secret))["parallel"]["used"] == 2
        upstream.go.set()
        assert passed(await asyncio.gather(*asked)) == 6
        assert upstream.most == 2


async def test_a_noisy_token_does_not_starve_another(tmp_path: Path) -> None:
    token(tmp_path, {"max_parallel": 1}, name="team")
    parent = TokenEditor(tmp_path / "api_tokens.json", Clock()).tokens().records[0].id
    noisy, quiet = (token(tmp_path, {"max_parallel": 1}, name=name, parent_id=parent) for name in ("noisy", "quiet"))
    upstream = Holding()
    async with limiting(tmp_path, upstream) as (_, gateway, _):
        asked = [asyncio.create_task(ask(gateway, noisy, named("noisy"))) for _ in range(20)]
        await upstream.has(1)
        await gateway.wait_queued(19)
        asked.append(asyncio.create_task(ask(gateway, quiet, named("quiet"))))
        await gateway.wait_queued(20)
        upstream.go.set()
        await asyncio.gather(*asked)
        assert upstream.order.index("quiet") <= 2


@pytest.mark.parametrize(("header", "setting"), [("0.05", "30"), (None, "0.05"), ("600", "0")])
async def test_nobody_waits_longer_than_the_client_or_the_setting(
    tmp_path: Path, header: str | None, setting: str
) -> None:
    secret = token(tmp_path, {"max_parallel": 1})
    upstream = Holding()
    async with limiting(tmp_path, upstream, GATEWAY_QUEUE_SECONDS=setting) as (_, gateway, _):
        first = asyncio.create_task(ask(gateway, secret, named("a")))
        await upstream.has(1)
        headers = [JSON, ("Authorization", f"Bearer {secret}")]
        if header is not None:
            headers.append(("x-stainless-read-timeout", header))
        reply = await gateway.request("POST", "/v1/chat/completions", headers, named("b"))
        error = check_error(reply, 429, "requests", "rate_limit_exceeded")
        assert "on requests at a time: Limit 1, Used 1" in error["message"]
        assert reply.header("retry-after-ms") == "1000"
        upstream.go.set()
        assert (await first).status == 200


async def test_who_leaves_the_queue_leaves_nothing_there(tmp_path: Path) -> None:
    secret = token(tmp_path, {"max_parallel": 1})
    upstream = Holding()
    async with limiting(tmp_path, upstream) as (_, gateway, _):
        first = asyncio.create_task(ask(gateway, secret, named("a")))
        await upstream.has(1)
        async with connected(gateway.port) as client:
            headers = [JSON, ("Authorization", f"Bearer {secret}")]
            await client.send(request("POST", "/v1/chat/completions", headers, named("gone")))
            await gateway.wait_queued(1)
            client.abort()
        await gateway.wait_queued(0)
        upstream.go.set()
        assert (await first).status == 200
        assert (await ask(gateway, secret, named("b"))).status == 200
        assert upstream.order == ["a", "b"]


async def test_a_stream_whose_budget_runs_out_ends_with_an_error(tmp_path: Path) -> None:
    chunk = b'data: {"choices":[{"index":0,"delta":{"content":"x"},"finish_reason":null}]}\n\n'

    async def endless(_received: Received, connection: Connection) -> None:
        await connection.start_stream()
        for _ in range(10_000):
            await connection.chunk(chunk)
            await asyncio.sleep(0)

    secret = token(tmp_path, {"budget": "0.000050"})
    async with limiting(tmp_path, endless) as (_, gateway, _):
        reply = await ask(gateway, secret, CHAT[:-1] + b',"stream":true}')
        assert (reply.status, reply.whole) == (200, False)
        assert b"[DONE]" not in reply.body
        error = json.loads(reply.body.split(b"data: ")[-1])["error"]
        assert (error["type"], error["code"]) == ("insufficient_quota", "insufficient_quota")
        assert reply.body.count(b'"content":"x"') <= 50
        assert (await me(gateway, secret))["budget"]["reserved"] == 0
        assert (await ask(gateway, secret)).status == 429


async def test_openais_client_treats_each_refusal_rightly(tmp_path: Path) -> None:
    """It comes back where that helps, and only there."""
    rate, money = token(tmp_path, {"rpm": 1}), token(tmp_path, {"budget": "0.000005"}, name="poor")
    async with limiting(tmp_path) as (_, gateway, clock):

        def clients(secret: str) -> openai.AsyncOpenAI:
            return openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=secret, max_retries=2)

        async def chat(client: openai.AsyncOpenAI) -> Any:
            return await client.chat.completions.create(
                model="m", messages=[{"role": "user", "content": "Hello there"}]
            )

        async with clients(money) as client:
            await chat(client)
            with pytest.raises(openai.RateLimitError) as caught:
                await chat(client)
            assert caught.value.code == "insufficient_quota"
        page = (await gateway.request("GET", "/metrics")).body
        assert b'gateway_refusals_total{reason="budget"} 1.0' in page  # no retry
        async with clients(rate) as client:
            await chat(client)
            clock.now += 59.9
            again = asyncio.create_task(chat(client))
            async with asyncio.timeout(10):
                while b'reason="requests"} 1.0' not in (await gateway.request("GET", "/metrics")).body:
                    await asyncio.sleep(0.001)
            clock.now += 0.1
            await again


@pytest.mark.parametrize("limits", [{"budget": "1"}, {"models": {"paid*": {"rpm": 1}}}])
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", b'{"model":"echo","models":["paid"],"messages":[]}'),
        ("/v1/chat/completions", b'{"model":"echo","fallbacks":["paid"],"messages":[]}'),
        ("/v1/deployments/paid/chat/completions", b'{"model":"echo","messages":[]}'),
    ],
)
async def test_no_second_model_slips_by(tmp_path: Path, limits: dict[str, Any], path: str, body: bytes) -> None:
    secret = token(tmp_path, limits)
    async with limiting(tmp_path) as (upstream, gateway, _):
        check_error(await ask(gateway, secret, body, path), 403, "permission_error", "insufficient_permissions")
        assert upstream.requests == []


async def test_a_stored_answer_is_not_counted_again(tmp_path: Path) -> None:
    secret = token(tmp_path, {"tpm": 100, "budget": "1"}, role=Role.ADMIN)
    async with limiting(tmp_path) as (_, gateway, _):
        headers = [("Authorization", f"Bearer {secret}")]
        for _ in range(5):
            assert (await gateway.request("GET", "/v1/responses/resp_1", headers)).status == 200
        left = await me(gateway, secret)
        assert [left[kind]["used"] for kind in ("tokens", "budget")] == [0, 0]
