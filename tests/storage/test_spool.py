"""What is kept on its way through: in memory while it is small, in a file without a name from then on."""

import tempfile
from pathlib import Path

import pytest

from gateway.core.threads import Threads
from gateway.storage.spool import READ_BYTES, Spool


@pytest.mark.parametrize(("size", "is_in_file"), [(10, False), (11, True), (READ_BYTES * 2 + 5, True)])
async def test_what_was_written_is_read(
    size: int, is_in_file: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    data = bytes(range(251)) * (size // 251 + 1)
    async with Spool(Threads("test"), 10) as spool:
        for at in range(0, size, 4096):
            await spool.write(data[at : min(at + 4096, size)])
        await spool.write(b"end")
        assert (spool.is_in_file, list(tmp_path.iterdir())) == (is_in_file or size + 3 > 10, [])
        for start, end in ((0, size), (0, 0), (5, size), (size, size + 3)):
            found = b"".join([chunk async for chunk in spool.read(start, end)])
            assert found == (data[:size] + b"end")[start:end]


async def test_a_missing_end_is_an_error() -> None:
    async with Spool(Threads("test"), 1) as spool:
        await spool.write(b"abc")
        with pytest.raises(OSError, match="shorter"):
            assert [chunk async for chunk in spool.read(0, 9)]


async def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    async with Spool(Threads("test"), 1) as spool:
        with pytest.raises(OSError, match="none"):
            await spool.write(b"abc")
