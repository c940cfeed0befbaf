"""A line of the audit log, and the chain that binds the lines. Pure.

Each line is a JSON object that ends in ``,"hash":"<64 hexadecimal digits>"}``: the SHA-256 of all that stands before it on the
line, which includes the hash of the line before. So a line that is changed, taken out, put in or moved breaks the chain there.
Lines cut off at the end leave a whole chain: keep the last hash elsewhere to notice that.
"""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import msgspec

FIRST = "0" * 64
"""What stands for the hash before the first line."""

_MARK = b',"hash":"'
_TAIL_LENGTH = len(_MARK) + 64 + len(b'"}')


class Actor(msgspec.Struct, frozen=True):
    """Who asked for a change. ``kind`` is token, environment, open, secret (who holds one may end it) or command line;
    ``address`` is the client's, None for the command line."""

    kind: str
    name: str
    token_id: str | None = None
    address: str | None = None
    request_id: str | None = None


class AuditEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One change to one token. ``changes`` has, by field, the value before and after; never a secret, nor its hash."""

    actor: Actor
    action: str
    token_id: str
    token: str
    changes: Mapping[str, tuple[Any, Any]]


class ChainHead(NamedTuple):
    """The end of a chain: how many lines, and the hash of the last."""

    number: int
    hash: str


START = ChainHead(0, FIRST)


class Broken(NamedTuple):
    """The first line, counted from 1, that does not fit, and why."""

    line: int
    reason: str


class Verdict(NamedTuple):
    """What a chain is worth: its whole part, and where it breaks."""

    end: ChainHead
    broken: Broken | None


def encode(entry: AuditEvent, time: str, before: ChainHead) -> tuple[bytes, ChainHead]:
    """The line with its line end, and the new end of the chain."""
    head = {"number": before.number + 1, "time": time, **msgspec.to_builtins(entry), "previous": before.hash}
    open_line = msgspec.json.encode(head)[:-1]
    digest = hashlib.sha256(open_line).hexdigest()
    return open_line + _MARK + digest.encode() + b'"}\n', ChainHead(before.number + 1, digest)


def head_after(line: bytes) -> ChainHead:
    """Where the chain goes on behind this line. Raises ValueError for a line that is none."""
    content = read(line)
    return ChainHead(int(content["number"]), str(content["hash"]))


def read(line: bytes) -> dict[str, Any]:
    """The line's content. Raises ValueError, whose text is the reason."""
    try:
        content = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise ValueError("is not JSON") from None
    if not isinstance(content, dict) or not {"number", "previous", "hash"} <= content.keys():
        raise ValueError("is no line of an audit log")
    if not isinstance(content["number"], int) or not isinstance(content["hash"], str):
        raise ValueError("is no line of an audit log")
    return content


def verify(lines: Iterable[bytes]) -> Verdict:
    """Walk the chain as far as it holds. ``lines`` come with their line ends."""
    end = START
    for place, line in enumerate(lines, 1):
        try:
            end = _next(line, end)
        except ValueError as error:
            return Verdict(end, Broken(place, str(error)))
    return Verdict(end, None)


def _next(line: bytes, before: ChainHead) -> ChainHead:
    if not line.endswith(b"\n"):
        raise ValueError("ends early: a change was interrupted here, or something was cut off")
    body = line[:-1]
    content = read(body)
    if (
        hashlib.sha256(body[:-_TAIL_LENGTH]).hexdigest() != content["hash"]
        or body[-_TAIL_LENGTH:][: len(_MARK)] != _MARK
    ):
        raise ValueError("was changed: its content does not fit its hash")
    if content["previous"] != before.hash:
        raise ValueError("does not follow the line before it: lines were removed, added or moved here")
    if content["number"] != before.number + 1:
        raise ValueError(f"has the number {content['number']} where {before.number + 1} is due")
    return ChainHead(before.number + 1, content["hash"])
