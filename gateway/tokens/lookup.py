"""Finds the token that a person means by an id, a display prefix, the beginning of a secret, or a name. Pure."""

from collections.abc import Callable, Sequence

from gateway.observability.redaction import redact_secret
from gateway.tokens import secret as token_secret
from gateway.tokens import validation
from gateway.tokens.models import SecretMatch, TokenRecord


class NoSuchToken(LookupError):
    """No token fits what was asked for."""


class AmbiguousToken(LookupError):
    """More than one token fits what was asked for. ``matches`` are these tokens."""

    def __init__(self, reference: str, matches: Sequence[TokenRecord]) -> None:
        super().__init__(f"{reference!r} fits {len(matches)} tokens")
        self.matches = tuple(matches)


def find(records: Sequence[TokenRecord], reference: str) -> TokenRecord:
    """Returns the one token meant by an id, a display prefix, a longer beginning of one of its secrets, or an exact name.

    Raises NoSuchToken, AmbiguousToken.
    """
    return find_secret(records, reference).record


def find_secret(records: Sequence[TokenRecord], reference: str) -> SecretMatch:
    """Returns the same token, and which of its secrets was meant if it was one that has been replaced.

    Raises NoSuchToken, AmbiguousToken.
    """
    matches = _matches(records, reference)
    if not matches:
        raise NoSuchToken(f"no token fits {_redacted(reference)}")
    if len(matches) > 1:
        raise AmbiguousToken(_redacted(reference), [match.record for match in matches])
    return matches[0]


def _matches(records: Sequence[TokenRecord], reference: str) -> list[SecretMatch]:
    if by_id := [SecretMatch(record, None) for record in records if record.id == reference]:
        return by_id
    digest = token_secret.digest(reference)
    if by_secret := _with_secret(records, lambda _, hashed: hashed == digest):
        return by_secret
    # `list` prints "sk-a1b2c3d4e5f...", and so it is pasted.
    beginning = reference.strip().removesuffix("...")
    name = validation.composed(reference)
    by_name = [SecretMatch(record, None) for record in records if validation.composed(record.name) == name]
    if token_secret.has_our_form(beginning):
        return by_name  # an unknown whole secret must not fall back to the token with the same beginning
    named = {match.record.id for match in by_name}
    by_beginning = _with_secret(records, lambda prefix, _: _is_beginning(prefix, beginning))
    return by_name + [match for match in by_beginning if match.record.id not in named]


def _with_secret(records: Sequence[TokenRecord], fits: Callable[[str, str], bool]) -> list[SecretMatch]:
    """The tokens with a secret that fits, by its display prefix and its hash: the present one before those it replaced."""
    matches = []
    for record in records:
        if fits(record.prefix, record.hash):
            matches.append(SecretMatch(record, None))
        else:
            newest_first = reversed(record.previous_secrets)
            previous = next((previous for previous in newest_first if fits(previous.prefix, previous.hash)), None)
            if previous is not None:
                matches.append(SecretMatch(record, previous))
    return matches


def _is_beginning(prefix: str, beginning: str) -> bool:
    """A short secret from elsewhere has a short prefix, which many strings begin with: it has to be the whole of it."""
    if len(prefix) < token_secret.DISPLAY_LENGTH:
        return beginning == prefix
    return beginning.startswith(prefix)


def _redacted(reference: str) -> str:
    looks_secret = reference.startswith(token_secret.PREFIXES) and len(reference) > 20
    return redact_secret(reference) if looks_secret else reference
