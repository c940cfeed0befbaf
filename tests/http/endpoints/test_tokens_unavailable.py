"""Public routes that are rate limited, stores that cannot be written, and streams of secrets that end."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.app import WorkerShared
from gateway.http.ip_rate_limit import IpRateLimit
from tests.http.test_revocation import FIRST_PIECE, begins, start
from tests.support.gateway import KEY, Running, running_gateway
from tests.support.reply import Reply, check_error
from tests.support.token_api import ANN, TokenApi, gateway_with_api
from tests.support.tokens import Clock
from tests.support.upstream import running_upstream
from tests.support.wire import connected

# So many a minute


@asynccontextmanager
async def throttled(folder: Path, **values: str) -> AsyncIterator[tuple[Running, Clock]]:
    """A gateway whose minutes pass when the test says so."""
    clock = Clock()
    shared = WorkerShared.new(2)._replace(ip_rate_limit=IpRateLimit(60, clock))
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


def lock_is_a_link(api: TokenApi) -> None:
    lock = Path(f"{api.path}.lock")
    lock.unlink(missing_ok=True)
    lock.symlink_to(api.folder / "elsewhere")


def log_is_a_folder(api: TokenApi) -> None:
    (api.folder / "data" / "audit.jsonl").unlink()
    (api.folder / "data" / "audit.jsonl").mkdir()


def file_is_cut_short(api: TokenApi) -> None:
    api.path.write_bytes(api.path.read_bytes()[:-30])


@pytest.mark.parametrize("breaks", [lock_is_a_link, log_is_a_folder, file_is_cut_short])
async def test_what_cannot_be_written_is_not_done(api: TokenApi, breaks: Any) -> None:
    made = await api.create(owner=ANN)
    breaks(api)
    before = api.path.read_bytes()
    path = f"/api/tokens/{made['id']}"
    for method, where, body in (
        ("POST", "/api/tokens", {"name": "x"}), ("PATCH", path, {"name": "x"}), ("DELETE", path, None),
        ("POST", f"{path}/revoke", None), ("POST", f"{path}/rotate", None),
        ("POST", "/api/tokens/revoke", {"token": made["token"]}), ("POST", "/api/user/key", {"email": ANN}),
    ):  # fmt: skip
        reply = await api.request(method, where, body)
        check_error(reply, 503, "server_error", "store_unavailable")
        assert int(reply.header("Retry-After") or 0) >= 1
    assert api.path.read_bytes() == before
    assert await api.is_accepted(made["token"])
    assert (await api.get(made))["status"] == "active"


# Streams


@asynccontextmanager
async def streaming(folder: Path) -> AsyncIterator[tuple[TokenApi, Any]]:
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
        made = await api.create()
        await start(client, made["token"])
        path = f"/api/tokens/{made['id']}"
        await {
            "rotate": lambda: api.call("POST", f"{path}/rotate", {"grace": "0"}),
            "revoke": lambda: api.call("POST", f"{path}/revoke"),
            "by its secret": lambda: api.call("POST", "/api/tokens/revoke", {"token": made["token"]}, None),
            "delete": lambda: api.call("DELETE", path),
        }[how]()
        assert await is_cut(client)


async def test_streams_of_a_replaced_secret_end_with_it_alone(tmp_path: Path) -> None:
    async with (
        streaming(tmp_path) as (api, upstream),
        connected(api.gateway.port) as old,
        connected(api.gateway.port) as new,
    ):
        made = await api.create()
        await start(old, made["token"])
        rotated = await api.call("POST", f"/api/tokens/{made['id']}/rotate")
        await start(new, rotated["token"])
        await upstream.connections[0].chunk(FIRST_PIECE)
        assert await old.piece() == FIRST_PIECE
        await api.call("POST", "/api/tokens/revoke", {"token": made["token"]}, None)
        assert await is_cut(old)
        await upstream.connections[1].chunk(FIRST_PIECE)
        assert await new.piece() == FIRST_PIECE


async def test_streams_of_children_end_with_their_parent(tmp_path: Path) -> None:
    async with streaming(tmp_path) as (api, _), connected(api.gateway.port) as client:
        parent = await api.create()
        await start(client, (await api.create(parent["token"]))["token"])
        await api.call("DELETE", f"/api/tokens/{parent['id']}")
        assert await is_cut(client)
