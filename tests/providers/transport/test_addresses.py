"""The addresses of upstreams: asked for once at a time, and remembered for some seconds."""

import asyncio
import socket
import threading
from typing import Any

import pytest

from gateway.providers.transport.addresses import DNS_CACHE_SECONDS, MAX_CACHED_NAMES, Addresses
from gateway.providers.transport.resolver import Resolver
from tests.support.tokens import Clock


class Names:
    """A DNS server that counts."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answers = threading.Event()
        self.answers.set()

    def __call__(self, host: str, port: int, *_: Any) -> list[tuple[Any, ...]]:
        self.asked.append(host)
        self.answers.wait(10)
        if host == "missing":
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (f"10.0.0.{len(self.asked)}", port))]


async def test_a_name_is_asked_for_again_after_some_seconds() -> None:
    names, clock = Names(), Clock(1000.0)
    addresses = Addresses(Resolver(names), clock)
    first = await addresses.find("host", 80)
    assert first[0][4] == ("10.0.0.1", 80)
    clock.now += DNS_CACHE_SECONDS - 0.1
    assert await addresses.find("host", 80) == first
    clock.now += 0.2
    assert (await addresses.find("host", 80))[0][4] == ("10.0.0.2", 80)
    await addresses.close()


async def test_many_who_ask_at_once_share_one_look_up_and_may_go_away() -> None:
    names = Names()
    names.answers.clear()
    addresses = Addresses(Resolver(names))
    tasks = [asyncio.create_task(addresses.find("host", 80)) for _ in range(5)]
    await asyncio.sleep(0)
    tasks[0].cancel()
    await asyncio.sleep(0)
    names.answers.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(results[0], asyncio.CancelledError)
    assert results[1:] == [results[1]] * 4
    assert names.asked == ["host"]
    await addresses.close()


async def test_a_name_that_was_not_found_is_asked_for_again() -> None:
    names = Names()
    addresses = Addresses(Resolver(names))
    for _ in range(2):
        with pytest.raises(socket.gaierror):
            await addresses.find("missing", 80)
    assert names.asked == ["missing"] * 2
    await addresses.close()


@pytest.mark.parametrize(("host", "family"), [("127.0.0.1", socket.AF_INET), ("::1", socket.AF_INET6)])
async def test_an_address_is_not_looked_up(host: str, family: int) -> None:
    names = Names()
    addresses = Addresses(Resolver(names))
    assert await addresses.find(host, 80) == [(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, 80))]
    assert not names.asked
    await addresses.close()


async def test_the_number_of_remembered_names_is_bounded() -> None:
    names = Names()
    addresses = Addresses(Resolver(names))
    for number in range(MAX_CACHED_NAMES + 1):
        await addresses.find(f"host-{number}", 80)
    await addresses.find(f"host-{MAX_CACHED_NAMES}", 80)
    assert len(names.asked) == MAX_CACHED_NAMES + 1
    await addresses.find("host-0", 80)
    assert len(names.asked) == MAX_CACHED_NAMES + 2
    await addresses.close()


async def test_closing_ends_look_ups() -> None:
    names = Names()
    names.answers.clear()
    addresses = Addresses(Resolver(names))
    task = asyncio.create_task(addresses.find("host", 80))
    await asyncio.sleep(0)
    await addresses.close()
    with pytest.raises(asyncio.CancelledError):
        await task
    names.answers.set()
