"""The gateway's SQLite files: their mode and version, and a connection that follows its path to another file."""

import sqlite3
from pathlib import Path

import pytest

from gateway.storage import sqlite
from gateway.storage.sqlite import ReopeningConnection, WrongVersion

SCHEMA = "CREATE TABLE IF NOT EXISTS numbers (number INTEGER PRIMARY KEY);"


def connect(path: Path, version: int = 1) -> sqlite3.Connection:
    return sqlite.connect(path, SCHEMA, version, busy_seconds=1.0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "numbers.sqlite"


@pytest.fixture
def connection(path: Path) -> ReopeningConnection:
    return ReopeningConnection(path, lambda: connect(path))


def add(connection: sqlite3.Connection, number: int) -> None:
    connection.execute("INSERT INTO numbers VALUES (?)", (number,))


def numbers_in(path: Path) -> list[int]:
    connection = connect(path)
    try:
        return [number for (number,) in connection.execute("SELECT number FROM numbers ORDER BY number")]
    finally:
        connection.close()


def test_a_new_file_is_for_its_owner_alone_and_in_wal_mode(path: Path) -> None:
    connection = connect(path)
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert connection.execute("PRAGMA user_version").fetchone() == (1,)
    assert connection.execute("PRAGMA synchronous").fetchone() == (1,)
    connection.close()


def test_a_file_that_exists_keeps_what_is_in_it(path: Path) -> None:
    first = connect(path)
    add(first, 1)
    first.close()
    assert numbers_in(path) == [1]


def test_an_older_file_gets_the_new_schema(path: Path) -> None:
    first = connect(path)
    add(first, 1)
    first.close()
    newer = connect(path, version=2)
    assert newer.execute("PRAGMA user_version").fetchone() == (2,)
    assert newer.execute("SELECT number FROM numbers").fetchall() == [(1,)]
    newer.close()


def test_a_newer_file_is_refused(path: Path) -> None:
    connect(path, version=2).close()
    with pytest.raises(WrongVersion, match="newer version of the gateway"):
        connect(path)


def test_a_file_that_is_no_database_is_refused(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"text that is long enough to be read as a header" * 10)
    with pytest.raises(sqlite3.DatabaseError):
        connect(path)


def test_a_reopening_connection_opens_at_its_first_use(connection: ReopeningConnection, path: Path) -> None:
    assert (connection.inode, connection.is_moved, path.exists()) == (0, False, False)
    opened = connection.get()
    assert connection.inode == path.stat().st_ino
    assert connection.get() is opened
    assert not connection.is_moved
    connection.close()
    assert connection.inode == 0


def test_it_opens_again_after_it_was_closed(connection: ReopeningConnection, path: Path) -> None:
    add(connection.get(), 1)
    connection.close()
    connection.close()
    add(connection.get(), 2)
    connection.close()
    assert numbers_in(path) == [1, 2]


@pytest.mark.parametrize("is_replaced", [True, False])
def test_it_follows_its_path_to_another_file(connection: ReopeningConnection, path: Path, is_replaced: bool) -> None:
    add(connection.get(), 1)
    path.rename(path.with_name("moved"))
    if is_replaced:
        other = connect(path)
        add(other, 7)
        other.close()
    assert connection.is_moved
    add(connection.get(), 2)
    assert not connection.is_moved
    connection.close()
    assert numbers_in(path) == ([2, 7] if is_replaced else [2])


def test_for_a_known_inode_it_stays_with_its_file(connection: ReopeningConnection, path: Path) -> None:
    opened = connection.get_for_inode(0)
    inode = connection.inode
    path.rename(path.with_name("moved"))
    assert connection.get_for_inode(inode) is opened
    connect(path).close()
    assert connection.get_for_inode(path.stat().st_ino) is not opened
    assert connection.inode == path.stat().st_ino
    connection.close()


def test_a_file_that_vanishes_while_it_is_opened_leaves_no_connection(path: Path) -> None:
    opened: list[sqlite3.Connection] = []

    def connect_and_remove() -> sqlite3.Connection:
        opened.append(connect(path))
        path.unlink()
        return opened[0]

    connection = ReopeningConnection(path, connect_and_remove)
    with pytest.raises(FileNotFoundError):
        connection.get()
    assert connection.inode == 0
    with pytest.raises(sqlite3.ProgrammingError):
        opened[0].execute("SELECT 1")


def test_a_path_that_cannot_be_looked_at_is_an_error(connection: ReopeningConnection, path: Path) -> None:
    connection.get()
    path.parent.rename(path.parent.with_name("elsewhere"))
    path.parent.write_bytes(b"")
    with pytest.raises(NotADirectoryError):
        _ = connection.is_moved
    connection.close()
