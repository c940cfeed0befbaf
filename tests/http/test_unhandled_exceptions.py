"""Bugs, of third-party backends above all: a 500 with the request's id and nothing else, whatever was raised."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from gateway.providers.base import EVENT_STREAM, JSON, ProviderRequest, ProviderResponse
from tests.support.gateway import BEARER, KEY, StartGateway
from tests.support.reply import Reply, check_error


class BrokenBackend:
    """Every way in which a backend may be wrong."""

    name = "broken"

    def __init__(self, act: Callable[[ProviderRequest], Awaitable[ProviderResponse]]) -> None:
        self.send = act

    async def models(self) -> list[dict[str, Any]]:
        raise KeyError("secret inside")

    async def aclose(self) -> None: ...


def raising(error: BaseException) -> Callable[[ProviderRequest], Awaitable[ProviderResponse]]:
    async def send(_request: ProviderRequest) -> ProviderResponse:
        raise error

    return send


async def raises_first(_request: ProviderRequest) -> ProviderResponse:
    async def body() -> AsyncIterator[bytes]:
        raise ZeroDivisionError
        yield b""

    return ProviderResponse(200, EVENT_STREAM, body())


async def sends_no_bytes(_request: ProviderRequest) -> ProviderResponse:
    return ProviderResponse(200, JSON, "a text")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "act",
    [raising(KeyError("secret inside")), raising(ConnectionRefusedError("secret inside")), raising(BrokenPipeError()),
     raising(TimeoutError("secret inside")), raising(asyncio.CancelledError()), raises_first, sends_no_bytes],
    ids=["KeyError", "ConnectionRefused", "BrokenPipe", "Timeout", "Cancelled", "first piece", "no bytes"],
)  # fmt: skip
async def test_bugs_in_a_backend(start_gateway: StartGateway, act: Any) -> None:
    app_options = {"provider": BrokenBackend(act)}
    gateway = await start_gateway(FREEGPT_API_KEY=KEY, app_options=app_options)
    reply = await gateway.post()
    check_bug(reply)


def check_bug(reply: Reply) -> None:
    error = check_error(reply, 500, "server_error", "internal_error")
    assert "secret inside" not in error["message"]
    assert (reply.header("x-request-id") or "?") in error["message"]


async def test_a_bug_in_the_list_of_models(start_gateway: StartGateway) -> None:
    app_options = {"provider": BrokenBackend(raises_first)}
    gateway = await start_gateway(FREEGPT_API_KEY=KEY, app_options=app_options)
    check_bug(await gateway.request("GET", "/v1/models", [BEARER]))
    check_bug(await gateway.request("GET", "/v1/models/x", [BEARER]))
