"""Keeps what is larger than memory should hold, until it is read: in memory first, in a temporary file from some size on."""

import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from gateway.core.threads import Threads
from gateway.storage.files import open_async

MEMORY_BYTES = 256 * 1024
"""Up to this size nothing is written to a file."""
READ_BYTES = 256 * 1024


class Spool:
    """Bytes that are written once and may be read often. The file has no name, so it is gone with the process."""

    def __init__(self, threads: Threads, memory_bytes: int = MEMORY_BYTES) -> None:
        self._threads = threads
        self._memory_bytes = memory_bytes
        self._memory = bytearray()
        self._file: Any = None
        self._exits = AsyncExitStack()

    async def __aenter__(self) -> "Spool":
        """Returns itself."""
        return self

    async def __aexit__(self, *_error: object) -> None:
        """Closes the file, which deletes it."""
        await self._exits.aclose()

    @property
    def is_in_file(self) -> bool:
        """Whether the bytes are in a file."""
        return self._file is not None

    async def write(self, chunk: bytes) -> None:
        """Appends a chunk. Raises OSError."""
        self._memory += chunk
        if len(self._memory) <= self._memory_bytes:
            return
        if self._file is None:
            folder = Path(tempfile.gettempdir())
            self._file = await self._exits.enter_async_context(
                open_async(self._threads, folder, "w+b", _create_unnamed)
            )
        await self._file.write(bytes(self._memory))
        self._memory.clear()

    async def read(self, start: int, end: int) -> AsyncIterator[bytes]:
        """Yields the bytes from ``start`` to ``end``. Raises OSError."""
        if self._file is None:
            if start < end:
                yield bytes(self._memory[start:end])
            return
        if self._memory:
            await self._file.seek(0, os.SEEK_END)
            await self._file.write(bytes(self._memory))
            self._memory.clear()
        while start < end:
            await self._file.seek(start)
            chunk = await self._file.read(min(READ_BYTES, end - start))
            if not chunk:
                raise OSError("the temporary file is shorter than what was written")
            start += len(chunk)
            yield chunk


def _create_unnamed(folder: str, _flags: int) -> int:
    """Opens a new file and removes its name at once. Raises OSError."""
    descriptor, name = tempfile.mkstemp(dir=folder)
    Path(name).unlink()
    return descriptor
