"""Anonymous memory that a parent process and the workers forked from it share.

Make every object here before the workers are forked. A worker that is started in place of a dead one finds what the others see.
"""

import mmap

_NUMBER_BYTES = 8


def shared_bytes(size: int) -> "memoryview[int]":
    """Returns ``size`` bytes, all 0. The kernel gives memory to a page of them at its first write."""
    return memoryview(mmap.mmap(-1, size))


def shared_floats(count: int) -> "memoryview[float]":
    """Returns an array of 64-bit floats, all 0.0. Aligned, one of them is read and written whole."""
    return shared_bytes(count * _NUMBER_BYTES).cast("d")


def shared_integers(count: int) -> "memoryview[int]":
    """Returns an array of unsigned 64-bit integers, all 0. Aligned, one of them is read and written whole."""
    return shared_bytes(count * _NUMBER_BYTES).cast("Q")


class SharedLatch:
    """A fact that can become true and never false again, for all workers.

    The authentication uses one: a worker that starts while the token file is missing must not accept every request beside workers
    that demand a token.
    """

    def __init__(self) -> None:
        self._memory = shared_bytes(1)

    def set(self) -> None:
        """Makes the fact true."""
        self._memory[0] = 1

    @property
    def is_set(self) -> bool:
        """Whether the fact is true."""
        return self._memory[0] == 1
