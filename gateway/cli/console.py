"""Writes lines for people. All commands write through this module, because a line may contain what a client has chosen."""

import argparse
import os
import sys
from collections.abc import Callable
from typing import NoReturn, TextIO

from gateway.core.escaping import for_display


def print_lines(out: TextIO, *lines: str, end: str = "\n", style: Callable[[str], str] = str) -> None:
    """Writes each string as one line, whatever it contains, and flushes. ``style`` adds colours to an escaped line."""
    out.write("\n".join(style(for_display(line)) for line in lines) + end)
    out.flush()


def discard_output() -> None:
    """Makes standard output lead nowhere, once its reader has gone: Python's own flush at the end must not fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class WrongUsage(Exception):
    """Tells that arguments cannot be parsed. ``usage`` is the line that shows how they are written."""

    def __init__(self, message: str, usage: str) -> None:
        super().__init__(message)
        self.usage = usage


class ArgumentParser(argparse.ArgumentParser):
    """Parses arguments, and escapes those that it quotes in an error."""

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        """Ends the program, also where nobody reads the help any more, as in ``--help | head``."""
        try:
            sys.stdout.flush()
        except BrokenPipeError:
            discard_output()
        super().exit(status, message)

    def error(self, message: str) -> NoReturn:
        """Prints the usage and the message, and ends the program with exit code 2."""
        super().error(for_display(message))


class RaisingParser(ArgumentParser):
    """Parses arguments, and raises WrongUsage where its parent ends the program."""

    def error(self, message: str) -> NoReturn:
        """Raises WrongUsage."""
        raise WrongUsage(f"{self.prog}: error: {message}", self.format_usage())
