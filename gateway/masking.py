"""Secrets, made unreadable wherever text leaves the gateway. Pure."""

import re
from collections.abc import Iterable

import msgspec

_SECRET_FORMS = re.compile(
    r"(?:sk|pk|rk)[-_][A-Za-z0-9_\-]{12,}"  # ours, OpenAI's, and most of the field's
    r"|(?i:bearer)\s+[^\s\"',]{12,}"
    r"|(?i:token|api[-_]?key)=[^\s&\"']{4,}"
    r"|openai-insecure-api-key\.[^\s,\"']+"
)


def mask(secret: str) -> str:
    """A form for error messages: enough for the owner to know which one, of no use to anybody else."""
    if len(secret) < 20:
        return "***"
    return f"{secret[:7]}***{secret[-4:]}"


class Masker:
    """Removes what looks like a secret, and the configured secrets whatever they look like."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        # As it is, and as JSON writes it.
        self._known = tuple({form for known in secrets for form in (known, msgspec.json.encode(known).decode()[1:-1])})

    def __call__(self, text: str) -> str:
        for known in self._known:
            if known in text:
                text = text.replace(known, mask(known))
        return _SECRET_FORMS.sub(lambda match: mask(match.group()), text)
