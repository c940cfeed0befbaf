"""Resolves the names of upstreams in a few threads of its own.

A DNS server that does not answer keeps a thread busy for longer than anybody waits. In asyncio's pool of threads those
that read the token file and write usage would have to wait for it.
"""

import asyncio
import socket
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from aiohttp.abc import AbstractResolver, ResolveResult

MAX_THREADS = 4
"""aiohttp asks for each name once at a time, so this is how many names may be resolved at once."""

LookUp = Callable[..., Sequence[tuple[Any, ...]]]


class Resolver(AbstractResolver):
    """Resolves names with ``look_up``, a function with the signature of ``socket.getaddrinfo``."""

    def __init__(self, look_up: LookUp = socket.getaddrinfo) -> None:
        self._look_up = look_up
        self._executor = ThreadPoolExecutor(MAX_THREADS, thread_name_prefix="resolver")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Returns the addresses of a host. Raises OSError where it is not found."""
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(
            self._executor, self._look_up, host, port, family, socket.SOCK_STREAM, 0, socket.AI_ADDRCONFIG
        )
        return [
            ResolveResult(
                hostname=host,
                host=_numeric_host(address),
                port=address[1],
                family=found_family,
                proto=proto,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for found_family, _kind, proto, _name, address in found
        ]

    async def close(self) -> None:
        """Forgets the names that wait; a thread that is busy ends by itself."""
        self._executor.shutdown(wait=False, cancel_futures=True)


def _numeric_host(address: tuple[Any, ...]) -> str:
    """Returns the address as a string, a link-local one with its interface."""
    return f"{address[0]}%{address[3]}" if len(address) > 3 and address[3] else str(address[0])
