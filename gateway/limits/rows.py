"""The counters that one transaction has to do with, token by token."""

import sqlite3

from gateway.limits import counters_file
from gateway.limits.counters_file import Levels
from gateway.limits.levels import Level, Limit


class Rows:
    """Read when they are asked for, written all together."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._tokens: dict[str, Levels] = {}

    def level(self, limit: Limit, now: int | None) -> Level:
        """Of now, in milliseconds since the epoch; without it, as it stands. Raises sqlite3.Error."""
        levels = self._tokens.get(limit.holder)
        if levels is None:
            levels = self._tokens[limit.holder] = counters_file.get(self._connection, limit.holder)
        level = levels.get(limit.name)
        if level is None:
            level = levels[limit.name] = Level(ends_at=limit.ends_at)
            if now is not None:
                counters_file.forget(levels, now)
        if now is not None:
            limit.refresh(level, now)
        return level

    def write(self) -> None:
        """Raises sqlite3.Error."""
        for holder, levels in self._tokens.items():
            counters_file.put(self._connection, holder, levels)
