"""The token file on disk: read when changed, changed under a lock. Blocking; a server calls it in a worker thread."""

import hashlib
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from gateway.storage import files
from gateway.storage.files import Signature
from gateway.tokens.stores import json_format as codec
from gateway.tokens.stores.json_format import TokenDocument, TokenFileError

MAX_FILE_BYTES = 256 * 1024 * 1024
LOCK_SECONDS = 10.0
_SETTLED_SECONDS = 2.0

Change = Callable[[TokenDocument], TokenDocument]


class JsonTokenFile:
    """One token file. Any number of processes and threads may hold one each for the same path."""

    def __init__(self, path: Path, lock_seconds: float = LOCK_SECONDS) -> None:
        self._path = path
        self._lock_seconds = lock_seconds
        self._guard = threading.Lock()
        self._known: TokenDocument | None = None
        self._signature: Signature | None = None
        self._content_hash = b""
        self._settled = False

    @property
    def path(self) -> Path:
        """Where the file really lies: a rename onto a link would replace the link. A link may be pointed elsewhere."""
        return Path(os.path.realpath(self._path))

    def read(self) -> TokenDocument | None:
        """What the file holds now; None if there is none.

        The very same object is answered for as long as the file is unchanged.
        Raises TokenFileError for damage, OSError for what cannot be read.
        """
        with self._guard:
            return self._read()

    def update(self, change: Change, *, create: bool = True) -> TokenDocument:
        """Read, change and write under the lock. A change that answers its own argument writes nothing.

        Raises TokenFileError or OSError, FileNotFoundError without ``create``; the file is then as it was.
        """
        path = self.path
        if create:
            files.make_folder(path.parent)
        with files.locked(path, self._lock_seconds), self._guard:
            files.sweep(path)
            before = self._read()
            if before is None:
                if not create:
                    raise FileNotFoundError(f"{path} is not there")
                before = TokenDocument()
            after = change(before)
            if after is not before:
                self._write(path, after)
            return after

    def _read(self) -> TokenDocument | None:
        try:
            path = self.path
            found = files.signature(path)
            if self._settled and found == self._signature:
                return self._known
            data = files.read_regular(path, MAX_FILE_BYTES)
        except FileNotFoundError:
            self._forget()
            return None
        content_hash = hashlib.sha256(data).digest()
        if self._known is None or content_hash != self._content_hash:
            self._forget()
            self._known = self._decode(data)
        self._remember(found, content_hash)
        return self._known

    def _decode(self, data: bytes) -> TokenDocument:
        try:
            return codec.decode(data)
        except TokenFileError as error:
            raise TokenFileError(f"{self._path}: {error}") from None

    def _write(self, path: Path, after: TokenDocument) -> None:
        data = codec.encode(after)
        files.replace(path, data)
        self._known = after
        self._remember(files.signature(path), hashlib.sha256(data).digest())

    def _remember(self, found: Signature, content_hash: bytes) -> None:
        """A file changed a moment ago is read again next time: two writes within one tick of the clock look alike."""
        self._signature = found
        self._content_hash = content_hash
        newest = max(found.modified_ns, found.changed_ns)
        self._settled = abs(time.time_ns() - newest) > _SETTLED_SECONDS * 1e9

    def _forget(self) -> None:
        self._known = None
        self._signature = None
        self._content_hash = b""
        self._settled = False
