"""Files that are opened, read and closed in threads of the caller's choice."""

import asyncio
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gateway.core.threads import Threads
from gateway.storage import async_files


async def test_a_file_is_opened_written_read_and_closed_without_the_pool_of_the_event_loop(tmp_path: Path) -> None:
    may_end = threading.Event()
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(1))
    blocking = loop.run_in_executor(None, may_end.wait, 30)
    threads = Threads("files")
    async with asyncio.timeout(20):
        async with async_files.open_in(threads, tmp_path / "file", "wb", os.open) as file:
            await file.write(b"content")
        async with async_files.open_in(threads, tmp_path / "file", "rb", os.open) as file:
            assert await file.read() == b"content"
    assert file.closed
    may_end.set()
    await blocking


async def test_a_file_is_closed_when_the_block_fails(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    with pytest.raises(ValueError, match="inside"):
        async with async_files.open_in(Threads("files"), tmp_path / "file", "rb", os.open) as file:
            raise ValueError("inside")
    assert file.closed
    with pytest.raises(FileNotFoundError):
        async with async_files.open_in(Threads("files"), tmp_path / "absent", "rb", os.open):
            pass
