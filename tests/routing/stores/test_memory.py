"""The object store in memory, beside the contract in ``tests/routing/test_ownership.py``."""

from gateway.routing.ownership import ObjectKey, ObjectRecord
from gateway.routing.stores.memory import MemoryObjectStore


def test_two_stores_know_nothing_of_each_other() -> None:
    key = ObjectKey("openai", "file-1")
    one, other = MemoryObjectStore(), MemoryObjectStore()
    one.add([ObjectRecord(key, "files", "ann", 1)])
    assert (one.owners([key]), other.owners([key])) == ({key: "ann"}, {})
