"""The ratchet: once a gateway has enforced, only a restart makes it open.

With several workers the fact is shared by all: a worker that is started again while the token file is away must not come
up open beside siblings that enforce.
"""

import mmap


class SharedLatch:
    """A fact that can become true, and never false again: one byte that a parent and its forked children share."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 1)

    def set(self) -> None:
        self._memory[0] = 1

    @property
    def is_set(self) -> bool:
        return self._memory[0] == 1
