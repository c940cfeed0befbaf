"""The token file on disk: what a read answers, what a write leaves behind, who may read it."""

import asyncio
import os
import stat
import threading
from pathlib import Path

import pytest

from gateway.audit.log import AuditLog
from gateway.storage import files
from gateway.storage.files import LockTimeout, locked, sweep
from gateway.tokens import operations
from gateway.tokens.changes import TokenSpec
from gateway.tokens.models import TokenRecord
from gateway.tokens.store import TokensMissing
from gateway.tokens.stores import json_format as codec
from gateway.tokens.stores.json_file import JsonTokenFile, StoredTokens
from gateway.tokens.stores.json_format import TokenDocument, TokensDamaged
from tests.support.tokens import BY, NOBODY, Clock, content, entry, names, record, store_at


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "api_tokens.json"


def records(stored: StoredTokens | None) -> tuple[TokenRecord, ...]:
    assert stored is not None
    return stored.tokens.records


async def write(file: JsonTokenFile, text: str = "sk-made-up-and-added-later", name: str = "added") -> None:
    """Adds a token."""
    async with file.locked() as (path, stored):
        added = (*stored.tokens.records, record(text, name=name))
        await file.replace(path, await file.encode(added, stored.unknown))


def age(path: Path) -> None:
    """The content is old enough to be taken for settled."""
    os.utime(path, (1_000_000_000, 1_000_000_000))


async def test_no_file_is_none(path: Path) -> None:
    assert (await JsonTokenFile(path).read()) is None


async def test_a_missing_file_is_told_as_such(path: Path) -> None:
    with pytest.raises(TokensMissing, match=r"^there is no token file$"):
        await store_at(path, Clock()).read()


async def test_a_write_makes_the_folder_and_the_file_for_the_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "api_tokens.json"
    before = os.umask(0)
    try:
        await write(JsonTokenFile(path), "sk-made-up-for-the-umask")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(Path(f"{path}.lock").stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize("umask", [0o777, 0o077, 0o000])
async def test_a_write_fixes_a_file_that_others_could_read(path: Path, umask: int) -> None:
    path.write_bytes(content(entry()))
    path.chmod(0o666)
    before = os.umask(umask)
    try:
        await write(JsonTokenFile(path), "sk-made-up-for-the-umask")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert names(path) == ["application", "added"]


async def test_an_unchanged_file_is_the_same_object(path: Path) -> None:
    path.write_bytes(content(entry()))
    file = JsonTokenFile(path)
    assert (await file.read()) is (await file.read())
    path.write_bytes(content(entry()))
    assert (await file.read()) is (await file.read())


async def test_a_settled_file_is_not_read_again_until_it_changes(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_bytes(content(entry()))
    age(path)
    monkeypatch.setattr("gateway.tokens.stores.json_file.SETTLED_SECONDS", -1.0)
    file = JsonTokenFile(path)
    first = await file.read()
    with monkeypatch.context() as patch:
        patch.setattr("gateway.storage.files.read_regular", None)
        assert (await file.read()) is first
    path.write_bytes(content())
    changed = await file.read()
    assert changed is not None
    assert changed.tokens.records == ()


async def test_a_change_of_the_same_length_with_the_old_times_is_seen(path: Path) -> None:
    path.write_bytes(content(entry(name="one")))
    age(path)
    file = JsonTokenFile(path)
    (await file.read())
    path.write_bytes(content(entry(name="two")))
    age(path)
    found = await file.read()
    assert found is not None
    assert found.tokens.records[0].name == "two"


async def test_a_file_that_goes_and_comes_back_is_read_again(path: Path) -> None:
    path.write_bytes(content(entry()))
    file = JsonTokenFile(path)
    first = await file.read()
    path.unlink()
    assert (await file.read()) is None
    path.write_bytes(content(entry()))
    assert records(await file.read()) == records(first)


async def test_damage_names_the_file_and_the_line(path: Path) -> None:
    path.write_bytes(b'{"version": 1,\n"tokens": [')
    with pytest.raises(TokensDamaged, match=f"{path}: line 2, column 12"):
        (await JsonTokenFile(path).read())


async def test_a_damaged_file_is_never_written_over(path: Path) -> None:
    path.write_bytes(b"{")
    with pytest.raises(TokensDamaged):
        await write(JsonTokenFile(path, lock_seconds=0.1), "sk-made-up-and-not-written")
    assert path.read_bytes() == b"{"


async def test_a_change_that_changes_nothing_writes_nothing(path: Path) -> None:
    path.write_bytes(content(entry()))
    before = path.stat()
    async with JsonTokenFile(path).locked():
        pass
    assert path.stat().st_ino == before.st_ino
    assert path.stat().st_mtime_ns == before.st_mtime_ns


async def test_a_change_that_fails_leaves_the_file(path: Path) -> None:
    path.write_bytes(content(entry()))
    with pytest.raises(ZeroDivisionError):
        async with JsonTokenFile(path).locked():
            raise ZeroDivisionError
    assert path.read_bytes() == content(entry())
    await write(JsonTokenFile(path), "sk-made-up-after-the-failure")
    assert names(path) == ["application", "added"]


async def test_a_write_keeps_a_link_to_the_file(tmp_path: Path, path: Path) -> None:
    real = tmp_path / "elsewhere" / "real.json"
    real.parent.mkdir()
    real.write_bytes(content(entry()))
    path.symlink_to(real)
    await write(JsonTokenFile(path), "sk-made-up-behind-the-link")
    assert path.is_symlink()
    assert names(real) == ["application", "added"]


async def test_a_link_that_is_pointed_elsewhere_is_followed(tmp_path: Path, path: Path) -> None:
    """So do Kubernetes' mounted secrets change, and `ln -sfn` by hand."""
    for number in ("one", "two"):
        (tmp_path / f"{number}.json").write_bytes(content(entry(name=number)))
    path.symlink_to("one.json")
    file = JsonTokenFile(path)
    (await file.read())
    path.unlink()
    path.symlink_to("two.json")
    found = await file.read()
    assert found is not None
    assert found.tokens.records[0].name == "two"


async def test_a_link_that_is_pointed_elsewhere_during_a_change_does_not_move_the_change(
    tmp_path: Path, path: Path
) -> None:
    """The file that was locked is written, not another one that nobody has locked."""
    for number in ("one", "two"):
        (tmp_path / f"{number}.json").write_bytes(content(entry(name=number)))
    path.symlink_to("one.json")
    file = JsonTokenFile(path)
    async with file.locked() as (locked_path, stored):
        path.unlink()
        path.symlink_to("two.json")
        added = record("sk-made-up-and-added-later", name="added")
        await file.replace(locked_path, await file.encode((*stored.tokens.records, added), {}))
    assert (names(tmp_path / "one.json"), names(tmp_path / "two.json")) == (["one", "added"], ["two"])
    assert [token.name for token in records(await file.read())] == ["two"]


async def test_many_changes_at_once_take_turns_however_long_that_takes(path: Path) -> None:
    """The time that a change waits for other changes of this process does not count as waiting for the lock."""
    file = JsonTokenFile(path, lock_seconds=0.05)
    await asyncio.gather(
        *(write(file, f"sk-made-up-in-a-burst-{number:04}", name=str(number)) for number in range(100))
    )
    assert names(path) == [str(number) for number in range(100)]


async def test_two_views_of_one_file_see_each_others_writes(path: Path) -> None:
    one, two = JsonTokenFile(path), JsonTokenFile(path)
    for number in range(20):
        await write((one if number % 2 else two), f"sk-made-up-number-{number:04}", name=str(number))
    assert names(path) == [str(number) for number in range(20)]
    first, second = await one.read(), await two.read()
    assert first is not None
    assert second is not None
    assert first.tokens.records == second.tokens.records


async def test_threads_lose_no_write(path: Path) -> None:
    def write_in_thread(number: int) -> None:
        asyncio.run(write(JsonTokenFile(path), f"sk-made-up-by-thread-{number:04}"))

    await asyncio.gather(*(asyncio.to_thread(write_in_thread, number) for number in range(16)))
    assert len(names(path)) == 16


async def test_a_lock_held_for_too_long_is_an_error(path: Path) -> None:
    path.write_bytes(content(entry()))
    with locked(path, 1.0), pytest.raises(LockTimeout, match=r"\.lock is held by another process for more than 0\.1 s"):
        await write(JsonTokenFile(path, lock_seconds=0.1), "sk-made-up-and-not-written")
    assert path.read_bytes() == content(entry())


async def test_what_a_killed_writer_left_is_swept_by_the_next_write(path: Path) -> None:
    for number in range(3):
        path.with_name(f".{path.name}.{number:016x}.tmp").write_bytes(b"half a fi")
    mine = path.with_name("mine.tmp")
    mine.touch()
    await write(JsonTokenFile(path), "sk-made-up-by-the-sweeper")
    assert sorted(file.name for file in path.parent.iterdir()) == [path.name, f"{path.name}.lock", "mine.tmp"]


async def test_a_cancelled_change_holds_the_lock_until_its_sweep_has_ended(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would remove the temporary file of the next writer."""
    began, may_end = threading.Event(), threading.Event()

    def slow_sweep(path: Path) -> None:
        began.set()
        may_end.wait(10)
        sweep(path)

    file = JsonTokenFile(path)
    with monkeypatch.context() as patch:
        patch.setattr(files, "sweep", slow_sweep)
        first = asyncio.create_task(write(file, name="first"))
        await asyncio.to_thread(began.wait, 10)
    first.cancel()
    second = asyncio.create_task(write(file, name="second"))
    for _ in range(50):
        await asyncio.sleep(0)
    assert not first.done()
    assert not path.exists()
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await first
    await second
    assert names(path) == ["second"]


async def test_a_file_name_with_brackets_is_swept_too(tmp_path: Path) -> None:
    stray = tmp_path / ".tokens[1].json.0000000000000000.tmp"
    stray.touch()
    await write(JsonTokenFile(tmp_path / "tokens[1].json"), "sk-made-up-by-the-sweeper")
    assert not stray.exists()


async def test_what_was_written_is_read_next(path: Path) -> None:
    file = JsonTokenFile(path)
    await write(file, "sk-made-up-and-read-back")
    own, other = await file.read(), await JsonTokenFile(path).read()
    assert own is not None
    assert other is not None
    assert own.tokens.records == other.tokens.records
    assert codec.encode(TokenDocument(own.tokens.records, own.unknown)) == path.read_bytes()


async def test_top_level_fields_of_others_are_written_again(path: Path) -> None:
    path.write_bytes(content(entry(), mine="kept"))
    await write(JsonTokenFile(path), "sk-made-up-beside-them")
    assert codec.decode(path.read_bytes()).unknown == {"mine": "kept"}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files for others")
async def test_what_root_makes_belongs_to_the_folders_owner(tmp_path: Path) -> None:
    """Else a gateway that runs as that user could not read what the command line wrote."""
    os.chown(tmp_path, NOBODY, NOBODY)
    path = tmp_path / "api_tokens.json"
    log = AuditLog(tmp_path / "data" / "audit.jsonl", Clock())
    for name in ("first", "second"):
        await operations.create(store_at(path, Clock(), log), BY, TokenSpec(name=name))
    made = [*tmp_path.iterdir(), *(tmp_path / "data").iterdir()]
    assert len(made) == 5
    assert {found.stat().st_uid for found in made} == {NOBODY}
