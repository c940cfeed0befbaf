"""Uses beside a large token file: read at once, written into it later, counted once, and never a reason to refuse a token."""

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.storage.files import Signature, signature
from gateway.tokens import operations
from gateway.tokens.hierarchy import TokenHierarchy
from gateway.tokens.models import TokenRecord, UseKey
from gateway.tokens.stores import use_journal
from gateway.tokens.stores.json_file import JsonTokenFile, JsonTokenStore
from gateway.tokens.stores.use_journal import FOLD_SECONDS, UseJournal, journal_path
from gateway.tokens.uses import Use
from tests.support.disk import full_disk
from tests.support.tokens import BY, NOW, Clock, MemoryAuditLog, content, entry, record

A, B = UseKey("tok_a"), UseKey("tok_b")


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A token file that counts as large."""
    monkeypatch.setattr(use_journal, "REWRITE_BYTES", 10)
    path = tmp_path / "api_tokens.json"
    path.write_bytes(content(entry("sk-made-up-a", id="tok_a"), entry("sk-made-up-b", id="tok_b")))
    os.utime(path, (NOW, NOW))
    return path


def open_store(path: Path, clock: Clock | None = None) -> JsonTokenStore:
    return JsonTokenStore(JsonTokenFile(path, journal=UseJournal(clock or Clock())), MemoryAuditLog(), Clock())


@pytest.fixture
def store(path: Path) -> Iterator[JsonTokenStore]:
    yield open_store(path)


async def used(store: JsonTokenStore, token_id: str = "tok_a") -> tuple[int, int | None]:
    found = (await store.read()).find_by_id(token_id)
    assert found is not None
    return found.usage_count, found.last_used


def in_file(path: Path) -> list[int]:
    return [token.get("usage_count", 0) for token in json.loads(path.read_bytes())["tokens"]]


async def test_uses_are_seen_by_every_process_and_the_file_stays_as_it_is(path: Path, store: JsonTokenStore) -> None:
    other = open_store(path)
    before: Signature = signature(path)
    assert await used(other) == (0, None)
    await store.record_uses({A: Use(2, NOW), B: Use(1, NOW + 1)})
    await other.record_uses({A: Use(3, NOW + 5)})
    for each in (store, other, open_store(path)):
        assert (await used(each), await used(each, "tok_b")) == ((5, NOW + 5), (1, NOW + 1))
    assert signature(path) == before
    assert await store.read() is await store.read()
    assert journal_path(path).stat().st_mode & 0o777 == 0o600


async def test_the_next_change_of_a_token_takes_the_uses_along(path: Path, store: JsonTokenStore) -> None:
    other = open_store(path)
    await store.record_uses({A: Use(2, NOW)})
    assert await used(other) == (2, NOW)
    await change(other)
    assert (in_file(path), journal_path(path).exists()) == ([2, 0], False)
    await store.record_uses({A: Use(1, NOW + 9)})
    for each in (store, other, open_store(path)):
        assert await used(each) == (3, NOW + 9)


async def change(store: JsonTokenStore) -> None:
    await operations.revoke(store, BY, "tok_b")


@pytest.mark.parametrize(("later", "size"), [(FOLD_SECONDS + 1, 10**9), (0.0, 10)], ids=["old", "large"])
async def test_an_old_or_large_journal_is_written_into_the_file(
    path: Path, monkeypatch: pytest.MonkeyPatch, later: float, size: int
) -> None:
    clock = Clock()
    store = open_store(path, clock)
    await store.record_uses({A: Use(2, NOW)})
    assert in_file(path) == [0, 0]
    clock.now += later
    monkeypatch.setattr(use_journal, "FOLD_BYTES", size)
    await store.record_uses({A: Use(1, NOW)})
    assert (in_file(path), journal_path(path).exists()) == ([3, 0], False)


async def test_a_small_file_has_its_uses_at_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(use_journal, "REWRITE_BYTES", 10**6)
    store = open_store(path)
    await store.record_uses({A: Use(2, NOW)})
    assert (in_file(path), journal_path(path).exists()) == ([2, 0], False)


async def test_uses_count_once_whenever_a_writer_dies(path: Path) -> None:
    """Before the token file is replaced, and between that and the removal of the journal."""
    journal, before = UseJournal(Clock()), path.read_bytes()
    await open_store(path).record_uses({A: Use(2, NOW)})
    lines = journal_path(path).read_bytes()
    await open_store(path).record_uses({A: Use(1, NOW)})
    await change(open_store(path))
    after = path.read_bytes()
    journal_path(path).write_bytes(lines)
    journal.note_content(path, hashlib.sha256(after).digest())
    assert await used(open_store(path)) == (3, NOW)
    path.write_bytes(before)
    assert await used(open_store(path)) == (2, NOW)


@pytest.mark.parametrize(
    "line",
    [
        b"\xff\xfe", b"[]", b"{", b'["tok_a",null,0,1,null]', b'["tok_a",null,1,-1,null]', b'["tok_a",null,1,9e99,null]',
        b'["tok_a",null,1,99999999999999,null]', b'["tok_a",null,99999999999999,1,null]', b'["tok_a",null,1,1,null,"active"]',
        b'{"revoked_at": null}', b'{"folded_into": 5}',
    ],
)  # fmt: skip
async def test_damaged_lines_are_reported_and_change_nothing(
    path: Path, caplog: pytest.LogCaptureFixture, line: bytes
) -> None:
    journal_path(path).write_bytes(line + b"\n" + b'["tok_a",null,4,5,null]\n["tok_gone",null,1,1,null]\n')
    store = open_store(path)
    assert await used(store) == (4, 5)
    assert "journal of last-used times is damaged" in caplog.text
    assert len((await store.read()).records) == 2
    await store.record_uses({A: Use(1, NOW)})
    assert in_file(path) == [5, 0]
    assert not journal_path(path).exists()
    assert line in path.with_name("api_tokens.json.uses.damaged").read_bytes()


async def test_a_line_that_was_not_written_to_its_end_costs_that_line_alone(path: Path, store: JsonTokenStore) -> None:
    await store.record_uses({A: Use(2, NOW)})
    with journal_path(path).open("ab") as file:
        file.write(b'["tok_a",null,7')
    assert await used(store) == (2, NOW)
    await store.record_uses({A: Use(1, NOW + 1)})
    assert await used(store) == (3, NOW + 1)
    assert await used(open_store(path)) == (3, NOW + 1)


@pytest.mark.parametrize("kind", ["folder", "pipe", "link", "huge"])
async def test_what_is_no_journal_is_set_aside(
    path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    journal = journal_path(path)
    match kind:
        case "folder":
            journal.mkdir()
        case "pipe":
            os.mkfifo(journal)
        case "link":
            journal.symlink_to(path)
        case _:
            monkeypatch.setattr(use_journal, "_MAX_BYTES", 20)
            journal.write_bytes(b"x" * 21)
    store = open_store(path)
    assert await used(store) == (0, None)
    assert "journal of last-used times is damaged" in caplog.text
    await store.record_uses({A: Use(1, NOW)})
    assert path.with_name("api_tokens.json.uses.damaged").lstat()
    if kind != "huge":
        assert await used(store) == (1, NOW)


async def test_a_full_disk_leaves_no_part_of_a_line(path: Path, store: JsonTokenStore) -> None:
    await store.record_uses({A: Use(2, NOW)})
    before = journal_path(path).read_bytes()
    with full_disk(), pytest.raises(OSError, match="too large"):
        await store.record_uses({A: Use(1, NOW)})
    assert journal_path(path).read_bytes() == before
    await store.record_uses({A: Use(1, NOW)})
    assert await used(store) == (3, NOW)


async def test_a_journal_that_somebody_removes_is_begun_anew(path: Path, store: JsonTokenStore) -> None:
    await store.record_uses({A: Use(2, NOW)})
    assert await used(store) == (2, NOW)
    journal_path(path).unlink()
    assert await used(store) == (2, NOW)
    await store.record_uses({A: Use(1, NOW + 1)})
    assert await used(store) == (3, NOW + 1)


def test_uses_of_replaced_secrets_are_kept_apart(path: Path) -> None:
    journal, old = UseJournal(Clock()), UseKey("tok_a", "ab" * 32)
    assert journal.append(path, {A: Use(1, NOW), old: Use(2, NOW + 1, "192.0.2.7")})
    assert journal.append(path, {old: Use(1, NOW + 2, "::1")})
    assert journal.read_new(path, b"") == {A: Use(1, NOW), old: Use(3, NOW + 2, "::1")}
    assert journal.read_new(path, b"") == {}


def test_a_hierarchy_with_other_records_is_the_same_but_for_them() -> None:
    first, second = record("sk-1", id="tok_1"), record("sk-2", id="tok_2")
    before = TokenHierarchy([first, second])
    changed: TokenRecord = record("sk-1", id="tok_1", usage_count=5)
    after = before.with_records({"tok_1": changed})
    assert (after.records, before.records) == ((changed, second), (first, second))
    assert after.find_by_id("tok_1") is changed
    found = after.find_by_digest(first.hash)
    assert found is not None
    assert found.record is changed
