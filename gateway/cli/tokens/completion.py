"""The script that completes the commands in a shell, under both names that the command line has."""

import shtab

from gateway.cli.tokens.arguments import parser

_FUNCTION = "_shtab_token_manager_py"
_SECOND_NAME = {
    "bash": f"complete -o bashdefault -F {_FUNCTION} token-manager",
    "zsh": f"(( $+functions[compdef] )) && compdef {_FUNCTION} token-manager",
}


def script(shell: str) -> str:
    """``shell`` is bash, zsh or tcsh."""
    first = str(shtab.complete(parser(), shell=shell)).rstrip("\n")
    # A script for tcsh is one command, and knows no function to be called under another name.
    second = _SECOND_NAME.get(shell) or first.replace("complete token_manager.py", "complete token-manager")
    return f"{first}\n{second}"
