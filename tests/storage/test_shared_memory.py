"""Memory that workers share: what one of them writes, the others see."""

import os
from collections.abc import Callable

from gateway.storage.shared_memory import SharedLatch, shared_bytes, shared_floats, shared_integers


def in_a_worker(work: Callable[[], object]) -> None:
    """Does the work in a forked process, to its end."""
    worker = os.fork()
    if worker == 0:
        work()
        os._exit(0)
    assert os.waitpid(worker, 0)[1] == 0


def test_a_latch_that_is_set_stays_set() -> None:
    latch = SharedLatch()
    assert not latch.is_set
    latch.set()
    latch.set()
    assert latch.is_set


def test_a_latch_that_a_worker_sets_is_set_for_all() -> None:
    latch = SharedLatch()
    in_a_worker(latch.set)
    assert latch.is_set


def test_a_number_that_a_worker_writes_is_seen_by_all() -> None:
    floats, integers, data = shared_floats(3), shared_integers(2), shared_bytes(5)
    assert (floats.tolist(), integers.tolist(), data.tobytes()) == ([0.0] * 3, [0] * 2, bytes(5))

    def write() -> None:
        floats[2] = -0.5
        integers[1] = 2**64 - 1
        data[4] = 255

    in_a_worker(write)
    assert (floats.tolist(), integers.tolist(), data.tobytes()) == ([0.0, 0.0, -0.5], [0, 2**64 - 1], b"\0\0\0\0\xff")
