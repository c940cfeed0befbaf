"""Counters in memory: copied to the file, and merged with what the file had."""

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest

from gateway.limits.models import Counter, TokenCounters
from gateway.limits.store import CounterStoreUnavailable
from gateway.limits.stores import memory, sqlite_file
from gateway.limits.stores.memory import MemoryCounterStore
from gateway.limits.stores.sqlite_file import COUNTERS_FILE
from gateway.storage.write_behind import WriteBehind
from tests.support.limits import NOW, charges_for, granted

BUDGET = {"budget": "0.0001"}


def stored(path: Path) -> dict[str, TokenCounters]:
    connection = sqlite_file.connect(path, 1.0)
    try:
        return sqlite_file.read_all(connection)
    finally:
        connection.close()


def delete_all(path: Path) -> None:
    connection = sqlite_file.connect(path, 1.0)
    connection.execute("DELETE FROM counters")
    connection.close()


async def spend(counters: MemoryCounterStore, amount: int, **more: str) -> None:
    charges = charges_for(BUDGET, cost=amount, **more)
    counters.settle(granted(await counters.reserve(charges, NOW)), [amount])


async def test_without_a_file_there_is_nothing_to_write() -> None:
    counters = MemoryCounterStore()
    await spend(counters, 10)
    await counters.flush()
    assert (counters.pending, counters.is_up) == (0, True)
    await counters.aclose()


async def test_only_what_was_used_is_written(tmp_path: Path) -> None:
    counters = MemoryCounterStore(tmp_path / COUNTERS_FILE)
    charges = charges_for({"max_parallel": 2, "tpm": 100, "budget": "1"}, tokens=30, cost=50)
    first, _ = [granted(await counters.reserve(charges, NOW)) for _ in range(2)]
    assert counters.pending == 0  # what is reserved ends with the process
    counters.settle(first, [10, 0, 0])
    assert counters.pending == 1
    await counters.flush()
    [(token_id, found)] = stored(tmp_path / COUNTERS_FILE).items()
    assert token_id == "tok_a"
    assert {name: (one.used, one.reserved) for name, one in found.items()} == {"|tokens": (600_000, 0)}
    assert [one.reserved for one in await counters.read(charges, NOW)] == [30, 1, 50]
    await counters.aclose()


async def test_a_request_that_used_nothing_is_not_written(tmp_path: Path) -> None:
    counters = MemoryCounterStore(tmp_path / COUNTERS_FILE)
    await spend(counters, 0)
    assert counters.pending == 0
    await counters.aclose()
    assert stored(tmp_path / COUNTERS_FILE) == {}


async def test_changes_are_written_without_being_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "WRITE_SECONDS", 0)
    counters = MemoryCounterStore(tmp_path / COUNTERS_FILE)
    running = asyncio.create_task(counters.run())
    await spend(counters, 10)
    async with asyncio.timeout(30):
        while counters.pending:
            await asyncio.sleep(0)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert stored(tmp_path / COUNTERS_FILE)["tok_a"]["|budget||all"].used == 10
    await counters.aclose()


async def test_a_file_that_becomes_readable_is_merged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Requests without a budget pass meanwhile, and what they have used is kept."""
    path = tmp_path / COUNTERS_FILE
    before = MemoryCounterStore(path)
    await spend(before, 30)
    await before.aclose()
    good = path.read_bytes()
    path.write_bytes(b"this is no database" * 100)
    with caplog.at_level(logging.ERROR):
        counters = MemoryCounterStore(path)
        await counters.flush()
    [record] = caplog.records  # said once
    assert record.message == "counters cannot be written, they wait in memory"
    assert vars(record)["problem"] == "file is not a database"
    rpm = charges_for({"rpm": 5})
    counters.settle(granted(await counters.reserve(rpm, NOW)), [1])
    with pytest.raises(CounterStoreUnavailable, match=r"^the file of counters could not be read yet$"):
        await spend(counters, 1)
    assert (counters.is_up, counters.pending) == (False, 1)
    path.write_bytes(good)
    await counters.flush()
    assert (counters.is_up, counters.pending) == (True, 0)
    await spend(counters, 5)
    found = await counters.read([*rpm, *charges_for(BUDGET)], NOW)
    assert [one.used for one in found] == [60_000, 35]
    await counters.aclose()
    written = stored(path)["tok_a"]
    assert (written["|requests"].used, written["|budget||all"].used) == (60_000, 35)


async def test_a_file_that_was_never_read_is_never_written(tmp_path: Path) -> None:
    path = tmp_path / COUNTERS_FILE
    path.write_bytes(b"this is no database" * 100)
    counters = MemoryCounterStore(path)
    counters.settle(granted(await counters.reserve(charges_for({"rpm": 5}), NOW)), [1])
    await counters.aclose()
    assert path.read_bytes() == b"this is no database" * 100


async def test_what_workers_of_another_store_had_reserved_is_void(tmp_path: Path) -> None:
    path = tmp_path / COUNTERS_FILE
    connection = sqlite_file.connect(path, 1.0)
    counter = Counter(used=10, reserved=50, reserved_by_worker={7: 50})
    sqlite_file.write_token(connection, "tok_a", {"|budget||all": counter})
    connection.close()
    counters = MemoryCounterStore(path)
    [budget] = await counters.read(charges_for(BUDGET), NOW)
    assert (budget.used, budget.reserved, budget.reserved_by_worker) == (10, 0, None)
    await counters.aclose()


async def test_a_counter_that_has_not_changed_is_not_written_again(tmp_path: Path) -> None:
    path = tmp_path / COUNTERS_FILE
    counters = MemoryCounterStore(path)
    await spend(counters, 40, limited="tok_b")
    await counters.aclose()
    counters = MemoryCounterStore(path)
    delete_all(path)
    for used in (30, 60):
        await spend(counters, 30)
        await counters.flush()
        assert {token_id: found["|budget||all"].used for token_id, found in stored(path).items()} == {"tok_a": used}
    await counters.aclose()


async def test_a_file_that_cannot_be_reached_is_noticed_although_nothing_has_changed(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    counters = MemoryCounterStore(folder / COUNTERS_FILE)
    await spend(counters, 30)
    await counters.flush()
    folder.rename(tmp_path / "away")
    folder.write_text("in the way")
    await counters.flush()
    assert not counters.is_up
    folder.unlink()
    (tmp_path / "away").rename(folder)
    await counters.flush()
    assert (counters.pending, counters.is_up) == (0, True)
    await counters.aclose()


async def test_all_counters_are_written_to_a_new_file(tmp_path: Path) -> None:
    path = tmp_path / COUNTERS_FILE
    counters = MemoryCounterStore(path)
    await spend(counters, 30)
    await spend(counters, 40, limited="tok_b")
    await counters.flush()
    for each in tmp_path.iterdir():
        each.unlink()
    await counters.flush()
    assert {token_id: found["|budget||all"].used for token_id, found in stored(path).items()} == {
        "tok_a": 30,
        "tok_b": 40,
    }
    await counters.aclose()


async def test_all_counters_are_written_to_a_file_that_is_replaced_in_the_last_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the check and the write, when only one of two tokens has changed."""
    path = tmp_path / COUNTERS_FILE
    counters = MemoryCounterStore(path)
    await spend(counters, 30)
    await spend(counters, 40, limited="tok_b")
    await counters.flush()

    write = WriteBehind.flush

    async def remove_and_write(writer: WriteBehind[Any]) -> bool:
        if not removed:
            for each in tmp_path.iterdir():
                removed.append(each)
                each.unlink()
        return await write(writer)

    removed: list[Path] = []
    await spend(counters, 5)
    with monkeypatch.context() as patch:
        patch.setattr(WriteBehind, "flush", remove_and_write)
        await counters.flush()
    assert {token_id: found["|budget||all"].used for token_id, found in stored(path).items()} == {
        "tok_a": 35,
        "tok_b": 40,
    }
    delete_all(path)
    await spend(counters, 5)
    await counters.flush()
    assert set(stored(path)) == {"tok_a"}, "the file is not new any more"
    await counters.aclose()


async def test_all_counters_are_written_to_a_file_that_could_not_be_opened_for_a_while(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    counters = MemoryCounterStore(folder / COUNTERS_FILE)
    await spend(counters, 30)
    await spend(counters, 40, limited="tok_b")
    await counters.flush()
    folder.rename(tmp_path / "away")
    folder.write_text("in the way")
    await spend(counters, 5)
    await counters.flush()
    folder.unlink()
    await counters.flush()
    assert {token_id: found["|budget||all"].used for token_id, found in stored(folder / COUNTERS_FILE).items()} == {
        "tok_a": 35,
        "tok_b": 40,
    }
    await counters.aclose()


async def test_what_cannot_be_written_waits(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "data"
    path = folder / COUNTERS_FILE
    counters = MemoryCounterStore(path)
    await spend(counters, 30)
    await counters.flush()
    folder.rename(tmp_path / "away")
    folder.write_text("in the way")
    await spend(counters, 5)
    for _ in range(2):
        await counters.flush()
        assert (counters.pending, counters.is_up) == (1, False)
    assert [record.levelname for record in caplog.records] == ["ERROR"]  # said once
    folder.unlink()
    (tmp_path / "away").rename(folder)
    await counters.flush()
    assert (counters.pending, counters.is_up) == (0, True)
    assert stored(path)["tok_a"]["|budget||all"].used == 35
    await counters.aclose()


async def test_what_is_lost_at_the_end_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "data"
    counters = MemoryCounterStore(folder / COUNTERS_FILE)
    await spend(counters, 30)
    folder.rename(tmp_path / "away")
    folder.write_text("in the way")
    await counters.aclose()
    assert "counters lost at shutdown" in [record.message for record in caplog.records]


async def test_what_is_wrong_with_the_file_is_told_until_it_is_right(tmp_path: Path) -> None:
    path = tmp_path / COUNTERS_FILE
    path.write_bytes(b"this is no database" * 100)
    counters = MemoryCounterStore(path)
    assert counters.problem == "the counters of limits cannot be read; tokens with a budget are refused until then"
    path.unlink()
    await counters.flush()
    assert counters.problem is None
    path.unlink()
    path.mkdir()
    await spend(counters, 10)
    await counters.flush()
    assert counters.problem == "the counters of limits cannot be written"
    path.rmdir()
    await counters.flush()
    assert (counters.problem, counters.pending) == (None, 0)
    await counters.aclose()
    assert MemoryCounterStore().problem is None
