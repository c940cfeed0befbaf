"""Looks up the addresses of hosts, remembers them for a short time, and asks for each name once at a time."""

import asyncio
import ipaddress
import socket
import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from gateway.providers.transport.resolver import Resolver

DNS_CACHE_SECONDS = 10.0
MAX_CACHED_NAMES = 1000

AddressInfo = tuple[int, int, int, str, tuple[str, int] | tuple[str, int, int, int]]
"""As ``socket.getaddrinfo`` returns it."""


class _Found(NamedTuple):
    addresses: list[AddressInfo]
    expires_at: float


class Addresses:
    """Belongs to one event loop."""

    def __init__(self, resolver: Resolver, clock: Callable[[], float] = time.monotonic) -> None:
        self._resolver = resolver
        self._clock = clock
        self._found: dict[tuple[str, int], _Found] = {}
        self._running: dict[tuple[str, int], asyncio.Task[list[AddressInfo]]] = {}

    async def find(self, host: str, port: int) -> list[AddressInfo]:
        """Returns the addresses of a host, as they were found in the last seconds or are found now. Raises OSError."""
        if (own := _literal(host, port)) is not None:
            return [own]
        key = (host, port)
        found = self._found.get(key)
        if found is not None and self._clock() < found.expires_at:
            return found.addresses
        if (task := self._running.get(key)) is None:
            task = self._running[key] = asyncio.create_task(self._resolve(host, port))
            task.add_done_callback(partial(self._end, key))
        return await asyncio.shield(task)

    async def _resolve(self, host: str, port: int) -> list[AddressInfo]:
        results = await self._resolver.resolve(host, port, socket.AF_UNSPEC)
        return [
            (result["family"], socket.SOCK_STREAM, result["proto"], "", (result["host"], result["port"]))
            for result in results
        ]

    def _end(self, key: tuple[str, int], task: "asyncio.Task[list[AddressInfo]]") -> None:
        self._running.pop(key, None)
        if task.cancelled() or task.exception() is not None:
            return
        if len(self._found) >= MAX_CACHED_NAMES:
            self._found.clear()
        self._found[key] = _Found(task.result(), self._clock() + DNS_CACHE_SECONDS)

    async def close(self) -> None:
        """Ends the look-ups that go on."""
        for task in list(self._running.values()):
            task.cancel()
        await self._resolver.close()


def _literal(host: str, port: int) -> AddressInfo | None:
    """Returns a host that is an address already."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    return (family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, port))
