"""Limits the requests of each client address, and the changes of each token, in tables of fixed size that all workers share.

The algorithm is GCRA: a key has one number, the time at which all its requests are paid back. A table consists of buckets of
slots. A key that finds its bucket full takes the slot of the key that has been quiet for longest, so many keys need no more
memory, and those that are limited are forgotten last. The bucket is chosen by a keyed hash, so that nobody can choose to share
one with somebody else.
"""

import fcntl
import hashlib
import os
import secrets
import tempfile
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import IPv6Address, IPv6Network, ip_address
from pathlib import Path

from gateway.storage.shared_memory import shared_floats, shared_integers

_BUCKETS = 1024
_SLOTS = 8
_PERIOD_SECONDS = 60.0


class KeyedRateLimit:
    """A limit of so many requests a minute for each key. It must be made before workers are forked."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        """``monotonic`` is a clock in seconds that is the same for all processes."""
        self._monotonic = monotonic
        self._salt = secrets.token_bytes(16)
        self._names = shared_integers(_BUCKETS * _SLOTS)
        self._paid_at = shared_floats(_BUCKETS * _SLOTS)
        # The kernel frees a record lock when its process dies; a lock in memory would stay locked for ever.
        self._lock_file, path = tempfile.mkstemp()
        Path(path).unlink()
        weakref.finalize(self, os.close, self._lock_file)

    def wait(self, key: str, per_minute: int) -> float:
        """Counts a request and returns 0, or returns the seconds until one may pass."""
        interval = _PERIOD_SECONDS / per_minute
        digest = hashlib.blake2b(key.encode(), digest_size=16, key=self._salt).digest()
        bucket = int.from_bytes(digest[:8]) % _BUCKETS
        name = int.from_bytes(digest[8:]) or 1
        with self._locked(bucket):
            now = self._monotonic()
            slot = self._slot(bucket * _SLOTS, name)
            paid_at = max(now, self._paid_at[slot]) if self._names[slot] == name else now
            excess = paid_at + interval - now - _PERIOD_SECONDS
            if excess > 1e-6:
                return excess
            self._names[slot] = name
            self._paid_at[slot] = paid_at + interval
            return 0.0

    def _slot(self, first: int, name: int) -> int:
        slots = range(first, first + _SLOTS)
        known = next((slot for slot in slots if self._names[slot] == name), None)
        return known if known is not None else min(slots, key=lambda slot: self._paid_at[slot])

    @contextmanager
    def _locked(self, bucket: int) -> Iterator[None]:
        """Locks a bucket. It is locked for microseconds only, so waiting for it does not delay the event loop."""
        fcntl.lockf(self._lock_file, fcntl.LOCK_EX, 1, bucket)
        try:
            yield
        finally:
            fcntl.lockf(self._lock_file, fcntl.LOCK_UN, 1, bucket)


class IpRateLimit:
    """A limit of so many requests a minute for each address. It must be made before workers are forked."""

    def __init__(self, per_minute: int, monotonic: Callable[[], float] = time.monotonic) -> None:
        """``monotonic`` as for ``KeyedRateLimit``."""
        self._per_minute = per_minute
        self._limit = KeyedRateLimit(monotonic)

    def wait(self, address: str | None) -> float:
        """Counts a request and returns 0, or returns the seconds until one may pass. Clients without an address count as one."""
        return self._limit.wait(_network(address), self._per_minute)


def _network(address: str | None) -> str:
    """Returns an IPv4 address, or the /64 network of an IPv6 address: whoever has one address of it has all 2^64."""
    if address is None:
        return ""
    parsed = ip_address(address)
    return str(IPv6Network((parsed, 64), strict=False)) if isinstance(parsed, IPv6Address) else address
