"""Entries of the ledger to test with, and what a SQLite ledger holds, read without the code that is tested."""

import contextlib
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gateway.usage.models import LedgerEntry, Usage, UsageTotals
from tests.support.tokens import NOW


def ledger_entry(number: int = 0, usage: Usage | None = None, **fields: Any) -> LedgerEntry:
    """An entry with an id of its own."""
    plain: dict[str, Any] = {
        "request_id": f"req_{number:032x}",
        "at": NOW * 1000,
        "token_id": "tok_1",
        "owner": "ann@example.com",
        "model": "gpt-4o",
        "deployment": "openai",
        "endpoint": "chat/completions",
        "status": 200,
        "cost": 1500,
        "duration_ms": 900,
        "first_byte_ms": 100,
        "partial": False,
        "estimated": False,
    }
    return LedgerEntry(usage=usage or Usage(prompt_tokens=10, completion_tokens=5), **{**plain, **fields})


def rows(path: Path, text: str) -> list[tuple[Any, ...]]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return connection.execute(text).fetchall()


def count(path: Path) -> int:
    return int(rows(path, "SELECT count(*) FROM entries")[0][0])


def hour_sums(path: Path) -> dict[tuple[Any, ...], tuple[int, ...]]:
    return {row[:4]: row[4:] for row in rows(path, "SELECT * FROM hours")}


def expected_sums(entries: Sequence[LedgerEntry]) -> dict[tuple[Any, ...], tuple[int, ...]]:
    """What the hours have to be: each request id once, the first one."""
    sums: dict[tuple[Any, ...], list[int]] = {}
    seen = set()
    for one in entries:
        if one.request_id in seen:
            continue
        seen.add(one.request_id)
        key = (one.at // 3_600_000 * 3600, one.token_id, one.owner or "", one.model or "")
        found = sums.setdefault(key, [0] * len(UsageTotals._fields))
        used = one.usage
        amounts = (1, used.prompt_tokens, used.completion_tokens, used.cached_tokens, used.reasoning_tokens, one.cost)
        flags = (one.status >= 400, one.partial, one.estimated)
        for place, amount in enumerate((*amounts, *flags)):
            found[place] += amount
    return {key: tuple(found) for key, found in sums.items()}
