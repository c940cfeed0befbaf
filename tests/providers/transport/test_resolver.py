"""Names of upstreams: found, not found, and a DNS server that does not answer."""

import asyncio
import socket
import threading
from contextlib import aclosing
from typing import Any

import pytest

from gateway.core.upstream_errors import UpstreamTimeout
from gateway.providers.transport.aiohttp_client import AiohttpTransport
from gateway.providers.transport.base import Timeouts, TransportRequest
from gateway.providers.transport.resolver import MAX_THREADS, Resolver


async def test_the_addresses_of_a_host() -> None:
    resolver = Resolver()
    (found,) = await resolver.resolve("localhost", 80)
    assert (found["host"], found["port"], found["family"]) == ("127.0.0.1", 80, socket.AF_INET)
    await resolver.close()


async def test_a_host_that_does_not_exist() -> None:
    resolver = Resolver()
    with pytest.raises(socket.gaierror):
        await resolver.resolve("no-such-host.invalid", 80)
    await resolver.close()


async def test_a_link_local_address_keeps_its_interface() -> None:
    def look_up(*_: Any) -> list[tuple[Any, ...]]:
        return [(socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("fe80::1", 80, 0, 2))]

    resolver = Resolver(look_up)
    assert [found["host"] for found in await resolver.resolve("host", 80)] == ["fe80::1%2"]
    await resolver.close()


async def test_a_dns_server_that_does_not_answer_is_a_timeout_and_blocks_nothing_else() -> None:
    answers = threading.Event()

    def hangs(*_: Any) -> list[tuple[Any, ...]]:
        answers.wait(60)
        return []

    async with aclosing(AiohttpTransport(Timeouts(0.2, 30, 30), hangs)) as transport:
        many = MAX_THREADS * 12  # more than asyncio's own pool has threads on most machines
        requests = [TransportRequest("GET", f"http://host-{number}.example/v1", {}) for number in range(many)]
        try:
            async with asyncio.timeout(20):
                results = await asyncio.gather(*map(transport.send, requests), return_exceptions=True)
                assert [type(result) for result in results] == [UpstreamTimeout] * many
                assert await asyncio.to_thread(lambda: "done") == "done"
        finally:
            answers.set()
