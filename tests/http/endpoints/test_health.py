"""Alive, ready, counted."""

import asyncio
import os
import re
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from gateway import __version__
from gateway.core.clock import SteadyClock
from gateway.limits.config import LimitSet
from gateway.tokens.changes import TokenSpec
from tests.support.disk import full_disk
from tests.support.gateway import BEARER, CHAT, JSON, KEY, Running, StartGateway, running_gateway
from tests.support.reply import Reply, check_error
from tests.support.tokens import BY, TokenEditor
from tests.support.wire import connected, never, post
from tests.support.wire import gateway_before as before

AFAR = ("X-Forwarded-For", "203.0.113.9")


async def get(gateway: Running, path: str, *headers: tuple[str, str]) -> Reply:
    return await gateway.request("GET", path, headers)


async def test_alive(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(FREEGPT_API_KEY=KEY)
    reply = await get(gateway, "/healthz", AFAR)
    assert reply.status == 200
    assert reply.json() == {"status": "ok", "mode": "environment", "backend": "echo", "version": __version__}
    assert reply.header("Cache-Control") == "no-store"
    head = await gateway.request("HEAD", "/healthz")
    assert (head.status, head.body, head.header("Content-Length")) == (200, b"", str(len(reply.body)))


async def test_alive_does_not_ask_the_upstream(tmp_path: Path) -> None:
    async with before(never, tmp_path) as (upstream, gateway):
        assert (await get(gateway, "/healthz")).json()["backend"] == "openai"
        assert (await get(gateway, "/readyz")).status == 200
        assert not upstream.requests


async def test_ready_until_draining(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(FREEGPT_API_KEY=KEY)
    reply = await get(gateway, "/readyz", AFAR)
    assert (reply.status, reply.json()) == (200, {"status": "ready"})
    await gateway.app.drain(0)
    reply = await get(gateway, "/readyz", AFAR)
    assert (reply.status, reply.json()) == (503, {"status": "not ready", "problem": "draining"})
    assert (await get(gateway, "/healthz")).status == 200
    assert (await get(gateway, "/metrics")).status == 200


async def test_a_damaged_token_file_is_reported_until_it_is_repaired(
    tmp_path: Path, start_gateway: StartGateway
) -> None:
    service = TokenEditor(tmp_path / "api_tokens.json", SteadyClock())
    made = service.create(BY, TokenSpec(name="app"))
    good = (tmp_path / "api_tokens.json").read_bytes()
    gateway = await start_gateway(FREEGPT_API_KEY=KEY)
    (tmp_path / "api_tokens.json").write_bytes(good[:-9])
    await gateway.refresh_tokens()
    assert (await get(gateway, "/readyz")).json()["problem"] == "the token file is damaged"
    assert "gateway_token_store_up 0.0" in (await get(gateway, "/metrics")).body.decode()
    assert (await get(gateway, "/v1/models", ("api-key", made.secret))).status == 200
    (tmp_path / "api_tokens.json").write_bytes(good)
    await gateway.refresh_tokens()
    assert (await get(gateway, "/readyz")).status == 200
    assert "gateway_token_store_up 1.0" in (await get(gateway, "/metrics")).body.decode()


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("counters.sqlite", "the counters of limits cannot be read; tokens with a budget are refused until then"),
        ("usage.sqlite", "the ledger cannot be written"),
    ],
)
async def test_a_store_that_cannot_be_written_is_reported_until_it_can_be(
    tmp_path: Path, start_gateway: StartGateway, name: str, problem: str
) -> None:
    (tmp_path / "data" / name).mkdir(parents=True)
    gateway = await start_gateway(FREEGPT_API_KEY=KEY)
    assert (await gateway.request("POST", "/v1/chat/completions", (BEARER, JSON), CHAT)).status == 200
    await flush(gateway)
    reply = await get(gateway, "/readyz", AFAR)
    assert (reply.status, reply.json()) == (503, {"status": "not ready", "problem": problem})
    (tmp_path / "data" / name).rmdir()
    await flush(gateway)
    assert (await get(gateway, "/readyz")).status == 200


async def flush(gateway: Running) -> None:
    await gateway.app.ledger.flush()
    await gateway.app.counters.flush()


async def test_a_full_disk_is_reported_until_there_is_space(
    tmp_path: Path, start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = await start_gateway(FREEGPT_API_KEY=KEY)
    disk = list(os.statvfs(tmp_path))
    with monkeypatch.context() as patched:
        patched.setattr(os, "statvfs", lambda path: os.statvfs_result([*disk[:4], 1, *disk[5:]]))
        await gateway.app.disk.check()
        reply = await get(gateway, "/readyz")
        assert (reply.status, reply.json()["problem"]) == (503, f"the disk of {tmp_path / 'data'} is full")
        assert 'gateway_store_up{store="disk"} 0.0' in (await get(gateway, "/metrics")).body.decode()
        assert (await gateway.request("POST", "/v1/chat/completions", (BEARER, JSON), CHAT)).status == 200
    await gateway.app.disk.check()
    assert (await get(gateway, "/readyz")).status == 200


SHARED_COUNTERS_DOWN = "the counters of limits cannot be read or written; tokens with limits are refused until then"


@pytest.mark.parametrize(
    ("counters", "status", "problem"),
    [("memory", 200, "the ledger cannot be written"), ("sqlite", 503, SHARED_COUNTERS_DOWN)],
)
async def test_tokens_with_limits_while_nothing_can_be_written(
    tmp_path: Path, counters: str, status: int, problem: str
) -> None:
    """Counters in memory go on; those that workers share are refused, and used again, by themselves, when there is space."""
    service = TokenEditor(tmp_path / "api_tokens.json", SteadyClock())
    limited = service.create(BY, TokenSpec(name="app", limits=LimitSet(rpm=100))).secret
    async with running_gateway(
        tmp_path, FREEGPT_API_KEY=KEY, GATEWAY_COUNTERS=counters, GATEWAY_LOG_LEVEL="error"
    ) as gateway:
        assert await chat(gateway, limited) == 200
        with full_disk():
            assert await chat(gateway, limited) == status
            assert problem in await problem_of(gateway, lambda found: problem in found)
        assert await problem_of(gateway, lambda found: not found) == ""
        assert await chat(gateway, limited) == 200


async def chat(gateway: Running, secret: str) -> int:
    return (await gateway.request("POST", "/v1/chat/completions", (("api-key", secret), JSON), CHAT)).status


async def problem_of(gateway: Running, is_expected: Callable[[str], bool]) -> str:
    """Asks until the problem is as expected, for ten seconds at most. Returns the problem, "" for none."""
    async with asyncio.timeout(10):
        while not is_expected(found := (await get(gateway, "/readyz")).json().get("problem", "")):
            pass
    return str(found)


async def test_a_start_on_a_full_disk_is_reported_until_the_counters_are_read(tmp_path: Path) -> None:
    async with running_gateway(tmp_path, FREEGPT_API_KEY=KEY):
        pass
    async with AsyncExitStack() as stack:
        with full_disk():
            started = running_gateway(tmp_path, FREEGPT_API_KEY=KEY, GATEWAY_LOG_LEVEL="error")
            gateway = await stack.enter_async_context(started)
            problem = (await get(gateway, "/readyz")).json()["problem"]
            assert "tokens with a budget are refused until then" in problem
        assert await problem_of(gateway, lambda found: not found) == ""


async def test_damage_shows_in_the_metrics_without_anybody_asking_for_health(
    tmp_path: Path, start_gateway: StartGateway
) -> None:
    gateway = await start_gateway(FREEGPT_API_KEY=KEY)
    assert "gateway_token_store_up 1.0" in (await get(gateway, "/metrics")).body.decode()
    (tmp_path / "api_tokens.json").write_bytes(b"{")
    await gateway.refresh_tokens()
    assert "gateway_token_store_up 0.0" in (await get(gateway, "/metrics")).body.decode()


async def test_who_may_see_the_metrics(tmp_path: Path, start_gateway: StartGateway) -> None:
    service = TokenEditor(tmp_path / "api_tokens.json", SteadyClock())
    member = service.create(BY, TokenSpec(name="member"))
    gateway = await start_gateway(FREEGPT_API_KEY=KEY)
    assert (await get(gateway, "/metrics")).status == 200
    assert (await get(gateway, "/metrics", AFAR, BEARER)).status == 200
    check_error(await get(gateway, "/metrics", AFAR), 401, "invalid_request_error", None)
    refused = await get(gateway, "/metrics", ("api-key", member.secret))
    check_error(refused, 403, "permission_error", "insufficient_permissions")
    check_error(await get(gateway, "/metrics", ("api-key", "x")), 401, "invalid_request_error", "invalid_api_key")


async def test_requests_are_counted_by_route(tmp_path: Path) -> None:
    async with running_gateway(tmp_path, FREEGPT_API_KEY=KEY) as gateway:
        for _ in range(3):
            await gateway.post()
        await get(gateway, "/v1/models/secret-name-in-a-path", BEARER)
        await get(gateway, "/made-up/secret-name-in-a-path")
        page = await get(gateway, "/metrics", BEARER)
    text = page.body.decode()
    assert (page.header("Content-Type") or "").startswith("text/plain; version=0.0.4")
    assert 'gateway_requests_total{route="/v1/chat/completions",status="200"} 3.0' in text
    assert 'gateway_requests_total{route="/v1/models/{model...}",status="404"} 1.0' in text
    assert 'gateway_requests_total{route="unknown",status="401"} 1.0' in text
    assert re.search(r"^gateway_requests_in_flight 1.0$", text, re.MULTILINE)
    assert "secret-name" not in text
    assert KEY not in text


async def test_those_that_left_are_counted(tmp_path: Path) -> None:
    async with before(never, tmp_path) as (upstream, gateway):
        async with connected(gateway.port) as client:
            await client.send(post())
            while not upstream.connections:
                await asyncio.sleep(0)
            client.abort()
        await gateway.wait_idle(2)
        text = (await get(gateway, "/metrics")).body.decode()
        assert 'gateway_requests_total{route="/v1/chat/completions",status="499"} 1.0' in text
