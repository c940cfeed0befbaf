"""Writes lines for people. All commands write through this module, because a line may contain what a client has chosen."""

import argparse
from collections.abc import Callable
from typing import NoReturn, TextIO

from gateway.core.escaping import for_display


def print_lines(out: TextIO, *lines: str, end: str = "\n", style: Callable[[str], str] = str) -> None:
    """Writes each string as one line, whatever it contains, and flushes. ``style`` adds colours to an escaped line."""
    out.write("\n".join(style(for_display(line)) for line in lines) + end)
    out.flush()


class ArgumentParser(argparse.ArgumentParser):
    """Parses arguments, and escapes those that it quotes in an error."""

    def error(self, message: str) -> NoReturn:
        """Prints the usage and the message, and ends the program with exit code 2."""
        super().error(for_display(message))
