"""A server's view of the tokens: fresh within a look, good through damage, empty once the file is gone."""

import asyncio
from pathlib import Path

import pytest

from gateway.tokens import cache
from gateway.tokens.cache import TokenCache
from gateway.tokens.hierarchy import TokenHierarchy
from gateway.tokens.store import StoreState, TokensDamaged
from tests.support.tokens import Clock, content, entry, store_at

SECRET = "sk-first-secret-of-many-made-up"
REVOKED = content(entry(revoked_at="2026-01-01T00:00:00Z"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "api_tokens.json"


@pytest.fixture
def clock() -> Clock:
    return Clock(1000.0)


@pytest.fixture
async def watching(path: Path, clock: Clock) -> TokenCache:
    """A watcher of a file with one active token."""
    path.write_bytes(content(entry()))
    made = TokenCache(store_at(path, clock), clock)
    await made.load()
    return made


async def test_start_up_takes_what_is_there(watching: TokenCache) -> None:
    assert len(watching.tokens) == 1
    assert watching.state is StoreState.CURRENT


async def test_start_up_without_a_file_is_empty(path: Path, clock: Clock) -> None:
    made = TokenCache(store_at(path, clock))
    await made.load()
    assert len(made.tokens) == 0


async def test_start_up_on_a_damaged_file_fails(path: Path, clock: Clock) -> None:
    path.write_bytes(b"{")
    with pytest.raises(TokensDamaged):
        await TokenCache(store_at(path, clock)).load()


async def test_a_change_reaches_the_view_and_the_listeners_once(watching: TokenCache, path: Path) -> None:
    heard: list[int] = []
    watching.subscribe(lambda tokens: heard.append(len(tokens)))
    await watching.refresh()
    assert heard == []
    path.write_bytes(content(entry(), entry("sk-second-secret-of-many")))
    await watching.refresh()
    await watching.refresh()
    assert heard == [2]
    assert len(watching.tokens) == 2


@pytest.mark.parametrize("damage", [b"", b"{", b"\xff\xfe", b'{"version": 1, "tokens": [{}]}'])
async def test_through_damage_the_last_good_view_goes_on(watching: TokenCache, path: Path, damage: bytes) -> None:
    good = watching.tokens
    path.write_bytes(damage)
    await watching.refresh()
    await watching.refresh()
    assert watching.tokens is good
    assert watching.state is StoreState.DAMAGED
    path.write_bytes(REVOKED)
    await watching.refresh()
    assert watching.state is StoreState.CURRENT
    assert watching.tokens.records[0].revoked_at is not None


async def test_damage_is_logged_once_and_so_is_its_end(
    watching: TokenCache, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    path.write_bytes(b"{")
    await watching.refresh()
    await watching.refresh()
    path.write_bytes(content(entry()))
    await watching.refresh()
    assert [line.getMessage() for line in caplog.records] == [
        "token file unusable, the last good state goes on serving",
        "token file readable again",
    ]


async def test_each_damage_is_logged_with_what_is_wrong(
    watching: TokenCache, path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """The same damage is logged again where the file was good or gone in between."""

    async def see(data: bytes) -> None:
        path.write_bytes(data)
        await watching.refresh()

    await see(b"{")
    [first] = caplog.records
    assert first.__dict__["problem"].startswith(f"{path}: line 1, column 2: ")
    await see(b"[]")
    assert caplog.records[-1].__dict__["problem"] == f"{path}: line 1: expected a JSON object, found list"
    await see(content(entry()))
    await see(b"[]")
    assert len(caplog.records) == 3
    path.unlink()
    await watching.refresh()
    clock.now += 2.01
    await watching.refresh()
    await see(b"[]")
    assert [line.getMessage() for line in caplog.records[3:]] == [
        "token file gone, no token is valid until it is back",
        "token file unusable, the last good state goes on serving",
    ]


async def test_the_end_of_damage_is_logged_with_the_number_of_tokens(
    watching: TokenCache, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    for data in (b"{", content(entry(), entry("sk-second-secret-of-many"))):
        path.write_bytes(data)
        await watching.refresh()
    assert caplog.records[-1].__dict__["tokens"] == 2


async def test_a_damaged_file_is_not_a_missing_one(watching: TokenCache, path: Path, clock: Clock) -> None:
    """The wait for a missing file begins anew after it."""
    for _ in range(2):
        path.unlink()
        await watching.refresh()
        clock.now += 1.5
        await watching.refresh()
        path.write_bytes(b"{")
        await watching.refresh()
    assert (len(watching.tokens), watching.state) == (1, StoreState.DAMAGED)


async def test_a_directory_in_its_place_is_damage(watching: TokenCache, path: Path) -> None:
    path.unlink()
    path.mkdir()
    await watching.refresh()
    assert watching.state is StoreState.DAMAGED
    assert len(watching.tokens) == 1


async def test_a_file_gone_for_a_moment_changes_nothing(watching: TokenCache, path: Path, clock: Clock) -> None:
    path.unlink()
    await watching.refresh()
    clock.now += 2.0
    await watching.refresh()
    assert len(watching.tokens) == 1
    path.write_bytes(content(entry()))
    await watching.refresh()
    path.unlink()
    clock.now += 2.0
    await watching.refresh()
    assert len(watching.tokens) == 1, "the wait begins anew"


async def test_a_file_gone_for_more_than_two_seconds_ends_every_token(
    watching: TokenCache, path: Path, clock: Clock
) -> None:
    heard: list[int] = []
    watching.subscribe(lambda tokens: heard.append(len(tokens)))
    path.unlink()
    for _ in range(4):
        await watching.refresh()
        clock.now += 2.01
    assert heard == [0]
    assert watching.state is StoreState.GONE
    path.write_bytes(content(entry()))
    await watching.refresh()
    assert watching.state is StoreState.CURRENT
    assert heard == [0, 1]


async def test_a_file_that_never_was_is_not_missed(path: Path, clock: Clock) -> None:
    made = TokenCache(store_at(path, clock), clock)
    await made.load()
    await made.refresh()
    clock.now += 10
    await made.refresh()
    assert made.state is StoreState.CURRENT


async def test_the_watcher_looks_by_itself(watching: TokenCache, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "POLL_SECONDS", 0.001)
    seen = asyncio.Event()
    watching.subscribe(lambda _view: seen.set())
    path.write_bytes(REVOKED)
    task = asyncio.create_task(watching.run())
    await asyncio.wait_for(seen.wait(), 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_read_that_began_after_the_call_serves_it_too(path: Path) -> None:
    """Many guesses of secrets share few reads."""
    path.write_bytes(content(entry()))
    store = store_at(path, Clock())
    reads = [0]
    read = store.read

    async def counted() -> TokenHierarchy:
        reads[0] += 1
        return await read()

    store.read = counted  # type: ignore[method-assign]
    made = TokenCache(store)
    await asyncio.gather(*(made.refresh() for _ in range(50)))
    assert 1 <= reads[0] <= 2
