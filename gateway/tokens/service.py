"""The life of a token: create, find, revoke, delete, import. The only writer besides the recorder of last uses. Blocking."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import msgspec

from gateway.masking import mask
from gateway.tokens import document as codec
from gateway.tokens import secret as secrets_room
from gateway.tokens.document import TokenDocument
from gateway.tokens.record import Role, TokenRecord
from gateway.tokens.token_file import TokenFile

_ID_LENGTH = 20


class NoSuchToken(LookupError):
    """Nothing fits what was asked for."""


class AmbiguousToken(LookupError):
    """More than one token fits; nothing was changed."""

    def __init__(self, reference: str, matches: Sequence[TokenRecord]) -> None:
        super().__init__(f"{reference!r} fits {len(matches)} tokens")
        self.matches = tuple(matches)


class NewToken(NamedTuple):
    """A token and its secret, which exists nowhere else."""

    record: TokenRecord
    secret: str


class TokenWish(msgspec.Struct, frozen=True, kw_only=True):
    """What a new token shall be. ``expires_at`` in seconds since the epoch."""

    name: str
    owner: str | None = None
    role: Role = Role.MEMBER
    expires_at: int | None = None
    models: tuple[str, ...] | None = None
    secret_prefix: str = "sk-"


class TokenService:
    """Changes to one token file. Every method may raise TokenFileError and OSError; then nothing has changed."""

    def __init__(self, file: TokenFile, clock: Callable[[], float]) -> None:
        self._file = file
        self._clock = clock

    def all(self) -> tuple[TokenRecord, ...]:
        return (self._file.read() or TokenDocument()).tokens

    def find(self, reference: str) -> TokenRecord:
        """Raises NoSuchToken, AmbiguousToken."""
        return find(self.all(), reference)

    def create(self, wish: TokenWish) -> NewToken:
        secret = secrets_room.generate(wish.secret_prefix)
        record = TokenRecord(
            id=f"tok_{secrets_room.random_text(_ID_LENGTH)}",
            name=wish.name,
            prefix=secrets_room.display_prefix(secret),
            hash=secrets_room.digest(secret),
            owner=wish.owner,
            role=wish.role,
            created_at=int(self._clock()),
            expires_at=wish.expires_at,
            models=wish.models,
        )
        self._file.update(lambda before: _with_tokens(before, (*before.tokens, record)))
        return NewToken(record, secret)

    def revoke(self, reference: str) -> TokenRecord:
        """Revoked is for ever; revoking again keeps the first time. Raises NoSuchToken, AmbiguousToken."""

        def revoked(record: TokenRecord) -> TokenRecord:
            if record.revoked_at is not None:
                return record
            return msgspec.structs.replace(record, revoked_at=int(self._clock()))

        return self._change_one(reference, revoked)

    def delete(self, reference: str) -> TokenRecord:
        """Raises NoSuchToken, AmbiguousToken."""
        deleted: list[TokenRecord] = []

        def without(before: TokenDocument) -> TokenDocument:
            deleted.append(find(before.tokens, reference))
            return _with_tokens(before, (record for record in before.tokens if record.id != deleted[0].id))

        self._file.update(without)
        return deleted[0]

    def import_file(self, data: bytes) -> tuple[TokenRecord, ...]:
        """Add the tokens of another file, in either form, that are not here yet. Answers those added."""
        offered = codec.decode(data).tokens
        added: list[TokenRecord] = []

        def merged(before: TokenDocument) -> TokenDocument:
            hashes = {record.hash for record in before.tokens}
            ids = {record.id for record in before.tokens}
            added.extend(record for record in offered if record.hash not in hashes and record.id not in ids)
            return _with_tokens(before, (*before.tokens, *added)) if added else before

        self._file.update(merged)
        return tuple(added)

    def _change_one(self, reference: str, change: Callable[[TokenRecord], TokenRecord]) -> TokenRecord:
        changed: list[TokenRecord] = []

        def one(before: TokenDocument) -> TokenDocument:
            found = find(before.tokens, reference)
            changed.append(change(found))
            if changed[0] is found:
                return before
            return _with_tokens(before, (changed[0] if record is found else record for record in before.tokens))

        self._file.update(one)
        return changed[0]


def find(tokens: Sequence[TokenRecord], reference: str) -> TokenRecord:
    """The one token meant by an id, a display prefix, a longer beginning of its secret, or an exact name."""
    matches = _matches(tokens, reference)
    if not matches:
        raise NoSuchToken(f"no token fits {_shown(reference)}")
    if len(matches) > 1:
        raise AmbiguousToken(_shown(reference), matches)
    return matches[0]


def _matches(tokens: Sequence[TokenRecord], reference: str) -> list[TokenRecord]:
    if exact := [record for record in tokens if record.id == reference]:
        return exact
    digest = secrets_room.digest(reference)
    if whole := [record for record in tokens if record.hash == digest]:
        return whole
    # "sk-a1b2c3d4e5f..." is how `list` prints it, and so how it gets pasted.
    beginning = reference.strip().removesuffix("...")
    named = [record for record in tokens if record.name == reference]
    if secrets_room.has_our_form(beginning):
        return named  # a whole secret that is nobody's must not fall back to the token with the same beginning
    return named + [record for record in tokens if _begins(record, beginning) and record not in named]


def _begins(record: TokenRecord, beginning: str) -> bool:
    """A short secret from elsewhere has a short prefix, which many texts begin with: there only itself will do."""
    if len(record.prefix) < secrets_room.DISPLAY_LENGTH:
        return beginning == record.prefix
    return beginning.startswith(record.prefix)


def _shown(reference: str) -> str:
    return mask(reference) if reference.startswith(secrets_room.PREFIXES) and len(reference) > 20 else reference


def _with_tokens(before: TokenDocument, tokens: Iterable[TokenRecord]) -> TokenDocument:
    return TokenDocument(tuple(tokens), before.unknown)
