"""The use case of looking back: what was used, read from the ledger without holding up the event loop."""

import asyncio
import logging
from collections.abc import Callable
from typing import TypeVar

from gateway.core.errors import StoreUnavailable
from gateway.usage import reports
from gateway.usage.reports import ReportQuery, ReportRow, UsageTotals
from gateway.usage.stores.sqlite import SqliteUsageStore

log = logging.getLogger(__name__)

T = TypeVar("T")


class UsageReports:
    """Reads ``file``. Every method may raise StoreUnavailable."""

    def __init__(self, file: SqliteUsageStore) -> None:
        self._file = file

    async def rows(self, query: ReportQuery) -> list[ReportRow]:
        """Raises TooManyRows."""
        return await self._read(lambda: reports.read(self._file, query))

    async def total(self, token_id: str) -> UsageTotals:
        """All that a token has ever used."""
        return await self._read(lambda: reports.total_of(self._file, token_id))

    async def _read(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.to_thread(work)
        except OSError as error:
            log.error("the ledger cannot be read", extra={"problem": str(error)})
            raise StoreUnavailable("The ledger cannot be read at the moment. Please try again.") from None
