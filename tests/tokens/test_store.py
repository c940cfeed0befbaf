"""The contract of a token store, for every implementation."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from gateway.audit.hash_chain import AuditEvent
from gateway.storage import files
from gateway.tokens import changes
from gateway.tokens.hierarchy import TokenHierarchy
from gateway.tokens.models import UseKey
from gateway.tokens.store import TokensMissing, TokenStore
from gateway.tokens.stores.memory import MemoryTokenStore
from gateway.tokens.uses import Use
from tests.support.tokens import BY, NOW, Clock, MemoryAuditLog, record, store_at
from tests.tokens.test_hierarchy import token


class SwitchedAuditLog(MemoryAuditLog):
    """An audit log whose disk can be full."""

    is_full = False

    async def append(self, entries: Sequence[AuditEvent]) -> None:
        if self.is_full:
            raise OSError(28, "No space left on device")
        await super().append(entries)


@pytest.fixture
def audit() -> SwitchedAuditLog:
    return SwitchedAuditLog()


@pytest.fixture(params=["json_file", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path, audit: SwitchedAuditLog) -> TokenStore:
    if request.param == "memory":
        return MemoryTokenStore(audit, Clock())
    return store_at(tmp_path / "api_tokens.json", Clock(), audit)


@pytest.fixture
def break_writes(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    async def fail(*_arguments: object) -> None:
        raise OSError(5, "Input/output error")

    def put(*_arguments: object) -> None:
        raise OSError(5, "Input/output error")

    def apply() -> None:
        monkeypatch.setattr(files, "replace", fail)
        monkeypatch.setattr(MemoryTokenStore, "put", put)

    return apply


async def add(store: TokenStore, *names: str) -> None:
    async with store.transaction(BY) as tx:
        for name in names:
            tx.apply(changes.create(tx.tokens, token(name), tx.now))


def names(tokens: TokenHierarchy) -> list[str]:
    return [found.name for found in tokens.records]


async def test_a_missing_store_is_an_error_until_something_is_stored(store: TokenStore) -> None:
    with pytest.raises(TokensMissing):
        await store.read()
    with pytest.raises(TokensMissing):
        await store.record_uses({UseKey("tok_a"): Use(1, NOW)})
    with pytest.raises(TokensMissing):
        async with store.transaction(BY, may_create=False):
            pytest.fail("the block must not run")
    await add(store, "a")
    assert names(await store.read()) == ["a"]


async def test_unchanged_tokens_are_the_same_object(store: TokenStore) -> None:
    await add(store, "a")
    first = await store.read()
    assert await store.read() is first
    await store.record_uses({UseKey("tok_gone"): Use(1, NOW)})
    assert await store.read() is first
    await store.record_uses({UseKey("tok_a"): Use(2, NOW)})
    assert await store.read() is not first
    assert (await store.read()).records[0].usage_count == 2


async def test_a_transaction_sees_the_newest_tokens_and_the_time(store: TokenStore) -> None:
    await add(store, "a")
    async with store.transaction(BY) as tx:
        assert (names(tx.tokens), tx.now) == (["a"], NOW)
        deleted = changes.delete(tx.tokens, tx.tokens.records[0], tx.now)
        tx.apply(deleted)
        assert names(tx.tokens) == ["a"], "its own changes come with its end"
        assert tx.change_of(tx.tokens.records[0]) == deleted[0]
        assert tx.change_of(token("b")) == ("", token("b"), token("b"))
    assert names(await store.read()) == []


async def test_changes_are_logged_before_they_are_stored(store: TokenStore, audit: SwitchedAuditLog) -> None:
    await add(store, "a", "b")
    assert audit.summary() == [("token.create", "a"), ("token.create", "b")]
    assert audit.events[0].actor == BY
    assert "hash" not in audit.events[0].changes


async def test_without_changes_nothing_is_logged_or_stored(store: TokenStore, audit: SwitchedAuditLog) -> None:
    async with store.transaction(BY):
        pass
    assert audit.events == []
    with pytest.raises(TokensMissing):
        await store.read()


async def test_a_block_that_raises_changes_nothing(store: TokenStore, audit: SwitchedAuditLog) -> None:
    await add(store, "a")
    with pytest.raises(ZeroDivisionError):
        async with store.transaction(BY) as tx:
            tx.apply(changes.create(tx.tokens, token("b"), tx.now))
            raise ZeroDivisionError
    assert (names(await store.read()), len(audit.events)) == (["a"], 1)
    await add(store, "c")


async def test_what_cannot_be_logged_is_not_stored(store: TokenStore, audit: SwitchedAuditLog) -> None:
    await add(store, "a")
    audit.is_full = True
    with pytest.raises(OSError, match="No space"):
        await add(store, "b")
    assert (names(await store.read()), len(audit.events)) == (["a"], 1)


async def test_what_was_logged_and_cannot_be_stored_is_logged_as_failed(
    store: TokenStore, audit: SwitchedAuditLog, break_writes: Callable[[], None]
) -> None:
    await add(store, "a")
    break_writes()
    with pytest.raises(OSError, match="Input/output"):
        await add(store, "b")
    assert audit.summary()[1:] == [("token.create", "b"), ("token.create.failed", "b")]
    assert names(await store.read()) == ["a"]


async def test_many_transactions_at_once_lose_nothing(store: TokenStore) -> None:
    """More of them than there are threads: none may wait in a thread for another one's end."""
    await asyncio.gather(*(add(store, f"t{number}") for number in range(40)))
    assert sorted(names(await store.read())) == sorted(f"t{number}" for number in range(40))


async def test_a_cancelled_block_changes_nothing_and_leaves_no_lock(store: TokenStore) -> None:
    began = asyncio.Event()

    async def wait() -> None:
        async with store.transaction(BY) as tx:
            tx.apply(changes.create(tx.tokens, token("b"), tx.now))
            began.set()
            await asyncio.Event().wait()

    waiting = asyncio.create_task(wait())
    await began.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await add(store, "a")
    assert names(await store.read()) == ["a"]


async def test_a_replaced_secret_keeps_its_uses(store: TokenStore) -> None:
    first = record(id="tok_1")
    async with store.transaction(BY) as tx:
        tx.apply(changes.create(tx.tokens, first, tx.now))
    async with store.transaction(BY) as tx:
        tx.apply(changes.rotate(tx.tokens, first, "sk-another-made-up-secret", 60, tx.now))
    await store.record_uses({UseKey("tok_1", first.hash): Use(1, NOW + 1, "::1")})
    assert (await store.read()).records[0].previous_secrets[0].last_used_from == "::1"
