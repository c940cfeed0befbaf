"""Opens files for use on the event loop, with every call on them in threads of the caller's choice."""

import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiofiles

from gateway.core.threads import Threads


@contextlib.asynccontextmanager
async def open_in(
    threads: Threads, path: Path, mode: str, opener: Callable[[str, int], int], buffering: int = -1
) -> AsyncIterator[Any]:
    """Opens a file in binary ``mode`` with ``opener``, and closes it at the end of the block. Raises OSError.

    ``async with aiofiles.open(...)`` would close it in the pool of the event loop, and wait there behind whatever else blocks.
    """
    executor = threads.executor
    file = await aiofiles.open(path, mode, buffering, opener=opener, executor=executor)  # type: ignore[call-overload]
    try:
        yield file
    finally:
        await file.close()
