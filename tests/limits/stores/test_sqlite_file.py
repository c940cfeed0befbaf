"""The rows of the file of counters, and each worker's share of what is reserved."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from gateway.limits.algorithms import Charge, Concurrency, RequestsPerMinute
from gateway.limits.models import Counter
from gateway.limits.store import Reservation
from gateway.limits.stores import sqlite_file
from gateway.limits.stores.sqlite_file import COUNTERS_FILE, CounterRows, changes_of
from tests.support.limits import NOW

RPM = Charge(RequestsPerMinute("tok_a", None, 60), 1, 1)
PARALLEL = Charge(Concurrency("tok_a", None, 9), 1, 1)
US, OTHER, DEAD = 2, 4, 6


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    opened = sqlite_file.connect(tmp_path / COUNTERS_FILE, 1.0)
    yield opened
    opened.close()


def reservation(charge: Charge, amount: int, worker: int = US) -> Reservation:
    return Reservation(worker, [charge], [amount], [Counter()], NOW)


def test_the_format_of_a_row(connection: sqlite3.Connection) -> None:
    """Files of earlier versions have it: tables, columns, and the order of a counter's fields."""
    sqlite_file.write_token(connection, "tok_a", {"|tokens": Counter(1, 2, 3, 4, {5: 6}, 7)})
    [row] = connection.execute("SELECT holder, levels FROM counters").fetchall()
    assert row[0] == "tok_a"
    assert msgspec.msgpack.decode(row[1], type=dict[str, list[object]]) == {"|tokens": [1, 2, 3, 4, {5: 6}, 7]}
    assert connection.execute("PRAGMA user_version").fetchone() == (1,)
    assert connection.execute("SELECT id, seen_at FROM workers").fetchall() == []


def test_a_token_is_read_as_it_was_written_last(connection: sqlite3.Connection) -> None:
    assert sqlite_file.read_token(connection, "tok_a") == {}
    for used in (1, 2):
        sqlite_file.write_token(connection, "tok_a", {"|requests": Counter(used)})
    sqlite_file.write_token(connection, "tok_b", {})
    assert sqlite_file.read_token(connection, "tok_a") == {"|requests": Counter(2)}
    assert sqlite_file.read_all(connection) == {"tok_a": {"|requests": Counter(2)}, "tok_b": {}}


def test_a_damaged_row_is_an_error_of_the_database(connection: sqlite3.Connection) -> None:
    connection.execute("INSERT INTO counters VALUES ('tok_a', x'ff00')")
    with pytest.raises(sqlite3.DatabaseError, match="a counter is damaged"):
        sqlite_file.read_token(connection, "tok_a")
    with pytest.raises(sqlite3.DatabaseError, match="a counter is damaged"):
        sqlite_file.read_all(connection)


def test_rows_are_written_together(connection: sqlite3.Connection) -> None:
    other = RequestsPerMinute("tok_b", None, 60)
    rows = CounterRows(connection)
    assert rows.counter(RPM.limit, NOW).at == NOW
    rows.counter(RPM.limit, None).used += 60_000
    rows.counter(other, NOW + 5).used += 1
    assert sqlite_file.read_all(connection) == {}
    rows.write()
    assert sqlite_file.read_all(connection) == {
        "tok_a": {"|requests": Counter(60_000, at=NOW)},
        "tok_b": {"|requests": Counter(1, at=NOW + 5)},
    }


def test_each_worker_has_its_share() -> None:
    counter = Counter()
    for worker, amount in ((US, 2), (OTHER, 3), (US, 1)):
        sqlite_file.reserve(PARALLEL, counter, amount, worker)
    assert (counter.reserved, counter.reserved_by_worker) == (6, {US: 3, OTHER: 3})


def test_requests_are_no_share() -> None:
    counter = Counter()
    sqlite_file.reserve(RPM, counter, 1, US)
    assert counter == Counter(used=60_000)


@pytest.mark.parametrize(
    ("amount", "reserved", "shares"),
    [(1, 4, {US: 1, OTHER: 3}), (2, 3, {OTHER: 3}), (5, 3, {OTHER: 3})],
    ids=["a part", "all", "more than is there"],
)
def test_settling_takes_from_the_share_of_the_worker(
    connection: sqlite3.Connection, amount: int, reserved: int, shares: dict[int, int]
) -> None:
    """A worker that counted as dead has less than it reserved, and must not take it from others."""
    before = Counter(reserved=5, reserved_by_worker={US: 2, OTHER: 3})
    sqlite_file.write_token(connection, "tok_a", {"|parallel": before})
    sqlite_file.apply(connection, changes_of(reservation(PARALLEL, amount), [0]), US)
    assert sqlite_file.read_token(connection, "tok_a") == {
        "|parallel": Counter(reserved=reserved, reserved_by_worker=shares)
    }


def test_a_worker_without_a_share_takes_nothing(connection: sqlite3.Connection) -> None:
    sqlite_file.write_token(connection, "tok_a", {"|parallel": Counter(reserved=3, reserved_by_worker={OTHER: 3})})
    sqlite_file.apply(connection, changes_of(reservation(PARALLEL, 1), [0]), US)
    assert sqlite_file.read_token(connection, "tok_a")["|parallel"].reserved == 3


def test_the_last_share_leaves_nothing(connection: sqlite3.Connection) -> None:
    sqlite_file.write_token(connection, "tok_a", {"|parallel": Counter(reserved=1, reserved_by_worker={US: 1})})
    sqlite_file.apply(connection, changes_of(reservation(PARALLEL, 1), [0]), US)
    assert sqlite_file.read_token(connection, "tok_a") == {"|parallel": Counter()}


def test_a_request_that_was_made_is_settled_without_a_change(connection: sqlite3.Connection) -> None:
    before = {"|requests": Counter(used=60_000, at=NOW)}
    sqlite_file.write_token(connection, "tok_a", before)
    sqlite_file.apply(connection, changes_of(reservation(RPM, 1), [1]), US)
    assert sqlite_file.read_token(connection, "tok_a") == before
    sqlite_file.apply(connection, changes_of(reservation(RPM, 1), [0]), US)
    assert sqlite_file.read_token(connection, "tok_a")["|requests"].used == 0


def test_what_dead_workers_have_reserved_is_released(connection: sqlite3.Connection) -> None:
    connection.execute("INSERT INTO workers VALUES (?, 0)", (US,))
    mixed = Counter(reserved=7, reserved_by_worker={US: 2, OTHER: 1, DEAD: 4})
    alone = Counter(used=5, reserved=4, reserved_by_worker={DEAD: 4})
    alive = Counter(reserved=2, reserved_by_worker={US: 2})
    wrong = Counter(reserved=1, reserved_by_worker={DEAD: 4})
    sqlite_file.write_token(connection, "tok_a", {"mixed": mixed, "alone": alone, "none": Counter(3)})
    sqlite_file.write_token(connection, "tok_b", {"alive": alive})
    sqlite_file.write_token(connection, "tok_c", {"wrong": wrong})
    sqlite_file.release_dead_workers(connection)
    assert sqlite_file.read_all(connection) == {
        "tok_a": {
            "mixed": Counter(reserved=2, reserved_by_worker={US: 2}),
            "alone": Counter(used=5),
            "none": Counter(3),
        },
        "tok_b": {"alive": alive},
        "tok_c": {"wrong": Counter()},
    }
