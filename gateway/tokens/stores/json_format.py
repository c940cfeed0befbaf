"""Reads and writes the content of the token file: JSON bytes to records and back. Pure.

Two forms are read: ``{"version": 1, "tokens": [...]}``, and FreeGPT's ``{"sk-...": {"name", "created_at", "last_used",
"active"}}`` with secrets in clear. Only the first is written, so the first write turns secrets into hashes.

Reading is strict, because a mistake here gives access: a duplicate key could hide a revocation, and so could a misspelt one.
"""

import difflib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from gateway.core.validators import is_secret_text
from gateway.tokens import secret, validation
from gateway.tokens.models import TokenRecord
from gateway.tokens.store import TokensDamaged
from gateway.tokens.validation import FieldError

VERSION = 1
_RESTRICTIONS = ("revoked_at", "expires_at", "models", "role", "parent_id", "limits")
_FOREIGN_STATE_FIELDS = ("active", "status", "disabled", "blocked")
"""What other files say of a token's state. Kept as unknown, `"active": false` would be an active token."""
_FREEGPT_FIELDS = frozenset({"name", "created_at", "last_used", "active"})
_READERS = tuple(validation.READERS.items())
_OPTIONAL = ("owner", "parent_id", "expires_at", "revoked_at", "last_used", "models", "limits", "previous_secrets")
_OF_NULL = {name: validation.READERS[name](None) for name in _OPTIONAL}
"""What most records have in these fields: looked up, because reading them took a third of the time."""
_SMALLEST, _LARGEST = -(2**63), 2**64 - 1  # what the encoder can write again


class TokenDocument(msgspec.Struct, frozen=True):
    """All tokens of a file, and the top-level fields that are not ours."""

    tokens: tuple[TokenRecord, ...] = ()
    unknown: Mapping[str, Any] = {}


def decode(data: bytes) -> TokenDocument:
    """Returns the tokens of a file in either form. Raises TokensDamaged."""
    content = parse(data)
    if not isinstance(content, dict):
        raise TokensDamaged(f"line 1: expected a JSON object, found {type(content).__name__}")
    if "tokens" in content or "version" in content:
        document = _decode_current(content)
    else:
        document = TokenDocument(tuple(_decode_freegpt(key, value) for key, value in content.items()))
    require_unique(document.tokens)
    return document


def encode(document: TokenDocument) -> bytes:
    """Returns the bytes to write, which end with a line end."""
    content = {
        **document.unknown,
        "version": VERSION,
        "tokens": [_encode_record(record) for record in document.tokens],
    }
    return msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n"


def _encode_record(record: TokenRecord) -> dict[str, Any]:
    content = validation.to_json(record)
    if not record.previous_secrets:
        del content["previous_secrets"]  # most tokens have never been rotated
    return {**content, **record.unknown}


def parse(data: bytes) -> Any:
    """Returns the content of JSON that can be written again and has no duplicate keys. Raises TokensDamaged."""
    try:
        text = data.decode("utf-8-sig")
        content = json.loads(
            text,
            object_pairs_hook=_object_without_duplicates,
            parse_constant=_refuse_constant,
            parse_float=_float,
            parse_int=_integer,
        )
        if "\\u" in text:
            # JSON can spell half a surrogate pair, UTF-8 cannot: what is read must be fit to be written again.
            json.dumps(content, ensure_ascii=False).encode()
        return content
    except UnicodeEncodeError:
        raise TokensDamaged("a string holds half of a surrogate pair (\\ud800 to \\udfff)") from None
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise TokensDamaged(f"line {line}: not UTF-8") from None
    except json.JSONDecodeError as error:
        raise TokensDamaged(f"line {error.lineno}, column {error.colno}: {error.msg}") from None
    except RecursionError:
        raise TokensDamaged("line 1: nested too deeply") from None
    except ValueError as error:
        raise TokensDamaged(str(error)) from None


def _object_without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        duplicate = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {_redacted(duplicate)} appears twice in an object")
    return found


def _redacted(key: str) -> str:
    """A key may be a secret, in FreeGPT's form."""
    return (
        repr(key)
        if key in (*validation.READERS, *_FREEGPT_FIELDS, "version", "tokens")
        else f"{secret.display_prefix(key)}..."
    )


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"the number {text[:40]} is too large")
    return number


def _integer(text: str) -> int:
    if len(text) > 20 or not _SMALLEST <= int(text) <= _LARGEST:
        raise ValueError(f"the number {text[:40]} is too large")
    return int(text)


def _decode_current(content: dict[str, Any]) -> TokenDocument:
    if content.get("version") != VERSION or isinstance(content.get("version"), bool):
        found = content.get("version")
        described = found if found is None or isinstance(found, int) else f"a {type(found).__name__}"
        raise TokensDamaged(f"version is {described}; this gateway reads version {VERSION}")
    tokens = content.get("tokens")
    if not isinstance(tokens, list):
        raise TokensDamaged("`tokens` must be a list")
    unknown = {key: value for key, value in content.items() if key not in ("version", "tokens")}
    return TokenDocument(tuple(decode_record(index, item) for index, item in enumerate(tokens)), unknown)


def decode_record(index: int, item: Any) -> TokenRecord:
    """Returns the record that is at ``index`` of a file's list. Raises TokensDamaged."""
    place = f"tokens[{index}]"
    if not isinstance(item, dict):
        raise TokensDamaged(f"{place}: expected an object")
    try:
        known = {
            name: read(value) if (value := item.get(name)) is not None or name not in _OF_NULL else _OF_NULL[name]
            for name, read in _READERS
        }
    except FieldError as error:
        raise TokensDamaged(f"{place}: {error}") from None
    unknown = {key: value for key, value in item.items() if key not in validation.READERS}
    for key in unknown:
        _refuse_lookalike(place, key)
    return TokenRecord(**known, unknown=unknown)


def _refuse_lookalike(place: str, key: str) -> None:
    """A misspelt restriction would be kept as somebody's own field, and restrict nothing."""
    lower = key.lower()
    if lower in _FOREIGN_STATE_FIELDS:
        raise TokensDamaged(f"{place}: unknown field {key!r}; a token is ended by 'revoked_at'")
    if near := difflib.get_close_matches(lower, _RESTRICTIONS, cutoff=0.8):
        raise TokensDamaged(f"{place}: unknown field {key!r}; did you mean {near[0]!r}?")


def _decode_freegpt(token: str, item: Any) -> TokenRecord:
    place = f"the token {secret.display_prefix(token)}..."
    if not isinstance(item, dict) or not isinstance(item.get("active"), bool):
        raise TokensDamaged(f"{place}: expected an object with name, created_at, last_used and active")
    if not is_secret_text(token):
        raise TokensDamaged(f"{place}: not printable ASCII of at most 512 characters")
    try:
        created_at = validation.READERS["created_at"](item.get("created_at"))
        last_used = validation.READERS["last_used"](item.get("last_used"))
        name = validation.name(item.get("name"))
    except FieldError as error:
        raise TokensDamaged(f"{place}: {error}") from None
    digest = secret.digest(token)
    unknown = {key: value for key, value in item.items() if key not in _FREEGPT_FIELDS}
    for key in unknown:
        if key in validation.READERS:
            raise TokensDamaged(f"{place}: {key!r} is no field of FreeGPT's form; a file is in one form or the other")
        _refuse_lookalike(place, key)
    return TokenRecord(
        id=f"tok_{digest[:16]}",  # the same in every process until the file is written in the new form
        name=name,
        prefix=secret.display_prefix(token),
        hash=digest,
        created_at=created_at,
        last_used=last_used,
        revoked_at=None if item["active"] else (last_used or created_at),
        unknown=unknown,
    )


def require_unique(tokens: Sequence[TokenRecord]) -> None:
    """Raises TokensDamaged where two records have an id or a secret in common."""
    ids: set[str] = set()
    hashes: set[str] = set()
    for index, record in enumerate(tokens):
        if record.id in ids:
            raise TokensDamaged(f"tokens[{index}]: its id appears twice")
        ids.add(record.id)
        for one in (record.hash, *(previous.hash for previous in record.previous_secrets)):
            if one in hashes:
                raise TokensDamaged(f"tokens[{index}]: its hash appears twice")
            hashes.add(one)
