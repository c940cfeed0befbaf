"""Which token a person means by what is at hand: an id, a display prefix, a beginning of the secret, a name. Pure."""

from collections.abc import Callable, Sequence

from gateway.observability.redaction import redact_secret
from gateway.tokens import secret as secrets_room
from gateway.tokens.hierarchy import SecretMatch
from gateway.tokens.models import TokenRecord


class NoSuchToken(LookupError):
    """Nothing fits what was asked for."""


class AmbiguousToken(LookupError):
    """More than one token fits; nothing was changed."""

    def __init__(self, reference: str, matches: Sequence[TokenRecord]) -> None:
        super().__init__(f"{reference!r} fits {len(matches)} tokens")
        self.matches = tuple(matches)


def find(tokens: Sequence[TokenRecord], reference: str) -> TokenRecord:
    """The one token meant by an id, a display prefix, a longer beginning of one of its secrets, or an exact name.

    Raises NoSuchToken, AmbiguousToken.
    """
    return find_secret(tokens, reference).record


def find_secret(tokens: Sequence[TokenRecord], reference: str) -> SecretMatch:
    """The same, and which of its secrets was meant, if it was one that has been replaced."""
    matches = _matches(tokens, reference)
    if not matches:
        raise NoSuchToken(f"no token fits {_shown(reference)}")
    if len(matches) > 1:
        raise AmbiguousToken(_shown(reference), [match.record for match in matches])
    return matches[0]


def _matches(tokens: Sequence[TokenRecord], reference: str) -> list[SecretMatch]:
    if exact := [SecretMatch(record, None) for record in tokens if record.id == reference]:
        return exact
    digest = secrets_room.digest(reference)
    if whole := _holders(tokens, lambda _, hashed: hashed == digest):
        return whole
    # "sk-a1b2c3d4e5f..." is how `list` prints it, and so how it gets pasted.
    beginning = reference.strip().removesuffix("...")
    named = [SecretMatch(record, None) for record in tokens if record.name == reference]
    if secrets_room.has_our_form(beginning):
        return named  # a whole secret that is nobody's must not fall back to the token with the same beginning
    known = {match.record.id for match in named}
    begun = _holders(tokens, lambda prefix, _: _begins(prefix, beginning))
    return named + [match for match in begun if match.record.id not in known]


def _holders(tokens: Sequence[TokenRecord], fits: Callable[[str, str], bool]) -> list[SecretMatch]:
    """Tokens with a secret, by its display prefix and hash, that fits: the present one before those it replaced."""
    found = []
    for record in tokens:
        if fits(record.prefix, record.hash):
            found.append(SecretMatch(record, None))
        else:
            old = next((old for old in reversed(record.previous_secrets) if fits(old.prefix, old.hash)), None)
            if old is not None:
                found.append(SecretMatch(record, old))
    return found


def _begins(prefix: str, beginning: str) -> bool:
    """A short secret from elsewhere has a short prefix, which many texts begin with: there only itself will do."""
    if len(prefix) < secrets_room.DISPLAY_LENGTH:
        return beginning == prefix
    return beginning.startswith(prefix)


def _shown(reference: str) -> str:
    return (
        redact_secret(reference) if reference.startswith(secrets_room.PREFIXES) and len(reference) > 20 else reference
    )
