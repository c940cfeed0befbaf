"""The newest good view of the tokens that a server has, and what is wrong with the file it comes from."""

import asyncio
import logging
import math
import time
from collections.abc import Callable
from enum import Enum

from gateway.tokens.hierarchy import TokenHierarchy
from gateway.tokens.stores.json_file import JsonTokenFile
from gateway.tokens.stores.json_format import TokenDocument, TokenFileError

log = logging.getLogger(__name__)

POLL_SECONDS = 0.25
GONE_SECONDS = 2.0


class FileState(Enum):
    """How the view relates to the file."""

    CURRENT = "current"
    GONE = "gone"  # a missing file is a state of its own: "no token is valid"
    DAMAGED = "damaged"  # the last good view goes on serving


Listener = Callable[[TokenHierarchy], None]
EMPTY = TokenDocument()


class TokenCache:
    """Polls the file: four looks a second give a bound for every kind of change on every file system."""

    def __init__(self, file: JsonTokenFile, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._file = file
        self._monotonic = monotonic
        self._missing_since: float | None = None
        self._listeners: list[Listener] = []
        self._looking = asyncio.Lock()
        self._began = -math.inf
        self.view = TokenHierarchy(EMPTY)
        self.state = FileState.CURRENT
        self.problem: str | None = None

    @property
    def may_create_file(self) -> bool:
        """Whether a file may be made: not where there was one, which may come back any moment."""
        return self.state is FileState.CURRENT and len(self.view) == 0

    def subscribe(self, listener: Listener) -> None:
        """``listener`` is called with each new view, on the event loop."""
        self._listeners.append(listener)

    def load(self) -> None:
        """The first look, at start-up. Raises TokenFileError or OSError: a server must not start on a damaged file."""
        document = self._file.read()
        self.view = TokenHierarchy(document or EMPTY)
        self.state = FileState.CURRENT

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await asyncio.sleep(POLL_SECONDS)
            await self.refresh()

    async def refresh(self) -> None:
        """One look that begins from now on, whoever takes it. A damaged or missing file never raises; it is a state."""
        asked = self._monotonic()
        async with self._looking:  # an older look must not be published behind a newer one
            if self._began > asked:
                return
            self._began = self._monotonic()
            try:
                view = await asyncio.to_thread(self._read)
            except (TokenFileError, OSError) as error:
                self._damaged(str(error))
            else:
                if view is None:
                    self._missing()
                else:
                    self._good(view)

    def _read(self) -> TokenHierarchy | None:
        """In a thread: of many tokens a view takes its time, too."""
        document = self._file.read()
        if document is None:
            return None
        return self.view if document is self.view.document else TokenHierarchy(document)

    def _good(self, view: TokenHierarchy) -> None:
        self._missing_since = None
        if self.state is not FileState.CURRENT:
            log.info("token file readable again", extra={"tokens": len(view)})
        self.state = FileState.CURRENT
        self.problem = None
        self._publish(view)

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
            self._publish(TokenHierarchy(EMPTY))

    def _publish(self, view: TokenHierarchy) -> None:
        if view is self.view:
            return
        self.view = view
        for listener in self._listeners:
            listener(self.view)
