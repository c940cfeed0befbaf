"""The lines of the audit log, and the chain of hashes that connects them. Pure.

Each line is a JSON object that ends in ``,"hash":"<64 hexadecimal digits>"}``: the SHA-256 of everything before it on the line,
which includes the hash of the previous line. A line that is changed, removed, inserted or moved breaks the chain at that place.
Lines removed at the end leave a valid chain: keep the last hash elsewhere to notice that.
"""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import msgspec

from gateway.core.escaping import for_json

FIRST = "0" * 64
"""The previous hash of the first line."""

_MARK = b',"hash":"'
_TAIL_LENGTH = len(_MARK) + 64 + len(b'"}')


class Actor(msgspec.Struct, frozen=True):
    """Who asked for a change.

    ``kind`` is token, environment, open, secret (a secret revokes itself) or command line. ``address`` is that of the client,
    None for the command line.
    """

    kind: str
    name: str
    token_id: str | None = None
    address: str | None = None
    request_id: str | None = None


class AuditEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One change of one token. ``changes`` has the values before and after, by field; never a secret or its hash."""

    actor: Actor
    action: str
    token_id: str
    token: str
    changes: Mapping[str, tuple[Any, Any]]


class ChainHead(NamedTuple):
    """The end of a chain: the number of lines, and the hash of the last line."""

    number: int
    hash: str


START = ChainHead(0, FIRST)


class Broken(NamedTuple):
    """The first invalid line, counted from 1, and the reason."""

    line: int
    reason: str


class Verdict(NamedTuple):
    """The result of ``verify``: the end of the valid part, and the line that breaks the chain, if any."""

    end: ChainHead
    broken: Broken | None


def encode(event: AuditEvent, time: str, before: ChainHead) -> tuple[bytes, ChainHead]:
    """Returns the line with its end, and the new end of the chain. ``time`` in ISO 8601; ``before`` is the chain so far."""
    head = {"number": before.number + 1, "time": time, **msgspec.to_builtins(event), "previous": before.hash}
    open_line = for_json(msgspec.json.encode(head))[:-1]
    digest = hashlib.sha256(open_line).hexdigest()
    return open_line + _MARK + digest.encode() + b'"}\n', ChainHead(before.number + 1, digest)


def head_after(line: bytes) -> ChainHead:
    """Returns the end of the chain after this line, without checking the hash. Raises ValueError for an invalid line."""
    content = read(line)
    return ChainHead(int(content["number"]), str(content["hash"]))


def read(line: bytes) -> dict[str, Any]:
    """Returns the content of a line. Raises ValueError, whose text is the reason."""
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
    """Checks a chain up to the first invalid line. ``lines`` come with their ends."""
    end = START
    for number, line in enumerate(lines, 1):
        try:
            end = _verify_line(line, end)
        except ValueError as error:
            return Verdict(end, Broken(number, str(error)))
    return Verdict(end, None)


def _verify_line(line: bytes, before: ChainHead) -> ChainHead:
    """Returns the end of the chain after this line. Raises ValueError, whose text is the reason."""
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
