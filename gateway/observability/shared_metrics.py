"""Named numbers in memory that all workers share: each worker writes a page of its own, and any process may read all pages.

A page is a table of series. A series is registered once: first its record is written, then the number of records, so that a
reader never sees an incomplete record, and a record that a killed worker did not complete is overwritten by the next worker.
After that a series is a slot: counting writes eight aligned bytes, which a reader never sees half written. No lock is needed,
because each page has one writer. The kernel gives memory to a page as its table grows.
"""

import logging
import struct
import zlib

from gateway.storage.shared_memory import shared_bytes

log = logging.getLogger(__name__)

CAPACITY = 4096
"""The largest number of series of one worker."""
MAX_KEY_BYTES = 232

OVERFLOW = "gateway_metrics_overflow_total"
"""The series, on every page, that counts attempts to register a series on a full page."""

HEADER_BYTES = 64
_RECORD = struct.Struct(f"=IH?x{MAX_KEY_BYTES}s")
_VALUES_BYTES = (CAPACITY + 1) * 8
_KEYS_BYTES = CAPACITY * _RECORD.size
_PAGE_BYTES = 1024 * 1024
_UNUSED_SLOT = CAPACITY
"""The slot for series that are not kept. Nobody reads it."""


class MetricsPage:
    """The layout of one page: a header of 64-bit numbers, a value for each slot, a record for each series."""

    def __init__(self, memory: memoryview) -> None:
        self._header = memory[:HEADER_BYTES].cast("Q")
        self.values = memory[HEADER_BYTES : HEADER_BYTES + _VALUES_BYTES].cast("d")
        self.records = memory[HEADER_BYTES + _VALUES_BYTES :][:_KEYS_BYTES]

    @property
    def is_started(self) -> bool:
        """Whether a worker has ever used the page."""
        return bool(self._header[0])

    def mark_started(self) -> None:
        """Lets readers see the page."""
        self._header[0] = 1

    @property
    def count(self) -> int:
        """The number of complete records."""
        return self._header[1]

    @count.setter
    def count(self, count: int) -> None:
        self._header[1] = count

    def write_record(self, slot: int, key: bytes, is_gauge: bool) -> None:
        """Writes the record of a slot. Readers see it when ``count`` is larger than the slot."""
        _RECORD.pack_into(self.records, slot * _RECORD.size, _checksum(key, is_gauge), len(key), is_gauge, key)

    def read_record(self, slot: int) -> tuple[str, bool] | None:
        """Returns the key, and whether it is a gauge. None where the record is not visible yet: some processors show writes in
        another order."""
        checksum, length, is_gauge, key = _RECORD.unpack_from(self.records, slot * _RECORD.size)
        key = key[:length]
        return (key.decode(), is_gauge) if checksum == _checksum(key, is_gauge) else None


def _checksum(key: bytes, is_gauge: bool) -> int:
    """Returns a checksum that differs from that of a record of zeros."""
    return zlib.crc32(key, 2 if is_gauge else 1)


class WorkerMetrics:
    """What one worker counts. Only one thread of one process writes it."""

    def __init__(self, page: MetricsPage) -> None:
        self.page = page
        self._slots: dict[str, int] = {}
        self._gauges: list[int] = []
        self._known = 0
        self._is_full = False
        self.values = page.values
        """Values by slot, for callers that cannot afford the call of ``add``."""
        self._overflow = _UNUSED_SLOT
        self._overflow = self.slot(OVERFLOW)  # always the first of a page, so it is always kept

    def start(self) -> None:
        """Begins a worker. It goes on with the counters of the worker before it on this page; gauges begin at 0."""
        self.reset_gauges()
        self.page.mark_started()

    def reset_gauges(self) -> None:
        """Sets every gauge to 0."""
        self._read_new_records()
        for slot in self._gauges:
            self.values[slot] = 0.0

    def slot(self, key: str, is_gauge: bool = False) -> int:
        """Returns the slot of a series, and registers the series if it is new.

        Where the page is full or the key too long, it returns a slot that nobody reads, and counts and logs that.
        """
        self._read_new_records()
        if (known := self._slots.get(key)) is not None:
            return known
        encoded = key.encode()
        if len(encoded) > MAX_KEY_BYTES or self._known >= CAPACITY:
            return self._reject(key)
        slot = self._known
        self.page.write_record(slot, encoded, is_gauge)
        self.values[slot] = 0.0
        self.page.count = slot + 1
        self._read_new_records()
        return slot

    def add(self, slot: int, amount: float = 1.0) -> None:
        """Adds to the value of a slot."""
        self.values[slot] += amount

    def _read_new_records(self) -> None:
        """Learns the series that another worker has registered on this page."""
        count = self.page.count
        while self._known < count:
            record = self.page.read_record(self._known)
            if record is not None:
                key, is_gauge = record
                self._slots[key] = self._known
                if is_gauge:
                    self._gauges.append(self._known)
            self._known += 1

    def _reject(self, key: str) -> int:
        self.add(self._overflow)
        if not self._is_full:
            log.error("too many metrics, new ones are not kept", extra={"series": key})
        self._is_full = True
        return _UNUSED_SLOT


class _PageReader:
    """Reads one page, from any process."""

    def __init__(self, page: MetricsPage) -> None:
        self._page = page
        self._keys: dict[int, str] = {}

    def read(self) -> dict[str, float] | None:
        """Returns values by key; None where no worker has used the page."""
        if not self._page.is_started:
            return None
        count = self._page.count
        for slot in range(count):
            if slot not in self._keys and (record := self._page.read_record(slot)) is not None:
                self._keys[slot] = record[0]
        values = self._page.values[:count].tolist()
        return {key: values[slot] for slot, key in self._keys.items()}


class SharedMetrics:
    """The pages of all workers. Make it before the workers are forked."""

    def __init__(self, workers: int) -> None:
        memory = shared_bytes(workers * _PAGE_BYTES)
        self._pages = [MetricsPage(memory[first : first + _PAGE_BYTES]) for first in range(0, len(memory), _PAGE_BYTES)]
        self._readers = [_PageReader(page) for page in self._pages]

    def worker(self, worker: int) -> WorkerMetrics:
        """Returns the metrics of a worker, counted from 0. No other process may write them. They go on with what a worker of
        the same number has counted before."""
        return WorkerMetrics(self._pages[worker])

    def read(self) -> list[dict[str, float]]:
        """Returns, for each worker that has started, its values by key."""
        return [reading for reader in self._readers if (reading := reader.read()) is not None]
