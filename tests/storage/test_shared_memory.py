"""Once engaged, engaged: in one process, and over all workers."""

import os

from gateway.storage.shared_memory import Ratchet


def test_it_begins_loose_and_stays_engaged() -> None:
    ratchet = Ratchet()
    assert not ratchet.engaged
    ratchet.engage()
    ratchet.engage()
    assert ratchet.engaged


def test_a_forked_worker_engages_it_for_its_siblings() -> None:
    ratchet = Ratchet()
    worker = os.fork()
    if worker == 0:
        ratchet.engage()
        os._exit(0)
    assert os.waitpid(worker, 0)[1] == 0
    assert ratchet.engaged
