"""Last-used times: merged in memory, written behind, and lost neither to a bad disk nor to a cancelled write."""

import asyncio
from collections.abc import Mapping

import pytest

from gateway.observability.metrics import Metrics
from gateway.tokens import changes, last_used
from gateway.tokens.last_used import LastUsedWriter
from gateway.tokens.models import TokenRecord, UseKey
from gateway.tokens.stores.memory import MemoryTokenStore
from gateway.tokens.uses import Use
from tests.support.tokens import BY, NOW, Clock, MemoryAuditLog, record

FIRST = UseKey("tok_1")


class SlowStore(MemoryTokenStore):
    """A store whose writes can fail, and can wait until they are let go."""

    def __init__(self) -> None:
        super().__init__(MemoryAuditLog(), Clock())
        self.put([record(id="tok_1"), record("sk-second-made-up-secret", id="tok_2")])
        self.failures = 0
        self.writes = 0
        self.began = asyncio.Event()
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def record_uses(self, uses: Mapping[UseKey, Use]) -> None:
        self.began.set()
        await self.go_on.wait()
        if self.failures:
            self.failures -= 1
            raise OSError(28, "No space left on device")
        await super().record_uses(uses)
        self.writes += 1

    async def first(self) -> TokenRecord:
        return (await self.read()).records[0]


def shown(metrics: Metrics) -> set[str]:
    """The lines of the page of metrics."""
    return set(metrics.render().decode().splitlines())


@pytest.fixture
def store() -> SlowStore:
    return SlowStore()


@pytest.fixture
def writer(store: SlowStore) -> LastUsedWriter:
    return LastUsedWriter(store, Metrics(), Clock(0.0))


async def test_uses_are_merged_and_written_once(store: SlowStore, writer: LastUsedWriter) -> None:
    for at in (NOW, NOW + 9, NOW + 5):
        writer.note(FIRST, at)
    assert len(writer.pending) == 1
    await writer.flush()
    assert ((await store.first()).usage_count, (await store.first()).last_used) == (3, NOW + 5)
    assert (store.writes, len(writer.pending)) == (1, 0)


async def test_without_uses_nothing_is_written(store: SlowStore, writer: LastUsedWriter) -> None:
    await writer.flush()
    assert store.writes == 0


async def test_uses_stay_pending_while_the_store_fails(
    store: SlowStore, writer: LastUsedWriter, caplog: pytest.LogCaptureFixture
) -> None:
    store.failures = 3
    for _ in range(3):
        writer.note(FIRST, NOW)
        await writer.flush()
        assert len(writer.pending) == 1
    assert len(caplog.records) == 1, "one message, however long it lasts"
    await writer.flush()
    assert ((await store.first()).usage_count, len(writer.pending)) == (3, 0)
    store.failures = 1
    writer.note(FIRST, NOW)
    await writer.flush()
    assert len(caplog.records) == 2, "the next failure is logged again"


@pytest.mark.parametrize("failures", [0, 1])
async def test_a_cancelled_write_loses_nothing_and_counts_nothing_twice(
    store: SlowStore, writer: LastUsedWriter, failures: int
) -> None:
    store.failures = failures
    store.go_on.clear()
    writer.note(FIRST, NOW)
    flush = asyncio.create_task(writer.flush())
    await store.began.wait()
    writer.note(FIRST, NOW + 1)
    flush.cancel()
    store.go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await flush
    await writer.drain()
    assert ((await store.first()).usage_count, (await store.first()).last_used) == (2, NOW + 1)


async def test_uses_that_come_during_a_write_wait_for_the_next_one(store: SlowStore, writer: LastUsedWriter) -> None:
    store.go_on.clear()
    writer.note(FIRST, NOW)
    flush = asyncio.create_task(writer.flush())
    await store.began.wait()
    writer.note(FIRST, NOW + 1)
    store.go_on.set()
    await flush
    assert ((await store.first()).usage_count, store.writes, len(writer.pending)) == (1, 1, 1)


async def test_the_metrics_show_what_waits_and_what_failed(store: SlowStore) -> None:
    metrics = Metrics()
    writer = LastUsedWriter(store, metrics, Clock(0.0))
    store.failures = 1
    writer.note(FIRST, NOW)
    await writer.flush()
    assert {"gateway_token_uses_waiting 1.0", "gateway_token_use_write_failures_total 1.0"} <= shown(metrics)
    await writer.flush()
    assert {"gateway_token_uses_waiting 0.0", "gateway_token_use_write_failures_total 1.0"} <= shown(metrics)


async def test_what_cannot_be_written_at_the_end_is_logged(
    store: SlowStore, writer: LastUsedWriter, caplog: pytest.LogCaptureFixture
) -> None:
    store.failures = 1
    writer.note(FIRST, NOW)
    await writer.drain()
    assert caplog.records[-1].getMessage() == "last-used times lost at shutdown"
    assert caplog.records[-1].__dict__["count"] == 1


async def test_it_writes_by_itself(store: SlowStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(last_used, "FLUSH_SECONDS", 0.001)
    writer = LastUsedWriter(store, Metrics())
    writer.note(FIRST, NOW)
    task = asyncio.create_task(writer.run())
    await asyncio.wait_for(store.began.wait(), 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await store.first()).usage_count == 1


@pytest.mark.parametrize(("seconds", "pause"), [(0.01, 0.8), (1.0, 20.0), (2.0, 30.0)])
async def test_a_slow_store_gets_a_rest(store: SlowStore, seconds: float, pause: float) -> None:
    ticks = iter([100.0, 100.0 + seconds])
    writer = LastUsedWriter(store, Metrics(), lambda: next(ticks))
    writer.note(FIRST, NOW)
    await writer.flush()
    assert writer.pause == pytest.approx(pause)


async def test_after_a_failed_write_there_is_no_longer_pause(store: SlowStore) -> None:
    ticks = iter([100.0, 101.0, 200.0, 201.0])
    writer = LastUsedWriter(store, Metrics(), lambda: next(ticks))
    writer.note(FIRST, NOW)
    await writer.flush()
    assert writer.pause == pytest.approx(20.0)
    store.failures = 1
    writer.note(FIRST, NOW)
    await writer.flush()
    assert writer.pause == last_used.FLUSH_SECONDS


async def test_the_uses_of_a_replaced_secret_keep_their_last_address(store: SlowStore, writer: LastUsedWriter) -> None:
    old = (await store.first()).hash
    async with store.transaction(BY) as tx:
        tx.apply(changes.rotate(tx.tokens, tx.tokens.records[0], "sk-another-made-up-secret", 60, tx.now))
    key = UseKey("tok_1", old)
    writer.note(key, NOW, "::1")
    writer.note(key, NOW + 1, "127.0.0.1")
    store.failures = 1
    await writer.flush()
    writer.note(key, NOW + 2, "::2")
    await writer.flush()
    [previous] = (await store.first()).previous_secrets
    assert (previous.usage_count, previous.last_used, previous.last_used_from) == (3, NOW + 2, "::2")
