"""Once engaged, engaged: in one process, and over all workers."""

import os

from gateway.storage.shared_memory import SharedLatch


def test_it_begins_loose_and_stays_engaged() -> None:
    enforcement = SharedLatch()
    assert not enforcement.is_set
    enforcement.set()
    enforcement.set()
    assert enforcement.is_set


def test_a_forked_worker_engages_it_for_its_siblings() -> None:
    enforcement = SharedLatch()
    worker = os.fork()
    if worker == 0:
        enforcement.set()
        os._exit(0)
    assert os.waitpid(worker, 0)[1] == 0
    assert enforcement.is_set
