"""The counters that one transaction has to do with, token by token."""

import sqlite3

from gateway.limits.algorithms import Level, Limit
from gateway.limits.stores import sqlite_file
from gateway.limits.stores.sqlite_file import Levels


class Rows:
    """Read when they are asked for, written all together."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._tokens: dict[str, Levels] = {}

    def level(self, limit: Limit, now: int | None) -> Level:
        """Of now, in milliseconds since the epoch; without it, as it stands. Raises sqlite3.Error."""
        levels = self._tokens.get(limit.holder)
        if levels is None:
            levels = self._tokens[limit.holder] = sqlite_file.get(self._connection, limit.holder)
        level = levels.get(limit.name)
        if level is None:
            level = levels[limit.name] = Level(ends_at=limit.ends_at)
            if now is not None:
                sqlite_file.forget(levels, now)
        if now is not None:
            limit.refresh(level, now)
        return level

    def write(self) -> None:
        """Raises sqlite3.Error."""
        for holder, levels in self._tokens.items():
            sqlite_file.put(self._connection, holder, levels)
