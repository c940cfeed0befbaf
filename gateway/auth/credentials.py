"""From a request's headers and query to the one credential it carries. Pure.

Exactly one is accepted, because "the first one wins" lets two servers in a row see two different callers: the same header
twice, or two different secrets, is an error. The same secret in two different places passes, and an empty one is none.
"""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol, TypeVar
from urllib.parse import unquote, unquote_plus

import msgspec
from multidict import istr

from gateway.core.errors import BadRequest
from gateway.core.validators import SECRET_TEXT
from gateway.observability.redaction import redact_secret

QUERY_NAME = "token"
SUBPROTOCOL_PREFIX = "openai-insecure-api-key."
KEY_HEADERS = tuple(map(istr, ("X-API-Key", "X-API-Token", "API-Token", "api-key", "x-goog-api-key")))
"""Headers whose whole value is the secret."""
HEADERS = frozenset(name.lower() for name in ("Authorization", *KEY_HEADERS))
"""Every header that may hold a secret, in lower case: none of them goes upstream."""


Default = TypeVar("Default")


class Headers(Protocol):
    """What is needed of a multidict."""

    def getall(self, key: str, default: Default, /) -> Sequence[str] | Default: ...

    def __contains__(self, key: object, /) -> bool: ...


class Credential(msgspec.Struct, frozen=True):
    """``secret`` is None where the credential is malformed: it can never be valid, whatever is stored.

    ``mistake`` says then what is wrong, and ``shown`` what may be shown of it.
    """

    secret: str | None
    mistake: str = ""
    shown: str = "***"


class Query(NamedTuple):
    """A raw query string, cut into what goes on and the tokens that must not."""

    rest: str
    tokens: tuple[str, ...]


_NONE: tuple[str, ...] = ()
_FORM = "send `Authorization: Bearer YOUR_KEY`"
_NO_SCHEME = f"`Bearer` is missing before the key; {_FORM}"
_LONGEST_SCHEME = 12
_MISTAKES = tuple(
    (re.compile(form), mistake)
    for form, mistake in (
        (r"(?i)bearer:?\s", "`Bearer` is a part of the key: it belongs only into `Authorization`, and once"),
        (r"(?i)bearer:?$", "there is no key behind `Bearer`"),
        (r"[\"'`“”‘’]", "there are quotes around the key: send it without them"),
        (r"\$[A-Za-z_{(]|\{\{", "it is the name of a variable and not its value"),
        (r"<.*>$|(?i:(?:your|my)[-_](?:api[-_])?(?:key|token))", "it is a placeholder and no key"),
        (r".*\.\.\.$|.*…$|.*\*{3}", "it is a shortened form, as lists show it, and not the whole key"),
        (r"(?s).*[\s\xa0\u200b\ufeff]", "it contains a blank, a tab or a line end: send the key without them"),
        (r".{513}", "it is longer than 512 characters"),
        (r".*[^!-~]", "it is not printable ASCII"),
    )
)
"""Forms of what is sent in place of a key, and what is wrong with them. The first one that fits is told."""
# Header names that know their lower-case form already: each is looked up in every request.
_AUTHORIZATION = istr("Authorization")
_SUBPROTOCOLS = istr("Sec-WebSocket-Protocol")
_OTHER_HEADERS = (*KEY_HEADERS, _SUBPROTOCOLS)


def split_query(raw: str) -> Query:
    """Take every ``token=`` parameter out. Names and values are percent-decoded once; in a value ``+`` stays a plus."""
    if QUERY_NAME not in raw.lower() and "%" not in raw:
        return Query(raw, _NONE)
    rest: list[str] = []
    tokens: list[str] = []
    for part in raw.split("&"):
        # Some servers take a semicolon for an ampersand, and some mind neither capitals nor blanks around a name.
        pairs = [piece.partition("=") for piece in part.split(";")]
        found = [unquote(value, errors="replace") for name, _, value in pairs if _is_token(name)]
        if found:
            tokens += found
        else:
            rest.append(part)
    return Query("&".join(rest), tuple(tokens))


def _is_token(name: str) -> bool:
    return unquote_plus(name).strip().lower() == QUERY_NAME


def extract(headers: Headers, query_tokens: Sequence[str] = _NONE) -> Credential | None:
    """The credential, or None where there is none. Raises BadRequest(ambiguous_credentials)."""
    values = headers.getall(_AUTHORIZATION, _NONE)
    if len(values) == 1 and not query_tokens and not any(map(headers.__contains__, _OTHER_HEADERS)):
        secret = _bearer(values[0])
        if secret and SECRET_TEXT.fullmatch(secret) is not None:
            return Credential(secret)  # the usual case
    return _find_only(headers, values, query_tokens)


def _find_only(headers: Headers, authorization: Sequence[str], query_tokens: Iterable[str]) -> Credential | None:
    found: list[str | None] = []
    if authorization:
        _once("Authorization", authorization)
        found.append(_bearer(authorization[0]))
    for name in KEY_HEADERS:
        if values := headers.getall(name, _NONE):
            _once(name, values)
            found.append(values[0].strip())
    if values := headers.getall(_SUBPROTOCOLS, _NONE):
        found.extend(_subprotocol_keys(values))
    found.extend(query_tokens)
    if "" in found:  # an empty one says nothing, and clients send it beside the one that counts
        found = [secret for secret in found if secret != ""]
    if not found:
        return None
    if any(other != found[0] for other in found):
        raise _ambiguous("two different credentials were sent")
    secret = found[0]
    if secret is None or SECRET_TEXT.fullmatch(secret) is None:
        return _malformed(next(iter(headers.getall(_AUTHORIZATION, _NONE)), ""), secret)
    return Credential(secret)


def _malformed(authorization: str, secret: str | None) -> Credential:
    if secret is not None:
        return Credential(None, mistake_in(secret), _shown(secret))
    scheme, _, rest = authorization.strip().partition(" ")
    if not rest and len(scheme) > _LONGEST_SCHEME:
        return Credential(None, _NO_SCHEME, _shown(scheme))
    if scheme.lower() == "basic":
        return Credential(None, f"`Basic` is for a name and a password; {_FORM}")
    return Credential(None, f"{scheme[:_LONGEST_SCHEME]!a} is no scheme that is read here; {_FORM}")


def mistake_in(secret: str) -> str:
    """Returns what is wrong with a credential that no token has, where that can be told from its form; else nothing."""
    return next((mistake for form, mistake in _MISTAKES if form.match(secret)), "")


def _shown(secret: str) -> str:
    return redact_secret(secret) if secret.isascii() and secret.isprintable() else "***"


def _once(name: str, values: Sequence[str]) -> None:
    if len(values) > 1:
        raise _ambiguous(f"the header {name} was sent {len(values)} times")


def _bearer(value: str) -> str | None:
    """The secret behind ``Bearer``; None for any other scheme."""
    if value.startswith("Bearer ") or value[:7].lower() == "bearer ":
        return value[7:].strip(" ")
    return "" if value.strip().lower() in ("", "bearer") else None


def _subprotocol_keys(values: Sequence[str]) -> list[str]:
    keys = [
        item.strip().removeprefix(SUBPROTOCOL_PREFIX)
        for value in values
        for item in value.split(",")
        if item.strip().startswith(SUBPROTOCOL_PREFIX)
    ]
    if len(keys) > 1:
        raise _ambiguous("the WebSocket subprotocols hold more than one key")
    return keys


def _ambiguous(what: str) -> BadRequest:
    return BadRequest(f"Send exactly one credential: {what}.", code="ambiguous_credentials")
