"""The newest good view of the tokens that a server has, and what is wrong with the file it comes from."""

import asyncio
import logging
import time
from collections.abc import Callable
from enum import Enum

from gateway.tokens.document import TokenDocument, TokenFileError
from gateway.tokens.record import Status, TokenRecord
from gateway.tokens.token_file import TokenFile

log = logging.getLogger(__name__)

POLL_SECONDS = 0.25
GONE_SECONDS = 2.0


class FileState(Enum):
    """How the view relates to the file."""

    CURRENT = "current"
    GONE = "gone"  # a missing file is a state of its own: "no token is valid"
    DAMAGED = "damaged"  # the last good view goes on serving


class TokenView:
    """An immutable set of tokens, found by the digest of their secret."""

    def __init__(self, document: TokenDocument) -> None:
        self.document = document
        self._by_hash = {record.hash: record for record in document.tokens}
        self._by_id = {record.id: record for record in document.tokens}

    def by_hash(self, digest: str) -> TokenRecord | None:
        return self._by_hash.get(digest)

    def by_id(self, token_id: str) -> TokenRecord | None:
        return self._by_id.get(token_id)

    def status(self, record: TokenRecord, now: float) -> Status:
        """The record's own status, ended also by the end of a parent: one that is revoked, expired or gone."""
        seen = {record.id}
        own = record.status(now)
        while own is Status.ACTIVE and record.parent_id is not None:
            parent = self._by_id.get(record.parent_id)
            if parent is None or parent.id in seen:
                return Status.REVOKED
            seen.add(parent.id)
            own, record = parent.status(now), parent
        return own

    def __len__(self) -> int:
        return len(self._by_id)


Listener = Callable[[TokenView], None]
EMPTY = TokenDocument()


class TokenWatcher:
    """Polls the file: four looks a second give a bound for every kind of change on every file system."""

    def __init__(self, file: TokenFile, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._file = file
        self._monotonic = monotonic
        self._missing_since: float | None = None
        self._listeners: list[Listener] = []
        self._looking = asyncio.Lock()
        self.view = TokenView(EMPTY)
        self.state = FileState.CURRENT
        self.problem: str | None = None

    def subscribe(self, listener: Listener) -> None:
        """``listener`` is called with each new view, on the event loop."""
        self._listeners.append(listener)

    def load(self) -> None:
        """The first look, at start-up. Raises TokenFileError or OSError: a server must not start on a damaged file."""
        document = self._file.read()
        self.view = TokenView(document or EMPTY)
        self.state = FileState.CURRENT

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await asyncio.sleep(POLL_SECONDS)
            await self.look()

    async def look(self) -> None:
        """One look. A damaged or missing file never raises; it is a state."""
        async with self._looking:  # an older look must not be published behind a newer one
            try:
                document = await asyncio.to_thread(self._file.read)
            except (TokenFileError, OSError) as error:
                self._damaged(str(error))
            else:
                if document is None:
                    self._missing()
                else:
                    self._good(document)

    def _good(self, document: TokenDocument) -> None:
        self._missing_since = None
        if self.state is not FileState.CURRENT:
            log.info("token file readable again", extra={"tokens": len(document.tokens)})
        self.state = FileState.CURRENT
        self.problem = None
        self._publish(document)

    def _damaged(self, problem: str) -> None:
        self._missing_since = None
        if problem != self.problem:
            log.error("token file unusable, the last good state goes on serving", extra={"problem": problem})
        self.state = FileState.DAMAGED
        self.problem = problem

    def _missing(self) -> None:
        """Editors and copies replace a file by way of a moment without it; hence the wait."""
        if self.state is FileState.CURRENT and not len(self.view):
            return
        now = self._monotonic()
        if self._missing_since is None:
            self._missing_since = now
        if now - self._missing_since > GONE_SECONDS and self.state is not FileState.GONE:
            log.error("token file gone, no token is valid until it is back")
            self.state = FileState.GONE
            self.problem = "the token file is gone"
            self._publish(EMPTY)

    def _publish(self, document: TokenDocument) -> None:
        if document is self.view.document:
            return
        self.view = TokenView(document)
        for listener in self._listeners:
            listener(self.view)
