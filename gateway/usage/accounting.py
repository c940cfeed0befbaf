"""The use case of looking back: what was used, read from the ledger without holding up the event loop."""

import asyncio
import logging
from collections.abc import Callable
from typing import TypeVar

from gateway.core.errors import StoreUnavailable
from gateway.usage import reports
from gateway.usage.reports import Query, Row, Sums
from gateway.usage.stores.sqlite import LedgerFile

log = logging.getLogger(__name__)

T = TypeVar("T")


class Accounting:
    """Reads ``file``. Every method may raise StoreUnavailable."""

    def __init__(self, file: LedgerFile) -> None:
        self._file = file

    async def rows(self, query: Query) -> list[Row]:
        """Raises TooManyRows."""
        return await self._read(lambda: reports.read(self._file, query))

    async def total(self, token_id: str) -> Sums:
        """All that a token has ever used."""
        return await self._read(lambda: reports.total_of(self._file, token_id))

    async def _read(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.to_thread(work)
        except OSError as error:
            log.error("the ledger cannot be read", extra={"problem": str(error)})
            raise StoreUnavailable("The ledger cannot be read at the moment. Please try again.") from None
