"""Redacts secrets in every text that leaves the gateway. Pure."""

import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from urllib.parse import quote

import msgspec

_SECRET_FORMS = re.compile(
    r"(?:sk|pk|rk)[-_][A-Za-z0-9_\-]{12,}"  # ours, OpenAI's, and most of the field's
    r"|(?i:bearer)\s+[^\s\"',]{12,}"
    r"|(?i:authorization\W{1,8}basic)\s+[A-Za-z0-9+/=_-]{8,}"  # "basic" alone is also an ordinary word
    r"|(?i:token|api[-_]?key)=[^\s&\"']{4,}"
    r"|openai-insecure-api-key\.[^\s,\"']+"
)


def redact_secret(secret: str) -> str:
    """Returns a short form for error messages, from which the owner recognises the secret, and nobody can use it."""
    if len(secret) < 20:
        return "***"
    return f"{secret[:7]}***{secret[-4:]}"


def spellings(secret: str) -> tuple[str, ...]:
    """Returns the forms in which a secret may appear: as it is, in JSON, quoted by Python, and in a URL; the longest first."""
    in_json = msgspec.json.encode(secret).decode()[1:-1]
    forms = (secret, in_json, repr(secret)[1:-1], repr(in_json)[1:-1], quote(secret, safe=""), quote(secret))
    return tuple(sorted(set(forms), key=len, reverse=True))


class Redactor:
    """Redacts what looks like a secret, and the configured secrets whatever they look like."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._known = tuple(form for known in secrets for form in spellings(known))

    def __call__(self, text: str) -> str:
        """Returns the text with every secret redacted."""
        for known in self._known:
            if known in text:
                text = text.replace(known, redact_secret(known))
        return _SECRET_FORMS.sub(lambda match: redact_secret(match.group()), text)


def cached_redactor(redactor: Callable[[str], str], max_length: int) -> Callable[[str], str]:
    """Returns a redactor with a cache, for names that appear again and again. It cuts them to ``max_length`` characters.

    Names come from clients and may be anything: text that UTF-8 cannot encode, or a secret in the wrong place.
    """

    @lru_cache(maxsize=1024)
    def redact(text: str) -> str:
        # Redacted before it is cut: half a secret would not be recognised.
        return redactor(text.encode("utf-8", "backslashreplace").decode())[:max_length]

    return redact
