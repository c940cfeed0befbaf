"""Last-used times: merged in memory, written behind, and lost neither to a bad disk nor to a cancelled write."""

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.observability.metrics import Metrics
from gateway.tokens import last_used as room
from gateway.tokens.cache import StoreState, TokenCache
from gateway.tokens.last_used import LastUsedWriter, UseKey, apply_uses
from gateway.tokens.models import TokenRecord
from gateway.tokens.stores.json_file import JsonTokenFile
from gateway.tokens.stores.json_format import TokenDocument
from tests.support.tokens import BY, NOW, Clock, content, entry, record, service_at


class WatchedFile(JsonTokenFile):
    """Keeps what was written, and says when."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.written: list[TokenDocument] = []
        self.was_written = threading.Event()

    def update(self, change: Callable[[TokenDocument], TokenDocument], **named: bool) -> TokenDocument:
        document = super().update(change, **named)
        self.written.append(document)
        self.was_written.set()
        return document


class Desk:
    """A recorder and its file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file = WatchedFile(path)
        self.written = self.file.written
        self.clock = Clock(0.0)
        self.metrics = Metrics()
        self.recorder = LastUsedWriter(self.file, self.metrics, self.clock)

    def token(self) -> TokenRecord:
        document = JsonTokenFile(self.path).read()
        assert document is not None
        return document.tokens[0]

    def gauge(self, name: str) -> float:
        [line] = [line for line in self.metrics.render().decode().splitlines() if line.startswith(f"{name} ")]
        return float(line.removeprefix(name))


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    path = tmp_path / "api_tokens.json"
    path.write_bytes(content(entry(id="tok_1"), entry("sk-second-made-up-secret", id="tok_2")))
    return Desk(path)


@pytest.fixture
def bad_disk(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Turns every write into "no space left", and back."""
    good = JsonTokenFile.update

    def fail(*_arguments: object, **_named: object) -> TokenDocument:
        raise OSError(28, "No space left on device")

    return lambda bad: monkeypatch.setattr(JsonTokenFile, "update", fail if bad else good)


async def test_uses_are_merged_and_written(desk: Desk) -> None:
    for at in (NOW, NOW + 9, NOW + 5):
        desk.recorder.note(UseKey("tok_1"), at)
    await desk.recorder.flush()
    assert (desk.token().usage_count, desk.token().last_used) == (3, NOW + 5)
    assert [document.tokens[0].usage_count for document in desk.written] == [3]
    assert desk.written[0].tokens[1] == record("sk-second-made-up-secret", id="tok_2")


async def test_a_later_last_use_in_the_file_stays(desk: Desk) -> None:
    desk.path.write_bytes(content(entry(id="tok_1", last_used="2099-01-01T00:00:00Z", usage_count=5)))
    desk.recorder.note(UseKey("tok_1"), NOW)
    await desk.recorder.flush()
    assert desk.token().usage_count == 6
    assert (desk.token().last_used or 0) > NOW


async def test_without_uses_nothing_is_written(desk: Desk) -> None:
    before = desk.path.stat()
    await desk.recorder.flush()
    assert desk.path.stat() == before
    assert desk.written == []


async def test_a_token_deleted_meanwhile_is_passed_over(desk: Desk) -> None:
    desk.recorder.note(UseKey("tok_1"), NOW)
    desk.recorder.note(UseKey("tok_gone"), NOW)
    await desk.recorder.flush()
    assert [token.usage_count for token in desk.written[0].tokens] == [1, 0]
    desk.recorder.note(UseKey("tok_gone"), NOW)
    before = desk.path.stat().st_ino
    await desk.recorder.flush()
    assert desk.path.stat().st_ino == before


def test_without_a_token_of_theirs_the_document_is_the_same() -> None:
    document = TokenDocument((record(id="tok_1"),))
    assert apply_uses(document, {}) is document


async def test_uses_wait_while_the_disk_is_bad(
    desk: Desk, bad_disk: Callable[[bool], None], caplog: pytest.LogCaptureFixture
) -> None:
    bad_disk(True)
    for _ in range(3):
        desk.recorder.note(UseKey("tok_1"), NOW)
        await desk.recorder.flush()
    desk.recorder.note(UseKey("tok_2"), NOW)
    assert desk.token().usage_count == 0
    assert desk.gauge("gateway_token_uses_waiting") == 1
    assert desk.gauge("gateway_token_use_write_failures_total") == 3
    assert len(caplog.records) == 1, "one line, however long it lasts"
    bad_disk(False)
    await desk.recorder.flush()
    assert [token.usage_count for token in desk.written[-1].tokens] == [3, 1]
    assert desk.gauge("gateway_token_uses_waiting") == 0
    bad_disk(True)
    desk.recorder.note(UseKey("tok_1"), NOW)
    await desk.recorder.flush()
    assert len(caplog.records) == 2, "the next trouble is news again"


async def test_uses_wait_while_the_file_is_damaged(desk: Desk) -> None:
    good = desk.path.read_bytes()
    desk.path.write_bytes(b"{")
    desk.recorder.note(UseKey("tok_1"), NOW)
    await desk.recorder.flush()
    assert desk.path.read_bytes() == b"{"
    desk.path.write_bytes(good)
    await desk.recorder.flush()
    assert desk.token().usage_count == 1


async def test_uses_wait_while_the_file_is_away_for_a_moment(desk: Desk) -> None:
    """Editors replace a file by way of a moment without it."""
    aside = desk.path.rename(desk.path.with_name("aside"))
    desk.recorder.note(UseKey("tok_1"), NOW)
    await desk.recorder.flush()
    aside.rename(desk.path)
    await desk.recorder.flush()
    assert desk.token().usage_count == 1


async def test_a_write_while_the_file_is_away_ends_no_token_and_hides_no_loss(desk: Desk) -> None:
    """Only the watcher, after two seconds, says that a file is gone: and then it must say so."""
    clock = Clock(100.0)
    cache = TokenCache(desk.file, clock)
    cache.load()
    writer = LastUsedWriter(desk.file, desk.metrics, desk.clock)
    desk.path.unlink()
    writer.note(UseKey("tok_1"), NOW)
    await writer.flush()
    assert len(cache.view) == 2
    await cache.refresh()
    clock.now += 3
    await cache.refresh()
    assert cache.state is StoreState.GONE


async def test_no_content_of_the_file_makes_uses_disappear(desk: Desk) -> None:
    """Half a surrogate pair can be read, and not be written."""
    good = desk.path.read_bytes()
    desk.path.write_bytes(content(entry(id="tok_1", metadata={"a": "\ud800"})))
    desk.recorder.note(UseKey("tok_1"), NOW)
    await desk.recorder.flush()
    desk.path.write_bytes(good)
    await desk.recorder.flush()
    assert desk.token().usage_count == 1


class SlowFile(JsonTokenFile):
    """A file whose write waits for a word, and may fail then."""

    def __init__(self, path: Path, fails: bool) -> None:
        super().__init__(path)
        self.began = threading.Event()
        self.go_on = threading.Event()
        self.fails = fails

    def update(self, change: Callable[[TokenDocument], TokenDocument], **named: bool) -> TokenDocument:
        self.began.set()
        assert self.go_on.wait(10)
        if self.fails:
            self.fails = False
            raise OSError(28, "No space left on device")
        return super().update(change, **named)


@pytest.mark.parametrize("fails", [False, True])
async def test_a_cancelled_write_loses_nothing_and_counts_nothing_twice(desk: Desk, fails: bool) -> None:
    slow = SlowFile(desk.path, fails)
    writer = LastUsedWriter(slow, desk.metrics, desk.clock)
    writer.note(UseKey("tok_1"), NOW)
    flush = asyncio.create_task(writer.flush())
    assert await asyncio.to_thread(slow.began.wait, 10)
    writer.note(UseKey("tok_1"), NOW + 1)
    flush.cancel()
    slow.go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await flush
    await writer.drain()
    assert (desk.token().usage_count, desk.token().last_used) == (2, NOW + 1)


async def test_what_cannot_be_written_at_the_end_is_said(
    desk: Desk, bad_disk: Callable[[bool], None], caplog: pytest.LogCaptureFixture
) -> None:
    bad_disk(True)
    desk.recorder.note(UseKey("tok_1"), NOW)
    await desk.recorder.drain()
    assert caplog.records[-1].getMessage() == "last-used times lost at shutdown"


async def test_it_writes_by_itself(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "FLUSH_SECONDS", 0.001)
    writer = LastUsedWriter(desk.file, desk.metrics)
    writer.note(UseKey("tok_1"), NOW)
    task = asyncio.create_task(writer.run())
    assert await asyncio.to_thread(desk.file.was_written.wait, 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert desk.token().usage_count == 1


async def test_a_slow_disk_is_given_a_rest(desk: Desk) -> None:
    ticks = iter([0.0, 1.0])
    writer = LastUsedWriter(desk.file, desk.metrics, lambda: next(ticks))
    writer.note(UseKey("tok_1"), NOW)
    await writer.flush()
    assert writer._pause == 1.0 * room.DUTY_CYCLE


async def test_uses_and_changes_by_hand_do_not_overwrite_each_other(desk: Desk) -> None:
    by_hand = service_at(desk.path, Clock())
    for number in range(10):
        desk.recorder.note(UseKey("tok_1"), NOW)
        await asyncio.gather(
            desk.recorder.flush(), asyncio.to_thread(by_hand.revoke, BY, ["tok_1", "tok_2"][number % 2])
        )
    assert [(token.usage_count, token.revoked_at) for token in by_hand.view().records] == [(10, NOW), (0, NOW)]
