"""How long to wait before a dead worker is started again, and what cannot kill one that is just starting."""

import multiprocessing
import os
import signal
import sys

from gateway.server.supervisor import END_NOW, FIRST_PAUSE, LONGEST_PAUSE, STABLE_SECONDS, Backoff, Supervisor


def nothing() -> None:
    """There is no socket to close."""


def test_the_first_death_costs_little() -> None:
    assert Backoff().pause == 0
    assert Backoff().after(0.1).pause == FIRST_PAUSE


def test_early_deaths_double_the_pause_up_to_a_bound() -> None:
    backoff, pauses = Backoff(), []
    for _ in range(12):
        backoff = backoff.after(1.0)
        pauses.append(backoff.pause)
    assert pauses[:4] == [0.1, 0.2, 0.4, 0.8]
    assert pauses == sorted(pauses)
    assert pauses[-1] == LONGEST_PAUSE


def test_a_long_life_makes_good() -> None:
    assert Backoff(LONGEST_PAUSE).after(STABLE_SECONDS).pause == FIRST_PAUSE
    assert Backoff(LONGEST_PAUSE).after(STABLE_SECONDS - 0.001).pause == LONGEST_PAUSE


def test_no_signal_of_the_supervisor_kills_a_worker_that_is_just_starting() -> None:
    reading, writing = os.pipe()

    def work(_number: int) -> None:
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        os.write(writing, b"yes" if {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, END_NOW} <= blocked else b"no")
        signal.sigwait([signal.SIGTERM])

    process = multiprocessing.get_context("fork").Process(
        target=lambda: sys.exit(Supervisor(work, 1, 1.0, nothing, lambda: True).run())
    )
    process.start()
    assert os.read(reading, 3) == b"yes"
    assert process.pid is not None
    os.kill(process.pid, signal.SIGTERM)
    process.join(30)
    assert process.exitcode == 0
    os.close(reading)
    os.close(writing)
