"""What every object store keeps to, and what the gateway does while a store fails."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from gateway.routing.ownership import MAX_WAITING, ObjectKey, ObjectRecord, ObjectStore, ObjectStoreError, Ownership
from gateway.routing.stores.memory import MemoryObjectStore
from gateway.routing.stores.sqlite import OBJECTS_FILE, SqliteObjectStore

NOW = 1_800_000_000
DAY_MS = 86_400_000
A, B = ObjectKey("openai", "file-1"), ObjectKey("openai", "file-2")


def made(key: ObjectKey, owner: str, at: int = NOW * 1000) -> ObjectRecord:
    return ObjectRecord(key, "files", owner, at)


@pytest.fixture(params=["sqlite", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ObjectStore]:
    found: ObjectStore = (
        SqliteObjectStore(tmp_path / OBJECTS_FILE) if request.param == "sqlite" else MemoryObjectStore()
    )
    yield found
    found.close()


def test_an_object_has_the_owner_that_it_was_added_with(store: ObjectStore) -> None:
    assert store.owners([A, B]) == {}
    store.add([made(A, "ann@example.com"), made(B, "tok_1")])
    assert store.owners([A, B, ObjectKey("openai", "file-3")]) == {A: "ann@example.com", B: "tok_1"}


def test_the_first_owner_stays(store: ObjectStore) -> None:
    store.add([made(A, "ann"), made(A, "bob")])
    store.add([made(A, "bob"), made(B, "bob")])
    assert store.owners([A, B]) == {A: "ann", B: "bob"}


def test_providers_have_ids_of_their_own(store: ObjectStore) -> None:
    other = ObjectKey("echo", "file-1")
    store.add([made(A, "ann"), made(other, "bob")])
    assert store.owners([other, A]) == {A: "ann", other: "bob"}


def test_any_id_is_kept(store: ObjectStore) -> None:
    for number, text in enumerate(("", "é", "'; DROP TABLE objects", "\ud800", "x" * 10_000)):
        key = ObjectKey("openai", text)
        store.add([made(key, f"owner-{number}")])
        assert store.owners([key]) == {key: f"owner-{number}"}


def test_old_records_are_removed_in_batches(store: ObjectStore) -> None:
    store.add([made(ObjectKey("openai", f"old-{n}"), "ann", n) for n in range(5)])
    store.add([made(A, "ann", 5)])
    assert [store.prune(5, 3), store.prune(5, 3), store.prune(5, 3)] == [3, 2, 0]
    assert store.owners([A, ObjectKey("openai", "old-0")]) == {A: "ann"}


def test_it_can_be_used_after_it_was_closed(store: ObjectStore) -> None:
    store.add([made(A, "ann")])
    store.close()
    assert store.owners([A]) == {A: "ann"}


class FailingStore(MemoryObjectStore):
    """Fails while ``problem`` is set."""

    problem: str | None = None

    def _check(self) -> None:
        if self.problem is not None:
            raise ObjectStoreError(self.problem)

    def add(self, records: Sequence[ObjectRecord]) -> None:
        self._check()
        super().add(records)

    def owners(self, keys: Sequence[ObjectKey]) -> Mapping[ObjectKey, str]:
        self._check()
        return super().owners(keys)

    def prune(self, before_ms: int, limit: int) -> int:
        self._check()
        return super().prune(before_ms, limit)


class Failures:
    def __init__(self) -> None:
        self.count = 0

    def inc(self) -> None:
        self.count += 1


def ownership(store: ObjectStore, days: int = 0) -> tuple[Ownership, Failures]:
    failures = Failures()
    return Ownership(store, days, lambda: float(NOW), failures.inc), failures


async def test_what_is_recorded_is_in_the_store_at_once(store: ObjectStore) -> None:
    owning, _ = ownership(store)
    await owning.record([made(A, "ann")])
    assert store.owners([A]) == await owning.owners([A, B]) == {A: "ann"}
    assert (owning.waiting, owning.is_up) == (0, True)
    await owning.aclose()


async def test_a_store_that_fails_stops_nobody_from_making_objects() -> None:
    store = FailingStore()
    owning, failures = ownership(store)
    store.problem = "the disk is full"
    await owning.record([made(A, "ann")])
    assert (owning.waiting, owning.is_up, failures.count) == (1, False, 1)
    with pytest.raises(ObjectStoreError):
        await owning.owners([A])
    store.problem = None
    assert await owning.owners([A]) == {A: "ann"}
    await owning.record([made(B, "bob")])
    assert store.owners([A, B]) == {A: "ann", B: "bob"}
    assert (owning.waiting, owning.is_up) == (0, True)


async def test_what_waits_is_bounded() -> None:
    store = FailingStore()
    owning, _ = ownership(store)
    store.problem = "the disk is full"
    await owning.record([made(ObjectKey("openai", str(n)), "ann") for n in range(MAX_WAITING + 10)])
    assert owning.waiting == MAX_WAITING


async def test_the_owner_in_the_store_goes_before_one_that_waits() -> None:
    store = FailingStore()
    owning, _ = ownership(store)
    await owning.record([made(A, "ann")])
    store.problem = "the disk is full"
    await owning.record([made(A, "bob"), made(B, "bob"), made(B, "carl")])
    store.problem = None
    assert await owning.owners([A, B]) == {A: "ann", B: "bob"}


async def test_records_are_removed_after_the_days_that_were_set(store: ObjectStore) -> None:
    store.add([made(A, "ann", NOW * 1000 - DAY_MS - 1), made(B, "ann", NOW * 1000 - DAY_MS)])
    keeping, _ = ownership(store, 0)
    await keeping.prune()
    assert set(store.owners([A, B])) == {A, B}
    pruning, _ = ownership(store, 1)
    await pruning.prune()
    assert set(store.owners([A, B])) == {B}


async def test_a_failure_to_remove_is_counted() -> None:
    store = FailingStore()
    store.problem = "locked"
    pruning, failures = ownership(store, 1)
    await pruning.prune()
    assert failures.count == 1
