"""Supervises several workers: it starts them, restarts those that die, and stops them together. It knows nothing of HTTP."""

import logging
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from multiprocessing.context import ForkProcess
from typing import NamedTuple

log = logging.getLogger(__name__)

Target = Callable[[int], None]
"""Runs a worker, given its number. It is called in the child process with the supervisor's signals blocked; the worker unblocks
them when it can handle them."""

FIRST_PAUSE = 0.1
LONGEST_PAUSE = 10.0
STABLE_SECONDS = 30.0
END_NOW = signal.SIGUSR1
"""The signal that stops a worker without a drain. A second SIGTERM would not do: two pending ones count as one."""
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
_KILL_AFTER_SECONDS = 15.0


class Backoff(NamedTuple):
    """The seconds to wait before the next start. Each early death doubles them, a long life resets them."""

    pause: float = 0.0

    def after(self, lifetime: float) -> "Backoff":
        if lifetime >= STABLE_SECONDS:
            return Backoff(FIRST_PAUSE)
        return Backoff(min(max(self.pause * 2, FIRST_PAUSE), LONGEST_PAUSE))


class _Slot:
    """The state of one worker number, whichever process runs it."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.process: ForkProcess | None = None
        self.started = 0.0
        self.start_at = 0.0
        self.backoff = Backoff()


class Supervisor:
    """Keeps ``count`` workers running until SIGTERM or SIGINT. It must be used before any thread or event loop is started."""

    def __init__(
        self, target: Target, count: int, drain_seconds: float, on_stop: Callable[[], None], reload: Callable[[], bool]
    ) -> None:
        """``reload`` is called at SIGHUP, and says whether the workers should be told, too.

        ``on_stop`` is called when the workers are told to stop. It closes this process's copy of their socket: while any
        process has it open, the kernel accepts connections that nobody serves.
        """
        self._on_stop = on_stop
        self._reload = reload
        self._target = target
        self._slots = [_Slot(number) for number in range(count)]
        self._drain_seconds = drain_seconds
        self._context = multiprocessing.get_context("fork")

    def run(self) -> int:
        """Runs until stopped. Returns the exit code: 0 if every worker ended with 0 when it was told to stop."""
        # Blocked, signals wait until they are asked for: there is no handler that could run at a bad moment.
        # END_NOW, too, for the workers that inherit this: one that is just starting would die of it.
        signal.pthread_sigmask(signal.SIG_BLOCK, (*_SIGNALS, END_NOW))
        while True:
            self._start_due()
            received = signal.sigtimedwait(_SIGNALS, self._seconds_to_next_start())
            number = received.si_signo if received else None
            if number in (signal.SIGTERM, signal.SIGINT):
                return self._stop()
            if number == signal.SIGHUP and self._reload():
                self._tell_all(signal.SIGHUP)
            self._reap()

    def _start_due(self) -> None:
        now = time.monotonic()
        for slot in self._slots:
            if slot.process is None and now >= slot.start_at:
                slot.process = self._context.Process(
                    target=self._target, args=(slot.number,), name=f"worker {slot.number}"
                )
                slot.process.start()
                slot.started = now

    def _seconds_to_next_start(self) -> float:
        now = time.monotonic()
        waits = [max(0.0, slot.start_at - now) for slot in self._slots if slot.process is None]
        return min([1.0, *waits])

    def _reap(self) -> None:
        now = time.monotonic()
        for slot in self._slots:
            process = slot.process
            if process is None or process.is_alive():
                continue
            slot.backoff = slot.backoff.after(now - slot.started)
            slot.start_at = now + slot.backoff.pause
            slot.process = None
            log.error(
                "a worker died and is started again",
                extra={"worker": slot.number, "exit_code": process.exitcode, "pause": slot.backoff.pause},
            )

    def _tell_all(self, number: signal.Signals) -> None:
        for slot in self._slots:
            if slot.process is not None and slot.process.pid is not None and slot.process.is_alive():
                os.kill(slot.process.pid, number)

    def _stop(self) -> int:
        self._on_stop()
        self._tell_all(signal.SIGTERM)
        deadline = time.monotonic() + self._drain_seconds + _KILL_AFTER_SECONDS
        while any(slot.process is not None and slot.process.is_alive() for slot in self._slots):
            left = deadline - time.monotonic()
            if left <= 0:
                self._tell_all(signal.SIGKILL)
                break
            received = signal.sigtimedwait(_SIGNALS, min(left, 1.0))
            if received is not None and received.si_signo in (signal.SIGTERM, signal.SIGINT):
                self._tell_all(END_NOW)
        for slot in self._slots:
            if slot.process is not None:
                slot.process.join()
        return 0 if all(slot.process is None or slot.process.exitcode == 0 for slot in self._slots) else 1
