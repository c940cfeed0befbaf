"""Defines the arguments of ``token_manager.py``, and the shell scripts that complete them."""

import argparse
from collections.abc import Sequence
from typing import TypeAlias

from gateway.cli.console import RaisingParser
from gateway.core import validators
from gateway.tokens.models import Role, Status
from gateway.tokens.secret import PREFIXES

_TOKEN_HELP = "an id, a display prefix as `list` shows it, the secret or a longer beginning of it, or an exact name"
_EXAMPLES = {
    "": """
  token_manager.py create my-application
  token_manager.py list --tree
  token_manager.py rotate my-application --grace 24h
  token_manager.py revoke sk-a1b2c3d4e5f""",
    "create": """
  token_manager.py create github-actions --owner ann@example.com --expires 90d
  token_manager.py create chat --models 'gpt-4o*,text-embedding-3-small' --rpm 60 --budget 10/day
  token_manager.py create helper --parent chat --expires 12h
  token_manager.py create try-out --prefix sk_test_""",
    "list": """
  token_manager.py list --status active
  token_manager.py list --search ann --sort last-used --limit 10 --table
  token_manager.py list --owner ann@example.com --json
  token_manager.py list --tree""",
    "show": """
  token_manager.py show my-application""",
    "update": """
  token_manager.py update my-application --expires 90d --budget 20/month
  token_manager.py update my-application --budget none --models all
  token_manager.py update my-application --name another-name""",
    "revoke": """
  token_manager.py revoke sk-a1b2c3d4e5f
  token_manager.py revoke my-application --json""",
    "delete": """
  token_manager.py delete my-application
  token_manager.py delete tok_5hK2mQ8rT1vX4zB7nC0d --yes""",
    "rotate": """
  token_manager.py rotate my-application               the old secret works for 24 hours more
  token_manager.py rotate my-application --grace 7d
  token_manager.py rotate my-application --grace 0     the old secret has leaked: it ends now""",
    "usage": """
  token_manager.py usage
  token_manager.py usage my-application
  token_manager.py usage --since 7d --json
  token_manager.py usage --by model --since 30d --csv > models.csv""",
    "verify": """
  printf %s "$SECRET" | token_manager.py verify""",
    "import": """
  token_manager.py import old/api_tokens.json""",
    "audit": """
  token_manager.py audit
  token_manager.py audit --verify""",
    "completion": """
  eval "$(token_manager.py completion bash)"
  token_manager.py completion zsh > ~/.zfunc/_token_manager""",
}

SHOW_A_SECRET = ("create", "rotate")
"""Commands that fail where nobody reads what they print."""
SORT_ORDERS = ("created", "last-used", "name", "expires")
"""The orders of ``list``."""
COMMANDS = tuple(name for name in _EXAMPLES if name)
"""The names of all commands."""
_COMPLETE_FUNCTION = "_shtab_token_manager_py"
_COMPLETE_SECOND_NAME = {
    "bash": f"complete -o bashdefault -F {_COMPLETE_FUNCTION} token-manager",
    "zsh": f"(( $+functions[compdef] )) && compdef {_COMPLETE_FUNCTION} token-manager",
}

Commands: TypeAlias = "argparse._SubParsersAction[RaisingParser]"


def parser() -> RaisingParser:
    """Returns the parser of all commands."""
    top = RaisingParser(
        prog="token_manager.py",
        description="Manage the API tokens of a gateway, whether it runs or not.",
        epilog=f"examples:{_EXAMPLES['']}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_create(commands)
    _add_list(commands)
    _add_on_token(commands, "show", "show one token")
    _add_update(commands)
    _add_ending(commands, "revoke", "end a token and its children for ever, and keep the records")
    _add_ending(commands, "delete", "end a token and its children, and remove its record")
    _add_rotate(commands)
    _add_usage(commands)
    verify = _add(commands, "verify", "read a secret from standard input and say whether it is good")
    verify.add_argument("source", metavar="-", nargs="?", choices=["-"], default="-", help="standard input")
    source = _add(commands, "import", "add the tokens of another token file or of a dump of LiteLLM or one-api")
    source.add_argument("file", metavar="FILE", help="a path, or - for standard input")
    audit = _add(commands, "audit", "print who changed what, and when")
    audit.add_argument("--verify", action="store_true", help="check the chain, and name the first broken line")
    completion = _add(commands, "completion", "print the script that completes these commands in a shell")
    completion.add_argument("shell", choices=["bash", "zsh", "tcsh"])
    return top


def wants_json(given: Sequence[str]) -> bool:
    """Returns whether arguments that cannot be parsed ask for JSON."""
    options = given[: given.index("--")] if "--" in given else given
    return any(len(one) > 2 and "--json".startswith(one) for one in options)


def _add_create(commands: Commands) -> None:
    create = _add(commands, "create", "make a token and show its secret, once")
    create.add_argument("name", metavar="NAME", help="what it is for, so that you know later")
    _add_fields(create)
    create.add_argument("--prefix", choices=PREFIXES, help="sk_test_ tokens never reach a model")
    create.add_argument("--parent", metavar="TOKEN", help="make it a child: it gets no more, and ends no later")


def _add_update(commands: Commands) -> None:
    update = _add_on_token(commands, "update", "change what a token may do, until when, and whose it is")
    update.add_argument("--name", metavar="NAME", help="what it is for")
    _add_fields(update, " (none: no limit)", " (all: every model)", " (none: nobody)")


def _add_fields(command: RaisingParser, no_limit: str = "", all_models: str = "", nobody: str = "") -> None:
    command.add_argument("--owner", metavar="E-MAIL", help="whom it belongs to" + nobody)
    command.add_argument("--role", choices=[role.value for role in Role], help="member, unless said otherwise")
    command.add_argument("--expires", metavar="WHEN", help="30d, 12h, 1y, never or 2027-01-31")
    command.add_argument("--models", metavar="A,B*", help="only these models; * stands for anything" + all_models)
    command.add_argument("--rpm", metavar="N", help="requests a minute" + no_limit)
    command.add_argument("--tpm", metavar="N", help="prompt and completion tokens a minute" + no_limit)
    command.add_argument("--max-parallel", metavar="N", help="requests at a time" + no_limit)
    command.add_argument("--budget", metavar="USD[/day|week|month]", help="money, for each window or in all" + no_limit)


def _add_list(commands: Commands) -> None:
    listing = _add(commands, "list", "list tokens")
    listing.add_argument("--owner", metavar="E-MAIL", help="only those of this owner")
    listing.add_argument("--status", choices=[status.value for status in Status], help="only those of this status")
    listing.add_argument("--search", metavar="TEXT", help="only those with this in their name, owner, id or prefix")
    listing.add_argument("--sort", choices=SORT_ORDERS, help="newest or latest first; names from A to Z")
    listing.add_argument("--limit", metavar="N", type=_count, help="only the first N")
    form = listing.add_mutually_exclusive_group()
    form.add_argument("--table", action="store_true", help="one line a token, with its id")
    form.add_argument("--tree", action="store_true", help="children below their parents")


def _count(text: str) -> int:
    number = validators.parse_whole_number(text, 1, 2**31)
    if number is None:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1, not {text!r}")
    return number


def _add_ending(commands: Commands, name: str, text: str) -> None:
    command = _add_on_token(commands, name, text)
    command.add_argument("--yes", action="store_true", help="do not ask")


def _add_rotate(commands: Commands) -> None:
    rotate = _add_on_token(commands, "rotate", "give a token a new secret; everything else stays")
    rotate.add_argument(
        "--grace", metavar="SPAN", default="24h", help="how long the old secret works on; 0 ends it now (default: 24h)"
    )


def _add_usage(commands: Commands) -> None:
    usage = _add(commands, "usage", "show how often tokens were used, when last, and what for how much")
    usage.add_argument("token", metavar="TOKEN", nargs="?", help=_TOKEN_HELP)
    usage.add_argument(
        "--since",
        metavar="WHEN",
        help="only what was used within the last 7d, 12h … or since 2027-01-31; in whole hours",
    )
    usage.add_argument(
        "--by",
        choices=["token", "model", "owner"],
        default="token",
        help="what the lines are (default: token). Use without a token, or of a deleted one, is in the others",
    )
    usage.add_argument("--csv", action="store_true", help="print lines for a spreadsheet")


def _add_on_token(commands: Commands, name: str, text: str) -> RaisingParser:
    command = _add(commands, name, text)
    command.add_argument("token", metavar="TOKEN", help=_TOKEN_HELP)
    return command


def _add(commands: Commands, name: str, text: str) -> RaisingParser:
    command = commands.add_parser(
        name,
        help=text,
        description=text[0].upper() + text[1:] + ".",
        epilog=f"examples:{_EXAMPLES[name]}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("--json", action="store_true", help="print one JSON document and nothing else")
    return command


def completion_script(shell: str) -> str:
    """Returns the script that completes the commands, under both names of this program. ``shell`` is bash, zsh or tcsh."""
    import shtab

    first = str(shtab.complete(parser(), shell=shell)).rstrip("\n")
    # A script for tcsh is one command and has no function that could be registered under a second name.
    second = _COMPLETE_SECOND_NAME.get(shell) or first.replace("complete token_manager.py", "complete token-manager")
    return f"{first}\n{second}"
