"""The counters that one transaction has to do with, token by token."""

import sqlite3

from gateway.limits.algorithms import Counter, Limit
from gateway.limits.stores import sqlite_file
from gateway.limits.stores.sqlite_file import Counters


class Rows:
    """Read when they are asked for, written all together."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._tokens: dict[str, Counters] = {}

    def level(self, limit: Limit, now: int | None) -> Counter:
        """Of now, in milliseconds since the epoch; without it, as it stands. Raises sqlite3.Error."""
        counters = self._tokens.get(limit.holder)
        if counters is None:
            counters = self._tokens[limit.holder] = sqlite_file.get(self._connection, limit.holder)
        level = counters.get(limit.name)
        if level is None:
            level = counters[limit.name] = Counter(ends_at=limit.ends_at)
            if now is not None:
                sqlite_file.forget(counters, now)
        if now is not None:
            limit.refresh(level, now)
        return level

    def write(self) -> None:
        """Raises sqlite3.Error."""
        for holder, counters in self._tokens.items():
            sqlite_file.put(self._connection, holder, counters)
