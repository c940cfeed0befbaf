"""SQLite files of our own: who may read them, how they are opened, which version they have."""

import os
import sqlite3
from pathlib import Path

from gateway.storage import files

_MAKING_SECONDS = 10.0


class WrongVersion(sqlite3.DatabaseError):
    """The file is of a newer gateway."""


def connect(path: Path, schema: str, version: int, busy_seconds: float) -> sqlite3.Connection:
    """Open a file, making it for its owner alone where it is not there. Transactions are begun by hand.

    WAL lets readers go on while somebody writes. Without ``synchronous=FULL`` a power cut may take the last transactions,
    never the file's wholeness; a killed process takes nothing.

    Raises OSError, sqlite3.Error.
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
    """Whether the path leads to another file now, or to none: what is written to the old one nobody would find."""
    try:
        return path.stat().st_ino != inode
    except FileNotFoundError:
        return True


def _prepare(connection: sqlite3.Connection, schema: str, version: int) -> None:
    if _version(connection) < version:  # nobody was faster
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(f"BEGIN IMMEDIATE;\n{schema}\nPRAGMA user_version = {version};\nCOMMIT;")


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])
