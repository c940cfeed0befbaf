"""What a change does to the tokens, before anything is written. Pure: from a view to the records it touches.

A change is a list of touches, in the order in which they are logged. Nothing here asks who wants it: that is ``management``.
"""

from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import msgspec
from msgspec import UNSET, UnsetType

from gateway.limits.config import LimitSet
from gateway.tokens import secret as secrets_room
from gateway.tokens.hierarchy import SecretMatch, TokenHierarchy
from gateway.tokens.models import PreviousSecret, Role, Status, TokenRecord
from gateway.tokens.rights import Rights, rights_of_chain
from gateway.tokens.stores.json_format import TokenDocument

MAX_PREVIOUS_SECRETS = 5
LONGEST_GRACE = 366 * 86_400
_ID_LENGTH = 20

T = TypeVar("T")


class ChangeRefused(Exception):
    """The tokens are not in a state for this. ``field`` names what stands in the way."""

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class RecordChange(NamedTuple):
    """One record before and after. ``before`` is None for a new one, ``after`` for a deleted one."""

    action: str
    before: TokenRecord | None
    after: TokenRecord | None

    @property
    def record(self) -> TokenRecord:
        """What there is of it now, or was last."""
        found = self.after or self.before
        if found is None:
            raise ValueError("a touch touches something")
        return found


class CreatedToken(NamedTuple):
    """A token and its secret, which exists nowhere else."""

    record: TokenRecord
    secret: str


class TokenSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What a new token shall be. What is unset it takes from its giver. ``expires_at`` in seconds since the epoch."""

    name: str
    owner: str | UnsetType | None = UNSET
    role: Role | UnsetType = UNSET
    parent_id: str | None = None
    expires_at: int | UnsetType | None = UNSET
    models: tuple[str, ...] | UnsetType | None = UNSET
    limits: LimitSet | UnsetType | None = UNSET
    metadata: Mapping[str, Any] = {}
    prefix: str | UnsetType = UNSET


def new_token(spec: TokenSpec, defaults: Rights, owner: str | None, now: float) -> CreatedToken:
    """A record for the wish, with a fresh secret. ``owner`` is for a wish that names none."""
    secret = secrets_room.generate(_or(spec.prefix, secrets_room.TEST if defaults.is_test else secrets_room.PLAIN))
    record = TokenRecord(
        id=f"tok_{secrets_room.random_text(_ID_LENGTH)}",
        name=spec.name,
        prefix=secrets_room.display_prefix(secret),
        hash=secrets_room.digest(secret),
        owner=_or(spec.owner, owner),
        role=_or(spec.role, min(Role.MEMBER, defaults.role, key=lambda role: role.rank)),
        parent_id=spec.parent_id,
        created_at=int(now),
        expires_at=_or(spec.expires_at, defaults.expires_at),
        models=_or(spec.models, defaults.common_models),
        limits=_or(spec.limits, defaults.tightest_limits),
        metadata=spec.metadata,
    )
    return CreatedToken(record, secret)


def _or(wished: T | UnsetType, otherwise: T) -> T:
    return otherwise if isinstance(wished, UnsetType) else wished


def created(view: TokenHierarchy, record: TokenRecord, now: float) -> tuple[RecordChange, ...]:
    """Raises ChangeRefused for a child that exceeds its parent, or whose parent has ended."""
    if record.parent_id is not None:
        parent = parent_of(view, record.parent_id, now)
        if record.owner != parent.owner:
            raise ChangeRefused("A child has the owner of its parent.", "owner")
        _refuse_excess(view, record, frozenset(TokenRecord.__struct_fields__) | {"prefix"})
    return (RecordChange("token.create", None, record),)


def inherited_defaults(
    view: TokenHierarchy, parent_id: str | None, caller: Rights, now: float
) -> tuple[Rights, str | None]:
    """What a new token takes from where its wish says nothing, and its owner: a parent's, else the caller's grant.

    Raises ChangeRefused where there is no such parent.
    """
    if parent_id is None:
        return caller, None
    parent = parent_of(view, parent_id, now)
    return rights_of_chain((parent, *(view.parents(parent) or ()))), parent.owner


def parent_of(view: TokenHierarchy, parent_id: str, now: float) -> TokenRecord:
    """A token that may have children. Raises ChangeRefused."""
    parent = view.find_by_id(parent_id)
    if parent is None or view.status(parent, now) is not Status.ACTIVE:
        raise ChangeRefused("There is no active token with this id.", "parent_id")
    return parent


def _refuse_excess(view: TokenHierarchy, record: TokenRecord, changed: Container[str]) -> None:
    above = view.parents(record)
    if above:
        excess = rights_of_chain((record,)).fields_exceeding(rights_of_chain(above))
        if found := next((field for field in excess if field in changed), None):
            raise ChangeRefused("A child may not have more than its parent.", found)


def revoked(view: TokenHierarchy, record: TokenRecord, now: float) -> tuple[RecordChange, ...]:
    """It and all below it. Revoked is for ever: what is revoked already keeps its time."""
    line = (record, *view.descendants(record))
    return tuple(
        RecordChange("token.revoke", one, msgspec.structs.replace(one, revoked_at=int(now)))
        for one in line
        if one.revoked_at is None
    )


def ended(view: TokenHierarchy, match: SecretMatch, now: float) -> tuple[RecordChange, ...]:
    """What was meant: the token and all below it, or only a secret of it that has been replaced."""
    if match.previous is not None:
        return secret_ended(match.record, match.previous, now)
    return revoked(view, match.record, now)


def deleted(view: TokenHierarchy, record: TokenRecord, now: float) -> tuple[RecordChange, ...]:
    """The record goes; what is below it stays as a record, revoked."""
    below = (change for change in revoked(view, record, now) if change.record.id != record.id)
    return (*below, RecordChange("token.delete", record, None))


def patched(view: TokenHierarchy, record: TokenRecord, values: Mapping[str, Any]) -> tuple[RecordChange, ...]:
    """Set fields. A new owner also gets what is below. Raises ChangeRefused where a child would exceed its parent."""
    after = msgspec.structs.replace(record, **values)
    _refuse_excess(view, after, values)
    record_changes = [RecordChange("token.update", record, after)]
    if after.owner != record.owner:
        if record.parent_id is not None:
            raise ChangeRefused("A child has the owner of its parent.", "owner")
        record_changes += [
            RecordChange("token.update", child, msgspec.structs.replace(child, owner=after.owner))
            for child in view.descendants(record)
        ]
    return tuple(change for change in record_changes if change.before != change.after)


def rotated(view: TokenHierarchy, record: TokenRecord, secret: str, grace: int, now: float) -> tuple[RecordChange, ...]:
    """The secret is replaced; the old one works for ``grace`` seconds more, never beyond the token's own end.

    Without grace every older secret ends now: that is what a leak takes. Raises ChangeRefused.
    """
    status = view.status(record, now)
    if status is not Status.ACTIVE:
        raise ChangeRefused(f"This token is {status}; a new secret would not work either.")
    older = [old for old in record.previous_secrets if old.status(now) is Status.ACTIVE]
    if grace > LONGEST_GRACE:
        raise ChangeRefused("A grace is at most a year: two secrets for ever would be one too many.", "grace")
    if grace == 0:
        older = [msgspec.structs.replace(old, revoked_at=int(now)) for old in older]
    elif len(older) >= MAX_PREVIOUS_SECRETS:
        raise ChangeRefused(
            f"{len(older)} older secrets of this token are still valid. Wait until one has ended, or rotate without grace.",
            "grace",
        )
    end = int(now) + grace
    replaced = PreviousSecret(
        prefix=record.prefix,
        hash=record.hash,
        rotated_at=int(now),
        valid_until=end if record.expires_at is None else min(end, record.expires_at),
        revoked_at=int(now) if grace == 0 else None,
    )
    after = msgspec.structs.replace(
        record,
        prefix=secrets_room.display_prefix(secret),
        hash=secrets_room.digest(secret),
        previous_secrets=(*older, replaced),
    )
    return (RecordChange("token.rotate", record, after),)


def secret_ended(record: TokenRecord, previous: PreviousSecret, now: float) -> tuple[RecordChange, ...]:
    """End a replaced secret before its time; the token and its newer secrets go on."""
    if previous.status(now) is not Status.ACTIVE:
        return ()
    ended = tuple(
        msgspec.structs.replace(old, revoked_at=int(now)) if old is previous else old for old in record.previous_secrets
    )
    return (RecordChange("token.end_secret", record, msgspec.structs.replace(record, previous_secrets=ended)),)


def imported(view: TokenHierarchy, offered: Iterable[TokenRecord]) -> tuple[RecordChange, ...]:
    """Those whose id and secrets are not here yet."""
    new = (
        record
        for record in offered
        if view.find_by_id(record.id) is None
        and not any(view.find_by_digest(one) for one in (record.hash, *(old.hash for old in record.previous_secrets)))
    )
    return tuple(RecordChange("token.import", None, record) for record in new)


def applied(before: TokenDocument, record_changes: Sequence[RecordChange]) -> TokenDocument:
    """The document with every touch in it; what is new comes last."""
    after = {change.before.id: change.after for change in record_changes if change.before is not None}
    kept = [after.get(record.id, record) for record in before.tokens]
    new = [change.after for change in record_changes if change.before is None]
    return TokenDocument(tuple(record for record in (*kept, *new) if record is not None), before.unknown)
