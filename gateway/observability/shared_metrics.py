"""Named numbers in memory that all workers share: each worker writes a page of its own, and anybody may read all of them.

A page is a table. A series is registered once: its record is written, then the count of records, so whatever is counted is
whole, and what a killed worker left half written is written over by the next one. From then on a series is a slot, and to
count is to write eight aligned bytes, which no reader ever sees in halves. Nothing is locked, as nobody writes what another
writes. The kernel gives memory to a page as its table grows.
"""

import logging
import struct
import zlib

from gateway.storage.shared_memory import shared_bytes

log = logging.getLogger(__name__)

CAPACITY = 4096
"""Series of one worker."""
MAX_KEY_BYTES = 232

OVERFLOW = "gateway_metrics_overflow_total"
"""The series, on every page, that counts those that found no room."""

_RECORD = struct.Struct(f"=IH?x{MAX_KEY_BYTES}s")
_HEADER_BYTES = 64
_VALUES_BYTES = (CAPACITY + 1) * 8
_KEYS_BYTES = CAPACITY * _RECORD.size
_PAGE_BYTES = 1024 * 1024
_STARTED, _COUNT = 0, 1
_NO_ROOM = CAPACITY
"""The slot that takes what has no room. Nobody reads it."""


class _Memory:
    """Where things are on a page."""

    def __init__(self, memory: memoryview) -> None:
        self.header = memory[:_HEADER_BYTES].cast("Q")
        self.values = memory[_HEADER_BYTES : _HEADER_BYTES + _VALUES_BYTES].cast("d")
        self._records = memory[_HEADER_BYTES + _VALUES_BYTES :][:_KEYS_BYTES]

    def write_record(self, slot: int, key: bytes, is_gauge: bool) -> None:
        _RECORD.pack_into(self._records, slot * _RECORD.size, _checksum(key, is_gauge), len(key), is_gauge, key)

    def record(self, slot: int) -> tuple[str, bool] | None:
        """Key, and whether it is a gauge. None: not to be seen yet, on processors that show writes in another order."""
        checksum, length, is_gauge, key = _RECORD.unpack_from(self._records, slot * _RECORD.size)
        key = key[:length]
        return (key.decode(), is_gauge) if checksum == _checksum(key, is_gauge) else None


def _checksum(key: bytes, is_gauge: bool) -> int:
    """Never that of a record of zeros."""
    return zlib.crc32(key, 2 if is_gauge else 1)


class WorkerMetrics:
    """What one worker counts. Only one thread of one process writes it."""

    def __init__(self, memory: memoryview) -> None:
        self._memory = _Memory(memory)
        self._slots: dict[str, int] = {}
        self._gauges: list[int] = []
        self._seen = 0
        self._is_full = False
        self.values = self._memory.values
        """By slot, for those to whom the call of ``add`` is too much."""
        self._overflow = _NO_ROOM
        self._overflow = self.slot(OVERFLOW)  # always the first of a page, so there is room for it

    def start(self) -> None:
        """A worker begins: it goes on with the counters of the one before it, whose gauges died with it."""
        self.reset_gauges()
        self._memory.header[_STARTED] = 1

    def reset_gauges(self) -> None:
        self._look_for_records()
        for slot in self._gauges:
            self.values[slot] = 0.0

    def slot(self, key: str, is_gauge: bool = False) -> int:
        """Where ``key`` is counted. Where there is no room for it, the slot of nobody: counting there does no harm."""
        self._look_for_records()
        if (known := self._slots.get(key)) is not None:
            return known
        encoded = key.encode()
        if len(encoded) > MAX_KEY_BYTES or self._seen >= CAPACITY:
            return self._no_room(key)
        slot = self._seen
        self._memory.write_record(slot, encoded, is_gauge)
        self.values[slot] = 0.0
        self._memory.header[_COUNT] = slot + 1
        self._look_for_records()
        return slot

    def add(self, slot: int, amount: float = 1.0) -> None:
        self.values[slot] += amount

    def set(self, slot: int, value: float) -> None:
        self.values[slot] = value

    def _look_for_records(self) -> None:
        """Take in what the worker before has registered."""
        count = self._memory.header[_COUNT]
        while self._seen < count:
            record = self._memory.record(self._seen)
            if record is not None:
                key, is_gauge = record
                self._slots[key] = self._seen
                if is_gauge:
                    self._gauges.append(self._seen)
            self._seen += 1

    def _no_room(self, key: str) -> int:
        self.add(self._overflow)
        if not self._is_full:
            log.error("no room for more metrics, those that are new are not kept", extra={"series": key})
        self._is_full = True
        return _NO_ROOM


class _Reader:
    """Reads one page, from whatever process."""

    def __init__(self, memory: memoryview) -> None:
        self._memory = _Memory(memory)
        self._keys: dict[int, str] = {}

    def read(self) -> dict[str, float] | None:
        """None where no worker has begun yet."""
        if not self._memory.header[_STARTED]:
            return None
        count = self._memory.header[_COUNT]
        for slot in range(count):
            if slot not in self._keys and (record := self._memory.record(slot)) is not None:
                self._keys[slot] = record[0]
        values = self._memory.values[:count].tolist()
        return {key: values[slot] for slot, key in self._keys.items()}


class SharedMetrics:
    """The pages of all workers. Make it before workers are forked."""

    def __init__(self, workers: int) -> None:
        memory = shared_bytes(workers * _PAGE_BYTES)
        self._pages = [memory[first : first + _PAGE_BYTES] for first in range(0, len(memory), _PAGE_BYTES)]
        self._readers = [_Reader(page) for page in self._pages]

    def page(self, worker: int) -> WorkerMetrics:
        """The page that this worker, and no other process, writes. With what has been counted under its number before."""
        return WorkerMetrics(self._pages[worker])

    def read(self) -> list[dict[str, float]]:
        """What each worker that has begun counts now, by key."""
        return [reading for reader in self._readers if (reading := reader.read()) is not None]
