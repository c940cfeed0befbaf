"""Asks before something is ended for good, where somebody can answer."""

import io
import select
import sys
from typing import TextIO

from gateway.cli.tokens.output import Printer

_WAIT_SECONDS = 0.5
"""How long an answer in a pipe may take."""


class NoAnswer(Exception):
    """Tells that standard input holds something else than an answer."""


def is_confirmed(printer: Printer, question: str) -> bool:
    """Returns whether the answer is yes. At a terminal nothing but yes will do.

    Without a person, an input that is empty or stays silent has no objection, and ``n`` is one. Raises NoAnswer.
    """
    if sys.stdin is None:
        return True
    if sys.stdin.isatty():
        printer.ask(question)
        return sys.stdin.readline().strip().lower() in ("y", "yes")
    if _is_silent(sys.stdin):
        if not sys.stderr.isatty():
            return True
        printer.ask(question)
    answer = sys.stdin.readline()
    if answer.strip().lower() not in ("", "y", "yes", "n", "no"):
        # Perhaps the list of a loop, whose next line this has been.
        raise NoAnswer("standard input must be y or n; add --yes, or </dev/null in a loop")
    return not answer or answer.strip().lower() in ("y", "yes")


def _is_silent(stream: TextIO) -> bool:
    try:
        return not select.select([stream], [], [], _WAIT_SECONDS)[0]
    except io.UnsupportedOperation:
        return False  # a stream in memory
