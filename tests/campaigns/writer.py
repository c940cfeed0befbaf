"""A process that changes a token file as the command line and a server do, and says each change once it is done.

``python -m tests.campaigns.writer FILE SEED CHANGES``: one line a change, ``verb id``, written only after
it was acknowledged. Before a deletion comes ``will id``: done and not acknowledged, it would look like a loss.
"""

import asyncio
import os
import random
import sys
import time
from pathlib import Path

from gateway.storage.files import LockTimeout
from gateway.tokens import operations
from gateway.tokens.changes import TokenSpec
from gateway.tokens.models import UseKey
from gateway.tokens.uses import Use
from tests.support.tokens import BY, store_at


class Writer:
    """Revokes and deletes only tokens of its own making, so that the outcome follows from what was acknowledged."""

    def __init__(self, path: Path, seed: int) -> None:
        self._store = store_at(path, time.time)
        self._random = random.Random(seed)
        self._mine: list[str] = []

    async def change(self) -> str:
        verb = self._random.choices(["create", "use", "revoke", "delete"], [4, 4, 2, 1])[0]
        if verb == "use":
            token_id = f"tok_shared_{self._random.randrange(10)}"
            await self._store.record_uses({UseKey(token_id): Use(1, int(time.time()))})
            return f"use {token_id}"
        if verb == "create" or not self._mine:
            created = await operations.create(self._store, BY, TokenSpec(name="made"))
            self._mine.append(created.record.id)
            return f"create {self._mine[-1]}"
        token_id = self._random.choice(self._mine)
        if verb == "revoke":
            await operations.revoke(self._store, BY, token_id)
        else:
            say(f"will {token_id}")
            await operations.delete(self._store, BY, token_id)
            self._mine.remove(token_id)
        return f"{verb} {token_id}"


def say(line: str) -> None:
    os.write(1, f"{line}\n".encode())


async def main() -> None:
    writer = Writer(Path(sys.argv[1]), int(sys.argv[2]))
    done = 0
    while done < int(sys.argv[3]):
        try:
            say(await writer.change())
        except LockTimeout:
            continue
        done += 1


if __name__ == "__main__":
    asyncio.run(main())
