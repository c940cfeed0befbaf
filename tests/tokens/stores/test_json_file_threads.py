"""Changes of tokens, their log and the look at the file go on while the event loop's own pool is busy with something else."""

import asyncio
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gateway.audit.hash_chain import Actor
from gateway.audit.log import AuditLog
from gateway.tokens import operations
from gateway.tokens.cache import TokenCache
from gateway.tokens.changes import TokenSpec
from gateway.tokens.models import UseKey
from gateway.tokens.stores.json_file import JsonTokenFile, JsonTokenStore
from gateway.tokens.uses import Use
from tests.support.tokens import Clock

BY = Actor("command line", "test", None)


@pytest.fixture
async def busy_pool() -> AsyncIterator[None]:
    """The default pool of the loop has one thread, which is blocked until the end of the test."""
    may_end = threading.Event()
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(1))
    blocking = loop.run_in_executor(None, may_end.wait, 60)
    yield
    may_end.set()
    await blocking


@pytest.mark.usefixtures("busy_pool")
async def test_a_revocation_does_not_wait_for_the_pool_of_the_event_loop(tmp_path: Path) -> None:
    def store() -> JsonTokenStore:
        audit = AuditLog(tmp_path / "data" / "audit.jsonl", Clock())
        return JsonTokenStore(JsonTokenFile(tmp_path / "api_tokens.json"), audit, Clock())

    cache = TokenCache(store())
    async with asyncio.timeout(30):
        made = await operations.create(store(), BY, TokenSpec(name="one"))
        await cache.refresh()
        assert [record.revoked_at for record in cache.tokens.records] == [None]
        await operations.revoke(store(), BY, made.record.id)
        await store().record_uses({UseKey(made.record.id): Use(3, 1_800_000_000)})
        await cache.refresh()
    (record,) = cache.tokens.records
    assert record.revoked_at is not None
    assert record.usage_count == 3
