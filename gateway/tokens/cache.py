"""Keeps the newest good tokens in memory for a server, and knows how they relate to what is stored."""

import asyncio
import logging
import math
import time
from collections.abc import Callable

from gateway.tokens.hierarchy import TokenHierarchy
from gateway.tokens.store import Listener, StoreState, TokensDamaged, TokensMissing, TokenStore

log = logging.getLogger(__name__)

POLL_SECONDS = 0.25
GONE_SECONDS = 2.0


class TokenCache:
    """Polls the store: four reads a second give a bound for every kind of change on every file system."""

    def __init__(self, store: TokenStore, monotonic: Callable[[], float] = time.monotonic) -> None:
        """``monotonic`` tells seconds."""
        self._store = store
        self._monotonic = monotonic
        self._missing_since: float | None = None
        self._listeners: list[Listener] = []
        self._reading = asyncio.Lock()
        self._last_began = -math.inf
        self._problem = ""
        self.tokens = TokenHierarchy()
        self.state = StoreState.CURRENT

    @property
    def may_create_store(self) -> bool:
        """Whether a missing store may be created: not where there was one, which may come back any moment."""
        return self.state is StoreState.CURRENT and len(self.tokens) == 0

    def subscribe(self, listener: Listener) -> None:
        """Calls ``listener`` with the tokens each time they have changed, on the event loop."""
        self._listeners.append(listener)

    async def load(self) -> None:
        """Reads the store for the first time. A missing one is empty.

        Raises TokensDamaged, OSError: a server must not start on a damaged store.
        """
        try:
            tokens = await self._store.read()
        except TokensMissing:
            return
        self._publish(tokens)

    async def run(self) -> None:
        """Polls until cancelled."""
        while True:
            await asyncio.sleep(POLL_SECONDS)
            await self.refresh()

    async def refresh(self) -> None:
        """Reads the store once, beginning after the call, whoever does it: changes made before are in ``tokens`` then.

        A damaged or missing store never raises; it is a state.
        """
        asked = self._monotonic()
        async with self._reading:  # an older read must not be published after a newer one
            if self._last_began > asked:
                return
            self._last_began = self._monotonic()
            try:
                tokens = await self._store.read()
            except TokensMissing:
                self._on_missing()
            except (TokensDamaged, OSError) as error:
                self._on_damage(str(error))
            else:
                self._on_good(tokens)

    def _on_good(self, tokens: TokenHierarchy) -> None:
        self._missing_since = None
        if self.state is not StoreState.CURRENT:
            log.info("token file readable again", extra={"tokens": len(tokens)})
        self.state = StoreState.CURRENT
        self._publish(tokens)

    def _on_damage(self, problem: str) -> None:
        self._missing_since = None
        if self.state is not StoreState.DAMAGED or problem != self._problem:
            log.error("token file unusable, the last good state goes on serving", extra={"problem": problem})
        self.state = StoreState.DAMAGED
        self._problem = problem

    def _on_missing(self) -> None:
        """Waits before anything ends: editors and copies replace a file by way of a moment without it."""
        if self.may_create_store:
            return
        now = self._monotonic()
        if self._missing_since is None:
            self._missing_since = now
        if now - self._missing_since > GONE_SECONDS and self.state is not StoreState.GONE:
            log.error("token file gone, no token is valid until it is back")
            self.state = StoreState.GONE
            self._publish(TokenHierarchy())

    def _publish(self, tokens: TokenHierarchy) -> None:
        if tokens is self.tokens:
            return
        self.tokens = tokens
        for listener in self._listeners:
            listener(tokens)
