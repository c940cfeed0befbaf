"""SQLite files of the gateway: their mode, how they are opened, and the version of their schema."""

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

from gateway.storage import files

_MAKING_SECONDS = 10.0


class WrongVersion(sqlite3.DatabaseError):
    """The file was written by a newer version of the gateway."""


def connect(path: Path, schema: str, version: int, busy_seconds: float) -> sqlite3.Connection:
    """Opens a file, and creates it with mode 0600 if it does not exist. Transactions must be begun explicitly.

    ``schema`` is SQL that creates the tables; it runs where the file has an older version than ``version``. A statement waits at
    most ``busy_seconds`` for another process.

    WAL mode lets readers go on while somebody writes. Without ``synchronous=FULL`` a power cut may undo the last transactions,
    but does not damage the file; a killed process loses nothing.

    Raises OSError, sqlite3.Error, WrongVersion.
    """
    files.make_folder(path.parent)
    if not path.exists():
        # Never for a file that is there: closing it would end the locks that this process's other connections hold on it.
        with files.locked(path, _MAKING_SECONDS):
            if not path.exists():
                os.close(files.make_file(path, os.O_RDWR | os.O_EXCL))
    connection = sqlite3.connect(path, timeout=busy_seconds, isolation_level=None, check_same_thread=False)
    try:
        found = _version(connection)
        if found > version:
            raise WrongVersion(f"{path} was written by a newer version of the gateway")
        if found < version:
            with files.locked(path, _MAKING_SECONDS):  # WAL mode is not waited for, it is refused
                _prepare(connection, schema, version)
        connection.execute("PRAGMA synchronous = NORMAL")
    except BaseException:
        connection.close()
        raise
    return connection


def is_moved(path: Path, inode: int) -> bool:
    """Returns whether the path leads to another file than that with this inode, or to none. Raises OSError."""
    try:
        return path.stat().st_ino != inode
    except FileNotFoundError:
        return True


class ReopeningConnection:
    """A connection that is opened at its first use, and again when its path leads to another file.

    Made before a fork or after it, it belongs to the process that uses it first. A file that was replaced or removed must not be
    written any more: nobody would find what is in it.
    """

    def __init__(self, path: Path, connect: Callable[[], sqlite3.Connection]) -> None:
        """``connect`` opens the file at ``path``."""
        self.path = path
        self._connect = connect
        self._connection: sqlite3.Connection | None = None
        self.inode = 0
        """The inode of the file that is open; 0 while none is."""
        self.openings = 0
        """How often a file was opened. Each may be another one, although a new file can have the inode of a removed one."""

    @property
    def is_moved(self) -> bool:
        """Whether a file is open to which the path does not lead any more. Raises OSError where the path cannot be read."""
        if self._connection is None:
            return False
        return is_moved(self.path, self.inode)

    def get(self) -> sqlite3.Connection:
        """Returns the connection to the file at the path now. Raises OSError, sqlite3.Error."""
        if self.is_moved:
            self.close()
        return self._open()

    def get_for_inode(self, inode: int) -> sqlite3.Connection:
        """Returns the connection, and opens the file anew only where the open one has another inode than this.

        It asks the file system nothing while the inode is the same, so it can be used on an event loop.

        Raises OSError, sqlite3.Error.
        """
        if self.inode != inode:
            self.close()
        return self._open()

    def close(self) -> None:
        """Closes the connection, which rolls an open transaction back. The next use opens it again."""
        connection, self._connection, self.inode = self._connection, None, 0
        if connection is not None:
            connection.close()

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            connection = self._connect()
            try:
                self.inode = self.path.stat().st_ino
            except OSError:
                connection.close()
                raise
            self._connection = connection
            self.openings += 1
        return self._connection


def _prepare(connection: sqlite3.Connection, schema: str, version: int) -> None:
    if _version(connection) < version:  # no other process was faster
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(f"BEGIN IMMEDIATE;\n{schema}\nPRAGMA user_version = {version};\nCOMMIT;")


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])
