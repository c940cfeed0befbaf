"""The protocol of a usage store: where the entries of the ledger are kept, and their sums by the hour.

A second store is done when it passes ``tests/usage/test_store.py``.
"""

from collections.abc import Sequence
from typing import Protocol

from gateway.usage.models import LedgerEntry, ReportQuery, ReportRow, UsageTotals


class UsageStoreError(OSError):
    """The store cannot be read or written."""


class TooManyRows(ValueError):
    """A report has more rows than the query allows."""


class ReportTooSlow(UsageStoreError):
    """A report was given up, because it took longer than the store allows."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"the report was given up after {seconds:g} s")
        self.seconds = seconds


class UsageStore(Protocol):
    """Blocking methods, which any thread may call. Any number of processes may use one store."""

    def write(self, entries: Sequence[LedgerEntry]) -> int:
        """Adds the entries, and adds them up by the hour, in one transaction.

        An entry whose request id is in the store already is neither added nor added up again, so a write whose end is not known
        can simply be repeated.

        Returns how many were new. Raises UsageStoreError; then nothing was written, unless the store failed while it committed.
        """

    def write_running(self, entries: Sequence[LedgerEntry]) -> None:
        """Keeps what requests that still run have used so far, in place of what was kept of them before.

        Reports count it, until ``write`` replaces it by the request's final entry. Requests that have one are ignored. Raises
        UsageStoreError; then nothing was written, unless the store failed while it committed.
        """

    def take_over(self) -> int:
        """Adds what is kept of running requests as their final entries, where the process that wrote it has ended.

        The entries have the status 500. Returns how many were added. Raises UsageStoreError.
        """

    def prune(self, before_ms: int, limit: int) -> int:
        """Removes at most ``limit`` entries that began before this time, in milliseconds since the epoch. Their sums by the hour
        stay.

        Returns how many were removed: fewer than ``limit`` if none is left. Raises UsageStoreError.
        """

    def report(self, query: ReportQuery) -> list[ReportRow]:
        """Returns sums at one moment, ordered by time and then by group, without buckets and groups in which nothing was used.

        Raises UsageStoreError, ReportTooSlow, TooManyRows.
        """

    def totals(self, token_id: str) -> UsageTotals:
        """Returns all that one token has ever used. Raises UsageStoreError, ReportTooSlow."""

    def close(self) -> None:
        """Releases what the store has open. The next call of another method opens it again."""
