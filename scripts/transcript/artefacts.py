"""The files that a gateway leaves behind: token file, audit log, databases."""

import sqlite3
from pathlib import Path

from scripts.transcript.session import Section


def record(section: Section) -> None:
    """Each file's name and mode, the text of text files, and of each database its schema and number of rows."""
    files = sorted(path for path in section.folder.rglob("*") if path.is_file())
    listed = "".join(f"{path.relative_to(section.folder)} {path.stat().st_mode & 0o777:o}\n" for path in files)
    section.note("files of the folder", listed)
    for path in files:
        name = str(path.relative_to(section.folder))
        if path.suffix in (".json", ".jsonl"):
            section.note(f"file {name}", path.read_text(encoding="utf-8"))
        elif path.suffix == ".sqlite":
            section.note(f"database {name}", _described(path))


def _described(path: Path) -> str:
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        schema = connection.execute("SELECT type, name, sql FROM sqlite_master ORDER BY type, name").fetchall()
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        tables = [name for kind, name, _ in schema if kind == "table" and not name.startswith("sqlite_")]
        counts = [f"{name}: {_count(connection, name)} row(s)\n" for name in tables]
    finally:
        connection.close()
    return f"user_version {version}\n" + "".join(f"{sql}\n" for _, _, sql in schema if sql) + "".join(counts)


def _count(connection: sqlite3.Connection, table: str) -> int:
    return int(connection.execute(f'SELECT count(*) FROM "{table}"').fetchone()[0])  # noqa: S608 - its own schema names it
