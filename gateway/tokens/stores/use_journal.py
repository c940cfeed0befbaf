"""Keeps the uses of tokens beside a large token file, until they are written into it.

Each line is one token with the uses since the last line about it, as JSON: its id, the hash of a replaced secret or null, how
often, the last time in seconds since the epoch, and the address or null. The first line has the time at which the journal was
begun. Before a token file with these uses is put in place, a line with the SHA-256 of its content is added: what is before that
line counts only while the token file is another one.

A journal has nothing but times and counts: lines that are damaged are reported and passed over, and give or take no access.
The methods block, and are called by one thread at a time.
"""

import logging
import os
import stat
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated

import msgspec

from gateway.core.clock import LATEST
from gateway.storage import files
from gateway.tokens.models import UseKey
from gateway.tokens.uses import Use

log = logging.getLogger(__name__)

REWRITE_BYTES = 256 * 1024
"""A token file up to this size has its uses at once: it is written anew for them."""
FOLD_BYTES = 16 * 1024 * 1024
FOLD_SECONDS = 3600.0
"""A journal that is larger or older than these is written into the token file with the next uses."""
_MAX_BYTES = 4 * FOLD_BYTES

_Count = Annotated[int, msgspec.Meta(ge=1, le=10**12)]
_Time = Annotated[int, msgspec.Meta(ge=0, le=LATEST)]
_Text = Annotated[str, msgspec.Meta(max_length=512)]
_UseLine = tuple[_Text, _Text | None, _Count, _Time, _Text | None]


class _NoteLine(msgspec.Struct, forbid_unknown_fields=True):
    """Tells when the journal was begun, or into which content all lines before it are written."""

    begun_at: float | None = None
    folded_into: str | None = None


_encode = msgspec.json.Encoder().encode
_decode_use = msgspec.json.Decoder(_UseLine).decode
_decode_note = msgspec.json.Decoder(_NoteLine).decode


def journal_path(path: Path) -> Path:
    """Returns where the journal of the token file at ``path`` is."""
    return path.with_name(f"{path.name}.uses")


def is_for(path: Path) -> bool:
    """Returns whether the token file at ``path`` is so large that its uses go to a journal. Raises OSError."""
    try:
        return path.stat().st_size > REWRITE_BYTES
    except FileNotFoundError:
        return False


class UseJournal:
    """The journal of one token file, for one process. Whoever appends, folds or removes holds the lock of the token file."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        """``clock`` returns seconds since the epoch."""
        self._clock = clock
        self._inode = 0
        self._offset = 0
        self._is_reported = False

    def restart(self) -> None:
        """Reads everything again with the next ``read_new``."""
        self._inode = self._offset = 0

    def read_new(self, path: Path, content_hash: bytes) -> dict[UseKey, Use]:
        """Returns the uses that were added since the last call, and are not in the token file at ``path``.

        ``content_hash`` is the SHA-256 of that file. Raises nothing: a journal that cannot be read is reported, and has no uses.
        """
        try:
            data = self._read(journal_path(path))
        except FileNotFoundError:
            self.restart()
            return {}
        except OSError as error:
            self._report(path, str(error))
            return {}
        uses: dict[UseKey, Use] = {}
        for line in data.split(b"\n"):
            if line and not _add_line(uses, line, content_hash.hex()):
                self._report(path, f"{len(line)} bytes are no line of it")
        return uses

    def append(self, path: Path, uses: Mapping[UseKey, Use]) -> bool:
        """Adds uses, unless the journal is to be written into the token file at ``path`` with them. Returns whether it did.

        Raises OSError; then nothing was added.
        """
        if self._is_due(path):
            return False
        lines = [_encode((*key, *use)) for key, use in uses.items()]
        self._write(path, b"\n".join(lines) + b"\n")
        return True

    def note_content(self, path: Path, content_hash: bytes) -> None:
        """Notes that all uses are in a content of the token file that is to be written next. Raises OSError."""
        if self._is_there(path):
            self._write(path, _encode({"folded_into": content_hash.hex()}) + b"\n", is_synced=True)

    def remove(self, path: Path) -> None:
        """Removes the journal, whose uses are in the token file now; one with damaged lines is set aside. Raises OSError."""
        journal = journal_path(path)
        if self._is_there(path):
            if self._is_reported:
                journal.replace(journal.with_name(f"{journal.name}.damaged"))
            else:
                journal.unlink()
        self._is_reported = False
        self.restart()

    def _read(self, journal: Path) -> bytes:
        """Returns the whole lines that were added since the last time. Raises OSError."""
        status = journal.lstat()
        if (status.st_ino, status.st_size) == (self._inode, self._offset):
            return b""
        if not stat.S_ISREG(status.st_mode) or status.st_size > _MAX_BYTES:
            raise OSError("it is not a regular file, or too large")
        if status.st_ino != self._inode or status.st_size < self._offset:
            self._inode, self._offset = status.st_ino, 0
        descriptor = os.open(journal, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            file.seek(self._offset)
            data = file.read(_MAX_BYTES)
        data = data[: data.rfind(b"\n") + 1]  # a process may just be writing the last line
        self._offset += len(data)
        return data

    def _write(self, path: Path, data: bytes, *, is_synced: bool = False) -> None:
        """Appends lines, all or none. Raises OSError."""
        descriptor = files.make_file(journal_path(path), os.O_RDWR | os.O_APPEND)
        try:
            size = os.fstat(descriptor).st_size
            if size == 0:
                data = _encode({"begun_at": self._clock()}) + b"\n" + data
            elif os.pread(descriptor, 1, size - 1) != b"\n":
                data = b"\n" + data  # whoever wrote the last line was killed meanwhile
            try:
                _write_all(descriptor, data)
                if is_synced:
                    os.fsync(descriptor)
            except OSError:
                os.ftruncate(descriptor, size)
                raise
        finally:
            os.close(descriptor)

    def _is_there(self, path: Path) -> bool:
        """Returns whether there is a journal. What is not a regular file is set aside. Raises OSError."""
        journal = journal_path(path)
        try:
            status = journal.lstat()
        except FileNotFoundError:
            return False
        if stat.S_ISREG(status.st_mode) and status.st_size <= _MAX_BYTES:
            return True
        self._report(path, "it is not a regular file, or too large")
        journal.rename(journal.with_name(f"{journal.name}.damaged"))
        return False

    def _is_due(self, path: Path) -> bool:
        """Returns whether the journal is so large or old that its uses are to be written into the token file. Raises OSError."""
        if not self._is_there(path):
            return False
        with journal_path(path).open("rb") as file:
            first = file.readline(200)
            size = file.seek(0, os.SEEK_END)
        try:
            begun_at = _decode_note(first).begun_at or 0.0
        except msgspec.DecodeError:
            return True
        return size > FOLD_BYTES or abs(self._clock() - begun_at) > FOLD_SECONDS

    def _report(self, path: Path, problem: str) -> None:
        if not self._is_reported:
            log.error(
                "the journal of last-used times is damaged; other times and all tokens stay as they are",
                extra={"file": journal_path(path), "problem": problem},
            )
        self._is_reported = True


def _add_line(uses: dict[UseKey, Use], line: bytes, content_hash: str) -> bool:
    """Adds what a line says, and returns whether it is a line of a journal."""
    try:
        if line.startswith(b"{"):
            if _decode_note(line).folded_into == content_hash:
                uses.clear()
            return True
        token_id, previous_hash, *use = _decode_use(line)
    except msgspec.DecodeError:
        return False
    key, added = UseKey(token_id, previous_hash), Use(*use)
    before = uses.get(key)
    uses[key] = added if before is None else before.and_then(added)
    return True


def _write_all(descriptor: int, data: bytes) -> None:
    """Writes all of ``data``: a nearly full disk may take a part of it. Raises OSError."""
    while data:
        data = data[os.write(descriptor, data) :]
