"""An object store in memory: for programs that embed the gateway, and for tests. What it holds ends with the process."""

import threading
from collections.abc import Mapping, Sequence

from gateway.routing.ownership import ObjectKey, ObjectRecord


class MemoryObjectStore:
    """Implements ``ObjectStore`` for one process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._records: dict[ObjectKey, ObjectRecord] = {}

    def add(self, records: Sequence[ObjectRecord]) -> None:
        """See ``ObjectStore.add``. Raises nothing."""
        with self._lock:
            for record in records:
                self._records.setdefault(record.key, record)

    def owners(self, keys: Sequence[ObjectKey]) -> Mapping[ObjectKey, str]:
        """See ``ObjectStore.owners``. Raises nothing."""
        with self._lock:
            return {key: self._records[key].owner for key in keys if key in self._records}

    def prune(self, before_ms: int, limit: int) -> int:
        """See ``ObjectStore.prune``. Raises nothing."""
        with self._lock:
            old = [key for key, record in self._records.items() if record.at < before_ms][:limit]
            for key in old:
                del self._records[key]
            return len(old)

    def close(self) -> None:
        """Does nothing: it has nothing open."""
