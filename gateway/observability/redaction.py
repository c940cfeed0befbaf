"""Secrets, made unreadable wherever text leaves the gateway. Pure."""

import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from urllib.parse import quote

import msgspec

_SECRET_FORMS = re.compile(
    r"(?:sk|pk|rk)[-_][A-Za-z0-9_\-]{12,}"  # ours, OpenAI's, and most of the field's
    r"|(?i:bearer)\s+[^\s\"',]{12,}"
    r"|(?i:authorization\W{1,8}basic)\s+[A-Za-z0-9+/=_-]{8,}"  # the word alone also stands in prose
    r"|(?i:token|api[-_]?key)=[^\s&\"']{4,}"
    r"|openai-insecure-api-key\.[^\s,\"']+"
)


def redact_secret(secret: str) -> str:
    """A form for error messages: enough for the owner to know which one, of no use to anybody else."""
    if len(secret) < 20:
        return "***"
    return f"{secret[:7]}***{secret[-4:]}"


def spellings(secret: str) -> tuple[str, ...]:
    """As it is, as JSON writes it, as Python quotes it, and as it stands in an address."""
    in_json = msgspec.json.encode(secret).decode()[1:-1]
    forms = (secret, in_json, repr(secret)[1:-1], repr(in_json)[1:-1], quote(secret, safe=""), quote(secret))
    return tuple(sorted(set(forms), key=len, reverse=True))


class Redactor:
    """Removes what looks like a secret, and the configured secrets whatever they look like."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._known = tuple(form for known in secrets for form in spellings(known))

    def __call__(self, text: str) -> str:
        for known in self._known:
            if known in text:
                text = text.replace(known, redact_secret(known))
        return _SECRET_FORMS.sub(lambda match: redact_secret(match.group()), text)


def cached_redactor(redactor: Callable[[str], str], longest: int) -> Callable[[str], str]:
    """For names that come again and again: masked, cut to ``longest`` characters, and remembered.

    They may be anything: bytes that are no text, even a secret in the wrong place.
    """

    @lru_cache(maxsize=1024)
    def shown(text: str) -> str:
        # Masked first: cut in half, a secret is not known.
        return redactor(text.encode("utf-8", "backslashreplace").decode())[:longest]

    return shown
