"""A process that changes a token file as the command line and the recorder do, and says each change once it is done.

``python -m tests.campaigns.writer FILE SEED CHANGES``: one line a change, ``verb id``, written only after
it was acknowledged. Before a deletion comes ``will id``: done and not acknowledged, it would look like a loss.
"""

import os
import random
import sys
import time
from pathlib import Path

from gateway.storage.files import LockTimeout
from gateway.tokens.changes import TokenSpec
from gateway.tokens.last_used import Use, UseKey, apply_uses
from gateway.tokens.service import TokenService
from gateway.tokens.stores.json_file import JsonTokenFile
from tests.support.tokens import BY, MemoryLog


class Writer:
    """Revokes and deletes only tokens of its own making, so that the outcome follows from what was acknowledged."""

    def __init__(self, path: Path, seed: int) -> None:
        self._file = JsonTokenFile(path)
        self._service = TokenService(self._file, MemoryLog(), time.time)
        self._random = random.Random(seed)
        self._mine: list[str] = []

    def change(self) -> str:
        verb = self._random.choices(["create", "use", "revoke", "delete"], [4, 4, 2, 1])[0]
        if verb == "use":
            token_id = f"tok_shared_{self._random.randrange(10)}"
            self._file.update(lambda before: apply_uses(before, {UseKey(token_id): Use(1, int(time.time()))}))
            return f"use {token_id}"
        if verb == "create" or not self._mine:
            self._mine.append(self._service.create(BY, TokenSpec(name="made")).record.id)
            return f"create {self._mine[-1]}"
        token_id = self._random.choice(self._mine)
        if verb == "revoke":
            self._service.revoke(BY, token_id)
        else:
            say(f"will {token_id}")
            self._service.delete(BY, token_id)
            self._mine.remove(token_id)
        return f"{verb} {token_id}"


def say(line: str) -> None:
    os.write(1, f"{line}\n".encode())


def main() -> None:
    writer = Writer(Path(sys.argv[1]), int(sys.argv[2]))
    done = 0
    while done < int(sys.argv[3]):
        try:
            say(writer.change())
        except LockTimeout:
            continue
        done += 1


if __name__ == "__main__":
    main()
