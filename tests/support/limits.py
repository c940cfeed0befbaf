"""Builds charges and capacity requests to test limits with."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from gateway.limits.algorithms import Charge
from gateway.limits.config import read_limits
from gateway.limits.matching import CapacityRequest, LimitChain
from gateway.limits.models import Amounts
from gateway.limits.store import CounterStore, LimitExceeded, Reservation
from gateway.limits.stores.leased import LeasedCounterStore
from gateway.limits.stores.memory import MemoryCounterStore
from gateway.limits.stores.sqlite import SqliteCounterStore
from tests.support.tokens import Clock

NOW = 1_800_000_000_000
"""A Friday morning, in milliseconds since the epoch."""
BUDGET = {"budget": "0.0001"}


STORES = ("memory", "sqlite", "leased")
"""The kinds of counter stores: ``leased`` is in front of ``sqlite``, and what a gateway of several workers has."""


def open_store(kind: str, path: Path) -> CounterStore:
    """Opens a store of this kind on a file."""
    if kind == "memory":
        return MemoryCounterStore(path)
    shared = SqliteCounterStore(path, Clock())
    return shared if kind == "sqlite" else LeasedCounterStore(shared)


def capacity_request(
    limits: dict[str, Any], tokens: int = 0, cost: int = 0, minimums: tuple[int, int] | None = None, **more: Any
) -> CapacityRequest:
    """One request of the token ``tok_a`` (or ``limited``, where a parent has the limits) for the model ``gpt-4o``.

    ``minimums`` are of tokens and cost; without them the estimates are exact. ``queue`` is the token that waits.
    """
    found = read_limits(limits)
    assert found is not None
    minimum_tokens, minimum_cost = (tokens, cost) if minimums is None else minimums
    limited = more.get("limited", "tok_a")
    return CapacityRequest(
        more.get("queue", limited),
        LimitChain([(limited, found)]),
        (more.get("model", "gpt-4o"),),
        Amounts(tokens, minimum_tokens, cost, minimum_cost),
        more.get("is_free", False),
    )


def charges_for(limits: dict[str, Any], tokens: int = 0, cost: int = 0, **more: Any) -> list[Charge]:
    """What one request has to reserve at ``now``."""
    return capacity_request(limits, tokens, cost, **more).charges(more.get("now", NOW))


def granted(outcome: Reservation | LimitExceeded) -> Reservation:
    assert isinstance(outcome, Reservation), outcome
    return outcome


def refused(outcome: Reservation | LimitExceeded) -> LimitExceeded:
    assert isinstance(outcome, LimitExceeded), outcome
    return outcome


@contextmanager
def locked_database(path: Path) -> Iterator[None]:
    """Another program writes to the database."""
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        other.execute("ROLLBACK")
        other.close()


@asynccontextmanager
async def running(counters: CounterStore) -> AsyncIterator[None]:
    task = asyncio.create_task(counters.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def used_and_reserved(counters: CounterStore) -> tuple[int, int]:
    [budget] = await counters.read(charges_for(BUDGET), NOW)
    return budget.used, budget.reserved
