"""So many requests a minute for each address, in a bounded piece of memory that all workers share.

GCRA: an address has one number, the time at which all it has used is paid back. The memory is a table of buckets; an address
that finds its bucket full takes the place of the one that has been quiet for longest, so a flood of addresses costs no more
memory, and who is held back is forgotten last. Which bucket an address falls into is keyed: nobody can aim.
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


class IpRateLimit:
    """Make it before workers are forked."""

    def __init__(self, per_minute: int, monotonic: Callable[[], float] = time.monotonic) -> None:
        """``monotonic`` in seconds, the same for all processes."""
        self._interval = _PERIOD_SECONDS / per_minute
        self._monotonic = monotonic
        self._salt = secrets.token_bytes(16)
        self._names = shared_integers(_BUCKETS * _SLOTS)
        self._paid_at = shared_floats(_BUCKETS * _SLOTS)
        # The kernel frees a record lock when its process dies; a lock in memory would stay held for ever.
        self._lock_file, path = tempfile.mkstemp()
        Path(path).unlink()
        weakref.finalize(self, os.close, self._lock_file)

    def wait(self, address: str | None) -> float:
        """Seconds to wait: 0 where the request may pass, which is then counted. All who have no address are one."""
        digest = hashlib.blake2b(_network(address).encode(), digest_size=16, key=self._salt).digest()
        bucket = int.from_bytes(digest[:8]) % _BUCKETS
        name = int.from_bytes(digest[8:]) or 1
        with self._locked(bucket):
            now = self._monotonic()
            slot = self._slot(bucket * _SLOTS, name)
            paid_at = max(now, self._paid_at[slot]) if self._names[slot] == name else now
            excess = paid_at + self._interval - now - _PERIOD_SECONDS
            if excess > 1e-6:
                return excess
            self._names[slot] = name
            self._paid_at[slot] = paid_at + self._interval
            return 0.0

    def _slot(self, first: int, name: int) -> int:
        slots = range(first, first + _SLOTS)
        known = next((slot for slot in slots if self._names[slot] == name), None)
        return known if known is not None else min(slots, key=lambda slot: self._paid_at[slot])

    @contextmanager
    def _locked(self, bucket: int) -> Iterator[None]:
        """Held for microseconds, so waiting for it does not hold up the event loop."""
        fcntl.lockf(self._lock_file, fcntl.LOCK_EX, 1, bucket)
        try:
            yield
        finally:
            fcntl.lockf(self._lock_file, fcntl.LOCK_UN, 1, bucket)


def _network(address: str | None) -> str:
    """Whoever has one IPv6 address has the 2^64 beside it."""
    if address is None:
        return ""
    parsed = ip_address(address)
    return str(IPv6Network((parsed, 64), strict=False)) if isinstance(parsed, IPv6Address) else address
