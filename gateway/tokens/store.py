"""Declares where tokens are stored, as everything but the stores themselves sees it.

A change of tokens is a transaction: it is decided on the newest tokens while nobody else can change them, and either all of
it is stored or nothing. Its audit events are durable before it is stored. ``gateway.tokens.stores`` has the implementations.
"""

import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from enum import Enum
from typing import Any, Protocol

from gateway.audit.hash_chain import Actor, AuditEvent
from gateway.core.threads import Threads
from gateway.tokens import validation
from gateway.tokens.hierarchy import TokenHierarchy
from gateway.tokens.models import RecordChange, TokenRecord, UseKey
from gateway.tokens.uses import Use

_NOT_LOGGED = frozenset({"hash"})


class TokensDamaged(Exception):
    """What is stored is damaged or foreign. The message names the place and the reason."""


class TokensMissing(FileNotFoundError):
    """There is no store. It may only be away for a moment."""


class TokenStoreFull(OSError):
    """The store has no space for a change that adds to it. The message says how to make some."""


class TokenTransaction:
    """Collects changes of records, in memory; they are stored together when the transaction ends without an error."""

    def __init__(self, tokens: TokenHierarchy, now: float) -> None:
        self.tokens = tokens
        """The newest tokens, without the changes of this transaction."""
        self.now = now
        """When the transaction began, in seconds since the epoch."""
        self.changes: list[RecordChange] = []

    def apply(self, changes: Iterable[RecordChange]) -> None:
        """Adds changes, which are logged in this order."""
        self.changes += changes

    def change_of(self, record: TokenRecord) -> RecordChange:
        """Returns the change of a record. If nothing happens to it, the change has no action."""
        unchanged = RecordChange("", record, record)
        return next((change for change in self.changes if change.record.id == record.id), unchanged)


class StoreState(Enum):
    """How the tokens in memory relate to the store."""

    CURRENT = "current"
    GONE = "gone"
    """The store is missing although there were tokens: no token is valid."""
    DAMAGED = "damaged"
    """The store cannot be read: the last good tokens stay valid."""


Listener = Callable[[TokenHierarchy], None]
"""Is called with the tokens each time they have changed, on the event loop."""


class NewestTokens(Protocol):
    """The newest good tokens that a process knows, and how they relate to the store. ``tokens.cache`` implements it."""

    tokens: TokenHierarchy
    state: StoreState

    @property
    def may_create_store(self) -> bool:
        """Whether a missing store may be created."""

    def subscribe(self, listener: Listener) -> None:
        """Calls ``listener`` with the tokens each time they have changed."""

    async def refresh(self) -> None:
        """Reads the store now."""


class TokenStore(Protocol):
    """Every method may raise TokensDamaged, and OSError for a store that cannot be reached, read, locked or written."""

    async def read(self) -> TokenHierarchy:
        """Returns the newest tokens: the very same object for as long as they have not changed.

        Raises TokensMissing, TokensDamaged, OSError.
        """

    def transaction(self, actor: Actor, *, may_create: bool = True) -> AbstractAsyncContextManager[TokenTransaction]:
        """Changes tokens, on the newest ones and while nobody else can. ``actor`` is who does it, for the audit log.

        When the block ends, its changes are logged, and the log made durable, before they are stored; without changes
        nothing is written. When the block raises, nothing has changed. When storing fails, nothing has changed either, and
        the audit log gets the same events again as failed.

        ``may_create`` says whether a store that is not there is created. Raises TokensMissing without it, TokensDamaged,
        OSError, and what the block raises.
        """

    async def record_uses(self, uses: Mapping[UseKey, Use]) -> None:
        """Adds uses to the tokens; one that has been deleted is passed over. They are not audited.

        Raises TokensMissing, TokensDamaged, OSError; then nothing has changed.
        """


class AuditSink(Protocol):
    """Where changes are logged before they are made."""

    async def append(self, entries: Sequence[AuditEvent]) -> None:
        """Appends the events; they are durable when it returns. Raises OSError."""


@contextlib.asynccontextmanager
async def audited(
    log: AuditSink, actor: Actor, changes: Iterable[RecordChange], threads: Threads
) -> AsyncIterator[None]:
    """Logs the changes, then runs the block that stores them; when that fails, logs them again as failed.

    A process that dies between the two leaves an event for a change that nobody was told of; a change without its event
    is impossible. The events are made in one of ``threads``. Raises OSError where the changes cannot be logged, and what the
    block raises.
    """
    changes = tuple(changes)
    await log.append(await threads.run(audit_events, actor, changes))
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):  # the disk that refused the change may refuse this, too
            await log.append(await threads.run(audit_events, actor, changes, ".failed"))
        raise


def audit_events(actor: Actor, changes: Iterable[RecordChange], suffix: str = "") -> list[AuditEvent]:
    """Returns one event for each change, its action followed by the suffix."""
    return [
        AuditEvent(
            actor=actor,
            action=change.action + suffix,
            token_id=change.record.id,
            token=change.record.name,
            changes=_differences(change.before, change.after),
        )
        for change in changes
    ]


def _differences(before: TokenRecord | None, after: TokenRecord | None) -> dict[str, tuple[Any, Any]]:
    """Field by field, before and after. Of a record that is created or deleted, only what is set in it."""
    old = _loggable(before) if before else {}
    new = _loggable(after) if after else {}
    return {
        name: (old.get(name), new.get(name))
        for name in validation.READERS
        if name not in _NOT_LOGGED
        and (old.get(name) != new.get(name) if old and new else old.get(name) or new.get(name))
    }


def _loggable(record: TokenRecord) -> dict[str, Any]:
    fields = validation.to_json(record)
    previous = [{key: value for key, value in old.items() if key != "hash"} for old in fields["previous_secrets"]]
    return {**fields, "previous_secrets": previous}
