"""The token store in memory: what it has beyond the contract of every store."""

import asyncio
from collections.abc import Sequence

import pytest

from gateway.audit.hash_chain import AuditEvent
from gateway.tokens import changes
from gateway.tokens.models import UseKey
from gateway.tokens.store import TokensMissing
from gateway.tokens.stores.memory import MemoryTokenStore
from gateway.tokens.uses import Use
from tests.support.tokens import BY, NOW, Clock, MemoryAuditLog, record
from tests.tokens.test_hierarchy import token


class SlowAuditLog(MemoryAuditLog):
    """An audit log whose writes wait until they are allowed to go on."""

    def __init__(self) -> None:
        super().__init__()
        self.has_begun = asyncio.Event()
        self.may_go_on = asyncio.Event()

    async def append(self, entries: Sequence[AuditEvent]) -> None:
        self.has_begun.set()
        await self.may_go_on.wait()
        await super().append(entries)


@pytest.fixture
async def audit() -> SlowAuditLog:
    return SlowAuditLog()


@pytest.fixture
def store(audit: SlowAuditLog) -> MemoryTokenStore:
    return MemoryTokenStore(audit, Clock())


async def add(store: MemoryTokenStore, name: str) -> None:
    async with store.transaction(BY) as tx:
        tx.apply(changes.create(tx.tokens, token(name), tx.now))


async def names(store: MemoryTokenStore) -> list[str]:
    return [found.name for found in (await store.read()).records]


async def test_put_replaces_all_tokens_without_the_audit_log(store: MemoryTokenStore, audit: SlowAuditLog) -> None:
    store.put([token("a"), token("b")])
    assert await names(store) == ["a", "b"]
    store.put([token("c")])
    assert (await names(store), audit.events) == (["c"], [])
    store.put([])
    assert await names(store) == [], "a store without tokens is not a missing one"


async def test_a_removed_store_is_missing_until_something_is_put(store: MemoryTokenStore) -> None:
    store.put([token("a")])
    store.remove()
    with pytest.raises(TokensMissing, match=r"^there are no tokens in memory$"):
        await store.read()
    with pytest.raises(TokensMissing):
        await store.record_uses({UseKey("tok_a"): Use(1, NOW)})
    store.put([token("b")])
    assert await names(store) == ["b"]


async def test_transactions_take_turns_and_readers_do_not_wait(store: MemoryTokenStore, audit: SlowAuditLog) -> None:
    store.put([token("a")])
    first = asyncio.create_task(add(store, "b"))
    await audit.has_begun.wait()
    second = asyncio.create_task(add(store, "c"))
    assert await names(store) == ["a"], "what is not logged yet is not stored"
    audit.may_go_on.set()
    await asyncio.gather(first, second)
    assert await names(store) == ["a", "b", "c"], "the second change is made to the tokens that the first one left"
    assert audit.summary() == [("token.create", "b"), ("token.create", "c")]


async def test_a_cancelled_change_that_is_being_logged_is_made(store: MemoryTokenStore, audit: SlowAuditLog) -> None:
    store.put([token("a")])
    change = asyncio.create_task(add(store, "b"))
    await audit.has_begun.wait()
    change.cancel()
    audit.may_go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await change
    assert (await names(store), audit.summary()) == (["a", "b"], [("token.create", "b")])


async def test_uses_wait_for_a_change_and_are_added_to_its_tokens(store: MemoryTokenStore, audit: SlowAuditLog) -> None:
    store.put([record(id="tok_1")])
    change = asyncio.create_task(add(store, "b"))
    await audit.has_begun.wait()
    uses = asyncio.create_task(store.record_uses({UseKey("tok_1"): Use(2, NOW)}))
    audit.may_go_on.set()
    await asyncio.gather(change, uses)
    found = (await store.read()).records
    assert [(one.name, one.usage_count) for one in found] == [("application", 2), ("b", 0)]
