"""A token file that cannot grow any more, and a disk that is full: tokens can still be revoked and deleted."""

import errno
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from gateway.audit.hash_chain import Actor, read
from gateway.audit.log import AuditLog
from gateway.core.threads import Threads
from gateway.storage import files
from gateway.tokens import operations
from gateway.tokens.changes import TokenSpec
from gateway.tokens.models import UseKey
from gateway.tokens.store import TokenStoreFull
from gateway.tokens.stores.json_file import JsonTokenFile, JsonTokenStore
from gateway.tokens.uses import Use
from tests.support.tokens import Clock, MemoryAuditLog

BY = Actor("command line", "test", None)
MAX_BYTES = 16 * 1024


async def test_what_could_not_be_read_again_is_not_written_and_revocations_have_space_left(tmp_path: Path) -> None:
    path, audit = tmp_path / "api_tokens.json", MemoryAuditLog()
    store = JsonTokenStore(JsonTokenFile(path, max_bytes=MAX_BYTES), audit, Clock())
    made = []
    with pytest.raises(TokenStoreFull, match="Delete tokens that have ended"):
        while len(made) < 100:
            made.append(await operations.create(store, BY, TokenSpec(name=f"child {len(made)}")))
    assert MAX_BYTES * 12 // 16 < path.stat().st_size <= MAX_BYTES * 14 // 16
    assert len(audit.events) == len(made), "a refusal must not fill the log"
    with pytest.raises(TokenStoreFull):
        await operations.rotate(store, BY, made[0].record.id, 3600)
    await store.record_uses({UseKey(one.record.id): Use(3, 1_800_000_000) for one in made[:5]})
    for one in made:
        await operations.revoke(store, BY, one.record.id)
    assert path.stat().st_size <= MAX_BYTES
    tokens = await JsonTokenFile(path, max_bytes=MAX_BYTES).read()
    assert tokens is not None
    assert all(record.revoked_at is not None for record in tokens.tokens.records)
    for one in made[:10]:
        await operations.delete(store, BY, one.record.id)
    await operations.create(store, BY, TokenSpec(name="there is space again"))


async def test_a_token_that_has_not_ended_can_be_deleted_from_a_full_file(tmp_path: Path) -> None:
    path, audit = tmp_path / "api_tokens.json", MemoryAuditLog()
    store = JsonTokenStore(JsonTokenFile(path, max_bytes=MAX_BYTES), audit, Clock())
    parent = (await operations.create(store, BY, TokenSpec(name="parent"))).record
    with pytest.raises(TokenStoreFull):
        for number in range(100):
            await operations.create(store, BY, TokenSpec(name=f"child {number}", parent_id=parent.id))
    children = len((await store.read()).records) - 1
    await operations.delete(store, BY, parent.id)
    assert [record.revoked_at is not None for record in (await store.read()).records] == [True] * children


class FullDisk:
    """A disk on which nothing but the reserve is left: a write succeeds once the reserve of its file is gone."""

    def __init__(self, patched: pytest.MonkeyPatch, reserves: list[Path]) -> None:
        self._reserves = reserves
        real_open = files.open_async

        def open_async(
            threads: Threads, path: Path, mode: str, opener: Callable[[str, int], int], buffering: int = -1
        ) -> AbstractAsyncContextManager[Any]:
            if mode != "rb":
                self._require_space(path.parent)
            return real_open(threads, path, mode, opener, buffering)

        patched.setattr(files, "open_async", open_async)

    def _require_space(self, folder: Path) -> None:
        if any(reserve.exists() for reserve in self._reserves if reserve.parent == folder):
            raise OSError(errno.ENOSPC, "No space left on device")


async def test_on_a_full_disk_a_token_can_be_revoked_and_nothing_else_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = JsonTokenFile(tmp_path / "api_tokens.json")
    audit = AuditLog(tmp_path / "data" / "audit.jsonl", Clock())
    store = JsonTokenStore(file, audit, Clock())
    made = await operations.create(store, BY, TokenSpec(name="member"))
    assert file.reserve.keep()
    assert audit.reserve.keep()
    FullDisk(monkeypatch, [file.reserve.path, audit.reserve.path])
    for change in (
        operations.create(store, BY, TokenSpec(name="another")),
        operations.rotate(store, BY, made.record.id, 0),
        store.record_uses({UseKey(made.record.id): Use(1, 1_800_000_000)}),
    ):
        with pytest.raises(OSError, match="No space"):
            await change
    assert file.reserve.path.exists()
    await operations.revoke(store, BY, made.record.id)
    (record,) = (await store.read()).records
    assert record.revoked_at is not None
    assert [read(line.rstrip())["action"] for line in audit.lines()] == ["token.create", "token.revoke"]
    assert not file.reserve.path.exists()
    assert file.reserve.keep()
    assert audit.reserve.keep()
