"""The object store in a file, beside the contract in ``tests/routing/test_ownership.py``."""

import sqlite3
from pathlib import Path

import pytest

from gateway.routing.ownership import ObjectKey, ObjectRecord, ObjectStoreError
from gateway.routing.stores.sqlite import OBJECTS_FILE, SqliteObjectStore

KEY = ObjectKey("openai", "file-1")
MADE = ObjectRecord(KEY, "files", "ann", 1)


def test_workers_share_the_file(tmp_path: Path) -> None:
    one, other = SqliteObjectStore(tmp_path / OBJECTS_FILE), SqliteObjectStore(tmp_path / OBJECTS_FILE)
    one.add([MADE])
    other.add([MADE._replace(owner="bob")])
    assert one.owners([KEY]) == other.owners([KEY]) == {KEY: "ann"}


def test_nobody_else_may_read_it(tmp_path: Path) -> None:
    SqliteObjectStore(tmp_path / "data" / OBJECTS_FILE).add([MADE])
    assert (tmp_path / "data" / OBJECTS_FILE).stat().st_mode & 0o777 == 0o600


def test_a_file_that_cannot_be_used(tmp_path: Path) -> None:
    path = tmp_path / OBJECTS_FILE
    path.write_bytes(b"no database" * 1000)
    store = SqliteObjectStore(path)
    for call in (lambda: store.add([MADE]), lambda: store.owners([KEY]), lambda: store.prune(1, 1)):
        with pytest.raises(ObjectStoreError, match=r"objects\.sqlite"):
            call()


def test_another_process_that_writes_is_waited_for_no_longer_than_said(tmp_path: Path) -> None:
    store = SqliteObjectStore(tmp_path / OBJECTS_FILE, busy_seconds=0.01)
    store.add([MADE])
    other = sqlite3.connect(tmp_path / OBJECTS_FILE, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(ObjectStoreError, match="locked"):
        store.add([MADE._replace(key=ObjectKey("openai", "file-2"))])
    assert store.owners([KEY]) == {KEY: "ann"}
    other.execute("ROLLBACK")
    other.close()
    store.add([MADE._replace(key=ObjectKey("openai", "file-2"))])
