"""A hostile place for the token file: odd kinds of file, planted links, disks that fail. Nothing hangs, nothing is lost."""

import ctypes
import errno
import os
import resource
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gateway.storage import files
from gateway.tokens.models import TokenRecord
from gateway.tokens.stores.json_file import MAX_FILE_BYTES, JsonTokenFile, StoredTokens
from tests.support.tokens import as_nobody, content, entry, names, record

ORIGINAL = content(entry(), comment="as it was")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "api_tokens.json"


def records(stored: StoredTokens | None) -> tuple[TokenRecord, ...]:
    assert stored is not None
    return stored.tokens.records


async def write(file: JsonTokenFile) -> None:
    """Adds a token."""
    async with file.locked() as (path, stored):
        added = (*stored.tokens.records, record("sk-made-up-and-added-later", name="added"))
        await file.replace(path, await file.encode(added, stored.unknown))


def _huge(path: Path) -> None:
    path.touch()
    os.truncate(path, MAX_FILE_BYTES + 1)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


ODD_FILES: dict[str, Callable[[Path], None]] = {
    "directory": Path.mkdir,
    "pipe": os.mkfifo,
    "socket": _socket,
    "huge": _huge,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "file as folder": lambda path: path.symlink_to("/etc/hostname/api_tokens.json"),
    "link to itself": lambda path: path.symlink_to(path),
}


@pytest.mark.parametrize("kind", ODD_FILES)
async def test_what_is_no_plain_file_is_an_error_at_once(path: Path, kind: str) -> None:
    ODD_FILES[kind](path)
    with pytest.raises(OSError):
        (await JsonTokenFile(path).read())
    with pytest.raises(OSError):
        await write(JsonTokenFile(path))


def _open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("kind", ["directory", "pipe", "huge"])
async def test_looking_at_an_odd_file_again_and_again_uses_up_no_descriptor(path: Path, kind: str) -> None:
    """The watcher looks four times a second: one descriptor a look would end the gateway in minutes."""
    ODD_FILES[kind](path)
    file = JsonTokenFile(path)
    before = _open_descriptors()
    for _ in range(10):
        with pytest.raises(OSError):
            (await file.read())
    assert _open_descriptors() == before


async def test_a_file_that_may_not_be_read_is_an_error(path: Path) -> None:
    path.write_bytes(ORIGINAL)
    path.chmod(0)
    with as_nobody(), pytest.raises(PermissionError):
        (await JsonTokenFile(path).read())


async def test_a_folder_that_may_not_be_written_is_an_error(tmp_path: Path, path: Path) -> None:
    path.write_bytes(ORIGINAL)
    tmp_path.chmod(0o555)
    with as_nobody(), pytest.raises(PermissionError):
        await write(JsonTokenFile(path))
    tmp_path.chmod(0o755)
    assert path.read_bytes() == ORIGINAL


async def test_a_link_planted_for_the_lock_is_not_followed(tmp_path: Path, path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    victim.chmod(0o644)
    Path(f"{path}.lock").symlink_to(victim)
    with pytest.raises(OSError):
        await write(JsonTokenFile(path))
    assert victim.read_text() == "precious"
    assert stat.S_IMODE(victim.stat().st_mode) == 0o644
    assert not path.exists()


async def test_a_link_planted_for_the_temporary_file_is_not_followed(
    tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    path.write_bytes(ORIGINAL)
    monkeypatch.setattr("secrets.token_hex", lambda _length: "guessed")
    monkeypatch.setattr(files, "sweep", lambda _path: None)  # planted between the sweep and the write
    planted = tmp_path / f".{path.name}.guessed.tmp"
    planted.symlink_to(victim)
    with pytest.raises(FileExistsError):
        await write(JsonTokenFile(path))
    assert victim.read_text() == "precious"
    assert path.read_bytes() == ORIGINAL


async def test_sweeping_removes_a_planted_link_and_not_its_victim(tmp_path: Path, path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / f".{path.name}.planted.tmp").symlink_to(victim)
    await write(JsonTokenFile(path))
    assert victim.read_text() == "precious"
    assert not (tmp_path / f".{path.name}.planted.tmp").is_symlink()


def _fails(error: int) -> Callable[..., None]:
    def fail(*_arguments: object) -> None:
        raise OSError(error, os.strerror(error))

    return fail


def _folder_sync_fails(descriptor: int) -> None:
    if stat.S_ISDIR(os.fstat(descriptor).st_mode):
        raise OSError(errno.EIO, os.strerror(errno.EIO))


@pytest.mark.parametrize(
    ("name", "replacement"),
    [
        ("os.fsync", _fails(errno.EIO)),
        ("os.fchmod", _fails(errno.EPERM)),
        ("os.rename", _fails(errno.EXDEV)),
        ("os.replace", _fails(errno.EACCES)),
        ("os.fsync", _folder_sync_fails),
    ],
    ids=["fsync", "fchmod", "rename", "replace", "fsync of the folder"],
)
async def test_a_write_that_reports_failure_has_changed_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch, name: str, replacement: Callable[..., None]
) -> None:
    """Or else the recorder, which tries again, counts every use again and again. A write may pass over what it can bear."""
    path.write_bytes(ORIGINAL)
    file = JsonTokenFile(path)
    failed = False
    with monkeypatch.context() as patch:
        patch.setattr(name, replacement)
        try:
            await write(file)
        except OSError:
            failed = True
    assert names(path) == (["application"] if failed else ["application", "added"])
    assert not failed or path.read_bytes() == ORIGINAL
    assert not list(path.parent.glob(".*.tmp"))
    async with file.locked():
        pass
    assert records(await file.read()) == records(await JsonTokenFile(path).read())


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def test_a_write_that_the_kernel_cuts_short_leaves_the_old_file(path: Path) -> None:
    path.write_bytes(ORIGINAL)
    with files_of_at_most(100), pytest.raises(OSError):
        await write(JsonTokenFile(path))
    assert path.read_bytes() == ORIGINAL
    assert not list(path.parent.glob(".*.tmp"))
    await write(JsonTokenFile(path))
    assert names(path) == ["application", "added"]


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 32 KiB."""
    libc = ctypes.CDLL(None, use_errno=True)
    folder = tmp_path / "tiny"
    folder.mkdir()
    if libc.mount(b"none", str(folder).encode(), b"tmpfs", 0, b"size=32k"):
        pytest.skip(
            f"mounting takes root: {os.strerror(ctypes.get_errno())}; the test of the file size limit stands in"
        )
    try:
        yield folder
    finally:
        libc.umount2(str(folder).encode(), 2)


async def test_a_full_disk_leaves_the_old_file(tiny_disk: Path) -> None:
    path = tiny_disk / "api_tokens.json"
    path.write_bytes(ORIGINAL)
    file = JsonTokenFile(path)
    async with file.locked():
        pass
    ballast = tiny_disk / "ballast"
    with pytest.raises(OSError, match="No space left"), ballast.open("wb", buffering=0) as stream:
        while True:
            stream.write(b"x" * 4096)
    with pytest.raises(OSError, match="No space left"):
        await write(file)
    assert path.read_bytes() == ORIGINAL
    assert not list(tiny_disk.glob(".*.tmp"))
    ballast.unlink()
    await write(file)
    assert names(path) == ["application", "added"]
