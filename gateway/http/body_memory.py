"""Counts the bytes of request bodies in memory, in this process and for each tree of tokens, and bounds them.

A body is in memory from its first byte until its request ends. A large body is not read before there is memory for it; until
then it stays with the client. A small one is refused where there is none.
"""

import asyncio
from collections import Counter

from gateway.core.errors import BodyMemoryExceeded, GatewayError, RateLimited

LARGE_BODY_BYTES = 1024 * 1024
"""A body above this waits for its turn, and counts as not admitted until its limits allow the request."""
MAX_WAITING = 32
"""How many large bodies of one tree of tokens may wait to be read."""
RETRY_SECONDS = 2.0
_PART_OF_TOKEN, _PART_NOT_ADMITTED = 4, 16


class BodyMemory:
    """Counts for one process. ``max_bytes`` bounds all bodies together, a quarter of it those of one tree of tokens.

    Large bodies whose requests wait for their limits may have a sixteenth of it for each tree of tokens. One body is allowed
    under each bound, whatever its size.
    """

    def __init__(self, max_bytes: int, max_wait: float) -> None:
        """``max_wait`` is how many seconds a large body waits to be read."""
        self.max_bytes = max_bytes
        self._max_wait = max_wait
        self.used = 0
        """In bytes."""
        self._used_by: Counter[str] = Counter()
        self._not_admitted: Counter[str] = Counter()
        self._waiting: dict[asyncio.Future[None], tuple[BodyAccount, int]] = {}

    def problem(self, key: str, size: int, *, is_large: bool = False) -> GatewayError | None:
        """Returns why a body of ``size`` more bytes may not be read now, None if it may."""
        if self.used and self.used + size > self.max_bytes:
            return BodyMemoryExceeded(RETRY_SECONDS)
        used, not_admitted = self._used_by[key], self._not_admitted[key]
        if used and used + size > self.max_bytes // _PART_OF_TOKEN:
            return _too_many_bytes()
        if is_large and not_admitted and not_admitted + size > self.max_bytes // _PART_NOT_ADMITTED:
            return _too_many_bytes()
        return None

    def add(self, key: str, size: int, not_admitted: int = 0) -> None:
        """Adds to what a tree of tokens uses; negative numbers give it back, and let bodies be read that wait."""
        self.used += size
        self._used_by[key] += size
        if not_admitted:
            self._not_admitted[key] += not_admitted
        if size <= 0:
            self._forget(key)
            self._wake()

    def _forget(self, key: str) -> None:
        for counter in (self._used_by, self._not_admitted):
            if counter[key] <= 0:
                del counter[key]

    def _wake(self) -> None:
        for turn, (account, size) in list(self._waiting.items()):
            if not turn.done() and self.problem(account.key, size, is_large=True) is None:
                account.add_large(size)
                turn.set_result(None)

    async def wait(self, account: "BodyAccount", size: int) -> None:
        """Waits until a large body may be read, and adds it. Raises RateLimited, BodyMemoryExceeded."""
        problem = self.problem(account.key, size, is_large=True)
        if problem is None:
            account.add_large(size)
            return
        if sum(waiting.key == account.key for waiting, _ in self._waiting.values()) >= MAX_WAITING:
            raise problem
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[turn] = account, size
        try:
            async with asyncio.timeout(self._max_wait):
                await turn
        except TimeoutError:
            if turn.cancelled():
                raise problem from None
        finally:
            del self._waiting[turn]


class BodyAccount:
    """Counts the body of one request. ``key`` names the tree of tokens that it is counted for."""

    __slots__ = ("_memory", "key", "not_admitted", "size")

    def __init__(self, memory: BodyMemory, key: str) -> None:
        self._memory = memory
        self.key = key
        self.size = 0
        self.not_admitted = 0

    async def reserve(self, size: int) -> None:
        """Counts a body before it is read; a large one waits for its turn. Raises RateLimited, BodyMemoryExceeded."""
        if size > LARGE_BODY_BYTES:
            await self._memory.wait(self, size)
        else:
            self.add(size)

    def add(self, size: int) -> None:
        """Counts bytes that are there, or are about to come. Raises RateLimited, BodyMemoryExceeded."""
        if (problem := self._memory.problem(self.key, size)) is not None:
            raise problem
        self.size += size
        self._memory.add(self.key, size)

    def add_large(self, size: int) -> None:
        """Counts a large body that has got its turn."""
        self.size += size
        self.not_admitted += size
        self._memory.add(self.key, size, size)

    def admitted(self) -> None:
        """Tells that the limits allow the request, so that the next large body may be read."""
        if self.not_admitted:
            not_admitted, self.not_admitted = self.not_admitted, 0
            self._memory.add(self.key, 0, -not_admitted)

    def release(self) -> None:
        """Gives everything back, at the end of the request."""
        if self.size:
            self._memory.add(self.key, -self.size, -self.not_admitted)
            self.size = self.not_admitted = 0


def _too_many_bytes() -> RateLimited:
    return RateLimited(
        "The bodies of this token's requests take up as much memory as they may. Send fewer large requests at once.",
        RETRY_SECONDS,
    )
