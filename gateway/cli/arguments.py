"""What the command line understands."""

import argparse

from gateway.tokens.record import Role, Status
from gateway.tokens.secret import PREFIXES

_TOKEN_HELP = "an id, a display prefix as `list` shows it, the secret or a longer beginning of it, or an exact name"
_EXAMPLES = """examples:
  token_manager.py create my-application
  token_manager.py create ci --owner ann@example.com --expires 90d --models 'gpt-4o*,text-embedding-3-small'
  token_manager.py list --status active
  token_manager.py revoke sk-a1b2c3d4e5f
  printf %s "$SECRET" | token_manager.py verify
"""


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="token_manager.py",
        description="Manage the API tokens of a gateway, whether it runs or not.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_create(commands)
    _add_list(commands)
    _add(commands, "show", "show one token").add_argument("token", metavar="TOKEN", help=_TOKEN_HELP)
    _add(commands, "revoke", "end a token for ever, and keep its record").add_argument(
        "token", metavar="TOKEN", help=_TOKEN_HELP
    )
    delete = _add(commands, "delete", "end a token and remove its record")
    delete.add_argument("token", metavar="TOKEN", help=_TOKEN_HELP)
    delete.add_argument("--yes", action="store_true", help="do not ask")
    verify = _add(commands, "verify", "read a secret from standard input and say whether it is good")
    verify.add_argument("source", metavar="-", nargs="?", choices=["-"], default="-", help="standard input")
    source = _add(commands, "import", "add the tokens of another token file, in this or FreeGPT's form")
    source.add_argument("file", metavar="FILE", help="a path, or - for standard input")
    return top


def _add_create(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    create = _add(commands, "create", "make a token and show its secret, once")
    create.add_argument("name", metavar="NAME", help="what it is for, so that you know later")
    create.add_argument("--owner", metavar="E-MAIL", help="whom it belongs to")
    create.add_argument("--role", choices=[role.value for role in Role], default=Role.MEMBER.value)
    create.add_argument("--expires", metavar="WHEN", default="never", help="30d, 12h, 1y, never or 2027-01-31")
    create.add_argument("--models", metavar="A,B*", help="only these models; * stands for anything")
    create.add_argument("--prefix", choices=PREFIXES, default="sk-", help="sk_test_ tokens never reach a model")


def _add_list(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    listing = _add(commands, "list", "list tokens")
    listing.add_argument("--owner", metavar="E-MAIL", help="only those of this owner")
    listing.add_argument("--status", choices=[status.value for status in Status], help="only those of this status")


def _add(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, text: str
) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    command.add_argument("--json", action="store_true", help="print one JSON document and nothing else")
    return command
