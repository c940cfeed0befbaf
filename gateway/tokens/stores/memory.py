"""Stores tokens in memory: for tests, and for whoever embeds the gateway without a file."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence

from gateway.audit.hash_chain import Actor
from gateway.core.threads import Threads, await_uncancelled
from gateway.tokens import changes
from gateway.tokens.hierarchy import TokenHierarchy
from gateway.tokens.models import RecordChange, TokenRecord, UseKey
from gateway.tokens.store import AuditSink, TokensMissing, TokenTransaction, audited
from gateway.tokens.uses import Use, add_uses


class MemoryTokenStore:
    """A ``TokenStore`` for one process. It is missing until tokens are put into it or a transaction creates some."""

    def __init__(self, audit: AuditSink, clock: Callable[[], float]) -> None:
        """``clock`` tells seconds since the epoch."""
        self._audit = audit
        self._clock = clock
        self._lock = asyncio.Lock()
        self._threads = Threads("tokens")
        self._tokens: TokenHierarchy | None = None

    def put(self, records: Sequence[TokenRecord]) -> None:
        """Replaces all tokens, without the audit log."""
        self._tokens = TokenHierarchy(records)

    def remove(self) -> None:
        """Makes the store missing."""
        self._tokens = None

    async def read(self) -> TokenHierarchy:
        """Returns the newest tokens, as ``TokenStore`` says. Raises TokensMissing."""
        return self._newest()

    @contextlib.asynccontextmanager
    async def transaction(self, actor: Actor, *, may_create: bool = True) -> AsyncIterator[TokenTransaction]:
        """Changes tokens, as ``TokenStore`` says. Raises TokensMissing, and OSError where the change cannot be logged."""
        async with self._lock:
            tx = TokenTransaction(self._newest(may_create), self._clock())
            yield tx
            if tx.changes:
                commit = asyncio.ensure_future(self._commit(actor, tx.changes, tx.tokens))
                await await_uncancelled(commit, asyncio.Future.result)

    async def _commit(self, actor: Actor, record_changes: Sequence[RecordChange], tokens: TokenHierarchy) -> None:
        async with audited(self._audit, actor, record_changes, self._threads):
            self.put(changes.apply(tokens.records, record_changes))

    async def record_uses(self, uses: Mapping[UseKey, Use]) -> None:
        """Adds uses, as ``TokenStore`` says. Raises TokensMissing."""
        async with self._lock:
            tokens = self._newest()
            records = add_uses(tokens.records, uses)
            if records != tokens.records:
                self.put(records)

    def _newest(self, may_create: bool = False) -> TokenHierarchy:
        if self._tokens is not None:
            return self._tokens
        if not may_create:
            raise TokensMissing("there are no tokens in memory")
        return TokenHierarchy()
