"""Stores tokens in a JSON file, which any number of processes read and change under a lock.

The file is read only when it has changed, and replaced as a whole: a crash leaves the old content or the new one.
"""

import asyncio
import contextlib
import hashlib
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from gateway.audit.hash_chain import Actor
from gateway.audit.log import ENDINGS
from gateway.core.threads import Threads, await_uncancelled
from gateway.storage import files
from gateway.storage.disk_reserve import DiskReserve, is_out_of_space
from gateway.storage.files import Signature
from gateway.tokens import changes
from gateway.tokens.hierarchy import TokenHierarchy
from gateway.tokens.models import RecordChange, TokenRecord, UseKey
from gateway.tokens.store import (
    AuditSink,
    TokensDamaged,
    TokensMissing,
    TokenStoreFull,
    TokenTransaction,
    audited,
)
from gateway.tokens.stores import json_format, json_records, use_journal
from gateway.tokens.stores.json_format import TokenDocument
from gateway.tokens.stores.json_records import KnownRecords
from gateway.tokens.stores.use_journal import UseJournal
from gateway.tokens.uses import Use, add_uses, used_records

MAX_FILE_BYTES = 256 * 1024 * 1024
"""A larger file is not read, so none is written. The last sixteenth is for what ends tokens, the one before for their uses."""

_RESERVE_STEP = 128 * 1024
LOCK_SECONDS = 10.0
SETTLED_SECONDS = 2.0
"""A file changed less than this ago is read again even if it looks the same: two writes in one clock tick look alike."""


class StoredTokens(NamedTuple):
    """The content of a token file. ``unknown`` are top-level fields that are not ours; they are written again."""

    tokens: TokenHierarchy
    unknown: Mapping[str, Any]


class LockedTokens(NamedTuple):
    """The newest content of a token file, and the path at which it is locked: a link may lead elsewhere by now."""

    path: Path
    stored: StoredTokens


class EncodedTokens(NamedTuple):
    """The content of a token file, and the bytes of it with their SHA-256."""

    stored: StoredTokens
    data: bytes
    content_hash: bytes


class _Snapshot(NamedTuple):
    """What was last read or written, and how the file looked then."""

    stored: StoredTokens
    content_hash: bytes
    signature: Signature
    is_settled: bool


class JsonTokenFile:
    """One token file, for one event loop. Any number of processes and objects may use the same path."""

    def __init__(
        self,
        path: Path,
        lock_seconds: float = LOCK_SECONDS,
        max_bytes: int = MAX_FILE_BYTES,
        journal: UseJournal | None = None,
    ) -> None:
        self._path = path
        self._journal = journal or UseJournal()
        self._max_bytes = max_bytes
        self.reserve = DiskReserve(_real_path(path), 2 * _RESERVE_STEP)
        """Space on the disk for a copy of the file, which a revocation needs."""
        self._lock_seconds = lock_seconds
        self.threads = Threads("tokens", 2)
        """One for whoever reads, one for whoever holds the lock or tries for it: neither waits for the other."""
        self._guard = asyncio.Lock()
        """Is held while the snapshot is made."""
        self._turn = asyncio.Lock()
        """Is held by the one that holds the file's lock, or tries for it: the others wait in the order in which they came."""
        self._snapshot: _Snapshot | None = None
        self._known: KnownRecords = {}

    async def read(self) -> StoredTokens | None:
        """Returns the content; None where there is no file. The very same object for as long as the file is unchanged.

        Raises TokensDamaged for content that is invalid, OSError for a file that cannot be read.
        """
        # Cancelled between opening and closing, it would leave a descriptor open until the collector comes by.
        return await await_uncancelled(asyncio.ensure_future(self._read()), asyncio.Future.result)

    @contextlib.asynccontextmanager
    async def locked(self, *, create: bool = True) -> AsyncIterator[LockedTokens]:
        """Holds the lock and yields the newest content. Callers of this object take turns, however long that takes.

        ``create`` says whether a missing file is taken for an empty one. Raises TokensMissing without it, TokensDamaged,
        LockTimeout if another process or object keeps the lock, OSError.
        """
        async with self._turn:
            path = await self.threads.run(self._prepare, create)
            async with files.locked_async(path, self._lock_seconds, self.threads):
                await self.threads.run_to_end(files.sweep, path)
                reading = asyncio.ensure_future(self._read(path))
                stored = await await_uncancelled(reading, asyncio.Future.result)
                if stored is None:
                    if not create:
                        raise TokensMissing(f"{path} is not there")
                    stored = StoredTokens(TokenHierarchy(), {})
                yield LockedTokens(path, stored)

    async def encode(
        self, records: Sequence[TokenRecord], unknown: Mapping[str, Any], sixteenths: int = 16
    ) -> EncodedTokens:
        """Returns a content that ``replace`` can write. ``sixteenths`` of the largest size are what it may take.

        Raises TokenStoreFull for a larger one.
        """
        encoded = await self.threads.run(_encode, records, unknown)
        size, limit = len(encoded.data), self._max_bytes // 16 * sixteenths
        if size > limit:
            raise TokenStoreFull(
                f"The token file has no space for this: it would have {size} bytes, and may have {limit}. "
                "Delete tokens that have ended, then try again."
            )
        return encoded

    async def replace(self, path: Path, encoded: EncodedTokens, *, is_urgent: bool = False) -> None:
        """Replaces the content of the file at ``path``, whose lock the caller holds. The caller is not cancelled meanwhile.

        What is urgent may use the reserve of a full disk. Raises OSError; then the file is as it was.
        """
        async with self._guard:
            await self.threads.run_to_end(self._journal.note_content, path, encoded.content_hash)
            try:
                await files.replace(path, encoded.data, self.threads)
            except OSError as error:
                if not is_urgent or not is_out_of_space(error) or not await self.threads.run(self.reserve.release):
                    raise
                await files.replace(path, encoded.data, self.threads)
            self.reserve.size = (len(encoded.data) // _RESERVE_STEP + 2) * _RESERVE_STEP
            self._snapshot = await self.threads.run(_snapshot, encoded, path)
            await self.threads.run_to_end(self._journal.remove, path)

    async def append_uses(self, uses: Mapping[UseKey, Use]) -> bool:
        """Adds uses to the journal beside a large file, and returns whether it did. Raises OSError."""
        async with self._turn:
            path = await self.threads.run(self._prepare, False)
            if not await self.threads.run(use_journal.is_for, path):
                return False
            async with files.locked_async(path, self._lock_seconds, self.threads):
                return await self.threads.run_to_end(self._journal.append, path, uses)

    def close(self) -> None:
        """Ends the threads, which would not survive a fork."""
        self.threads.close()

    def _prepare(self, create: bool) -> Path:
        path = _real_path(self._path)
        if create:
            files.make_folder(path.parent)
        return path

    async def _read(self, path: Path | None = None) -> StoredTokens | None:
        """Reads the file at ``path``, or the one to which the path of this object leads."""
        async with self._guard:
            try:
                real_path, signature = await self.threads.run(_locate, path or self._path)
                known = self._snapshot
                if known is not None and known.is_settled and known.signature == signature:
                    self._snapshot = await self.threads.run(self._with_uses, known, real_path)
                    return self._snapshot.stored
                data = await files.read_regular(real_path, MAX_FILE_BYTES, self.threads)
            except FileNotFoundError:
                self._snapshot = None
                return None
            self._snapshot = await self.threads.run(self._decode, data, signature, real_path)
            return self._snapshot.stored

    def _decode(self, data: bytes, signature: Signature, path: Path) -> _Snapshot:
        content_hash = hashlib.sha256(data).digest()
        if self._snapshot is not None and self._snapshot.content_hash == content_hash:
            stored = self._snapshot.stored
        else:
            try:
                document, self._known = json_records.decode(data, self._known)
            except TokensDamaged as error:
                raise TokensDamaged(f"{self._path}: {error}") from None
            stored = StoredTokens(TokenHierarchy(document.tokens), document.unknown)
            self._journal.restart()
        return self._with_uses(_Snapshot(stored, content_hash, signature, _is_settled(signature)), path)

    def _with_uses(self, known: _Snapshot, path: Path) -> _Snapshot:
        """Returns a snapshot with the uses that the journal has got since; the same one if there are none."""
        uses = self._journal.read_new(path, known.content_hash)
        tokens = known.stored.tokens
        changed = used_records(tokens.find_by_id, uses) if uses else None
        if not changed:
            return known
        return known._replace(stored=known.stored._replace(tokens=tokens.with_records(changed)))


class JsonTokenStore:
    """A ``TokenStore`` in one JSON file."""

    def __init__(self, file: JsonTokenFile, audit: AuditSink, clock: Callable[[], float]) -> None:
        """``clock`` tells seconds since the epoch."""
        self._file = file
        self._audit = audit
        self._clock = clock

    async def read(self) -> TokenHierarchy:
        """Returns the newest tokens, as ``TokenStore`` says. Raises TokensMissing, TokensDamaged, OSError."""
        stored = await self._file.read()
        if stored is None:
            raise TokensMissing("there is no token file")
        return stored.tokens

    @contextlib.asynccontextmanager
    async def transaction(self, actor: Actor, *, may_create: bool = True) -> AsyncIterator[TokenTransaction]:
        """Changes tokens under the lock, as ``TokenStore`` says. Raises TokensMissing, TokensDamaged, OSError."""
        async with self._file.locked(create=may_create) as locked:
            tx = TokenTransaction(locked.stored.tokens, self._clock())
            yield tx
            if tx.changes:
                # Whoever waits for the change may go away; the change is made to its end.
                commit = asyncio.ensure_future(self._commit(actor, tx.changes, locked))
                await await_uncancelled(commit, asyncio.Future.result)

    async def _commit(self, actor: Actor, record_changes: Sequence[RecordChange], locked: LockedTokens) -> None:
        path, stored = locked
        is_ending = all(change.action in ENDINGS for change in record_changes)
        records = await self._file.threads.run(changes.apply, stored.tokens.records, record_changes)
        # Before anything is logged: refusals must not fill the log.
        encoded = await self._file.encode(records, stored.unknown, 16 if is_ending else 14)
        async with audited(self._audit, actor, record_changes, self._file.threads):
            await self._file.replace(path, encoded, is_urgent=is_ending)

    async def record_uses(self, uses: Mapping[UseKey, Use]) -> None:
        """Adds uses under the lock, as ``TokenStore`` says. Raises TokensMissing, TokensDamaged, OSError.

        Beside a large file they are added to a journal.
        """
        if await self._file.append_uses(uses):
            return
        async with self._file.locked(create=False) as (path, stored):
            records = await self._file.threads.run(add_uses, stored.tokens.records, uses)
            if records != stored.tokens.records:
                encoded = await self._file.encode(records, stored.unknown, 15)
                write = asyncio.ensure_future(self._file.replace(path, encoded))
                await await_uncancelled(write, asyncio.Future.result)


def _real_path(path: Path) -> Path:
    """Where the file really is: a rename onto a link would replace the link, and a link may be pointed elsewhere."""
    return Path(os.path.realpath(path))


def _locate(path: Path) -> tuple[Path, Signature]:
    real = _real_path(path)
    return real, files.signature(real)


def _encode(records: Sequence[TokenRecord], unknown: Mapping[str, Any]) -> EncodedTokens:
    data = json_format.encode(TokenDocument(tuple(records), unknown))
    return EncodedTokens(StoredTokens(TokenHierarchy(records), unknown), data, hashlib.sha256(data).digest())


def _snapshot(encoded: EncodedTokens, path: Path) -> _Snapshot:
    signature = files.signature(path)
    return _Snapshot(encoded.stored, encoded.content_hash, signature, _is_settled(signature))


def _is_settled(signature: Signature) -> bool:
    newest = max(signature.modified_ns, signature.changed_ns)
    return abs(time.time_ns() - newest) > SETTLED_SECONDS * 1e9
