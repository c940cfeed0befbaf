"""Computes what a change does to the tokens, before anything is written. Pure: from a hierarchy to changes of records.

A change of the tokens is a list of changes of records, in the order in which they are logged. Nothing here asks who wants
it: that is decided in ``gateway.admin``.
"""

from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import msgspec
from msgspec import UNSET, UnsetType

from gateway.limits.config import LimitSet
from gateway.tokens import secret as token_secret
from gateway.tokens import validation
from gateway.tokens.hierarchy import TokenHierarchy
from gateway.tokens.models import PreviousSecret, RecordChange, Role, SecretMatch, Status, TokenRecord
from gateway.tokens.rights import Rights, rights_of_chain

MAX_PREVIOUS_SECRETS = 5
MAX_GRACE_SECONDS = 366 * 86_400
MAX_RECORD_BYTES = 16 * 1024
"""Of a record in JSON. Whoever makes tokens must not fill the token file with a few of them."""
_GROWING_FIELDS = ("models", "limits", "metadata")
_ID_LENGTH = 20

T = TypeVar("T")


class ChangeRefused(Exception):
    """The tokens are not in a state for this change. ``field`` names what stands in the way, if it is one field."""

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class CreatedToken(NamedTuple):
    """A token and its secret, which is stored nowhere."""

    record: TokenRecord
    secret: str


class TokenSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What a new token shall be. What is unset is inherited. ``expires_at`` is in seconds since the epoch."""

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
    """Returns a record for the spec with a fresh secret. ``defaults`` and ``owner`` are for what the spec leaves unset.

    Raises ValueError for an unknown prefix.
    """
    secret = token_secret.generate(_or(spec.prefix, token_secret.TEST if defaults.is_test else token_secret.PLAIN))
    record = TokenRecord(
        id=f"tok_{token_secret.random_text(_ID_LENGTH)}",
        name=spec.name,
        prefix=token_secret.display_prefix(secret),
        hash=token_secret.digest(secret),
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


def _or(value: T | UnsetType, default: T) -> T:
    return default if isinstance(value, UnsetType) else value


def inherited_defaults(
    tokens: TokenHierarchy, parent_id: str | None, requester: Rights, now: float
) -> tuple[Rights, str | None]:
    """Returns the rights and the owner that a new token inherits: the parent's, or without one the requester's rights.

    Raises ChangeRefused where there is no such parent.
    """
    if parent_id is None:
        return requester, None
    parent = parent_of(tokens, parent_id, now)
    return rights_of_chain((parent, *(tokens.parents(parent) or ()))), parent.owner


def parent_of(tokens: TokenHierarchy, parent_id: str, now: float) -> TokenRecord:
    """Returns the token with this id, which may have children. Raises ChangeRefused unless it is active."""
    parent = tokens.find_by_id(parent_id)
    if parent is None or tokens.status(parent, now) is not Status.ACTIVE:
        raise ChangeRefused("There is no active token with this id.", "parent_id")
    return parent


def create(tokens: TokenHierarchy, record: TokenRecord, now: float) -> tuple[RecordChange, ...]:
    """Returns the change that adds the record.

    Raises ChangeRefused for a child that exceeds its parent, or whose parent has ended, and for too large a record.
    """
    _require_small(record)
    if record.parent_id is not None:
        parent = parent_of(tokens, record.parent_id, now)
        if record.owner != parent.owner:
            raise ChangeRefused("A child has the owner of its parent.", "owner")
        _require_within_parents(tokens, record, frozenset(TokenRecord.__struct_fields__))
    return (RecordChange("token.create", None, record),)


def _require_within_parents(tokens: TokenHierarchy, record: TokenRecord, changed: Container[str]) -> None:
    """Raises ChangeRefused where one of the fields that change goes beyond the parents."""
    parents = tokens.parents(record)
    if parents:
        exceeding = rights_of_chain((record,)).fields_exceeding(rights_of_chain(parents))
        if field := next((field for field in exceeding if field in changed), None):
            raise ChangeRefused("A child may not have more than its parent.", field)


def _require_small(record: TokenRecord) -> None:
    """Raises ChangeRefused, with the name of the field that takes most."""
    sizes = {name: len(msgspec.json.encode(value)) for name, value in validation.to_json(record).items()}
    if (size := sum(sizes.values())) > MAX_RECORD_BYTES:
        field = max(_GROWING_FIELDS, key=lambda name: sizes[name])
        raise ChangeRefused(
            f"The record of this token would have {size} bytes, and may have {MAX_RECORD_BYTES}. `{field}` takes most of it.",
            field,
        )


def revoke(tokens: TokenHierarchy, record: TokenRecord, now: float) -> tuple[RecordChange, ...]:
    """Returns the changes that end a token and all its descendants. What is revoked already keeps its time."""
    return tuple(
        RecordChange("token.revoke", ending, msgspec.structs.replace(ending, revoked_at=int(now)))
        for ending in (record, *tokens.descendants(record))
        if ending.revoked_at is None
    )


def revoke_match(tokens: TokenHierarchy, match: SecretMatch, now: float) -> tuple[RecordChange, ...]:
    """Returns the changes that end what was meant: the token with its descendants, or one secret that was replaced."""
    if match.previous is not None:
        return revoke_secret(match.record, match.previous, now)
    return revoke(tokens, match.record, now)


def revoke_secret(record: TokenRecord, previous: PreviousSecret, now: float) -> tuple[RecordChange, ...]:
    """Returns the change that ends a replaced secret before its time; the token and its newer secrets go on."""
    if previous.status(now) is not Status.ACTIVE:
        return ()
    secrets = tuple(
        msgspec.structs.replace(old, revoked_at=int(now)) if old is previous else old for old in record.previous_secrets
    )
    return (RecordChange("token.end_secret", record, msgspec.structs.replace(record, previous_secrets=secrets)),)


def delete(tokens: TokenHierarchy, record: TokenRecord, now: float) -> tuple[RecordChange, ...]:
    """Returns the changes that remove the record; its descendants stay as records, revoked."""
    revoked = (change for change in revoke(tokens, record, now) if change.record.id != record.id)
    return (*revoked, RecordChange("token.delete", record, None))


def delete_tree(tokens: TokenHierarchy, record: TokenRecord) -> tuple[RecordChange, ...]:
    """Returns the changes that remove the record and those of all its descendants, children before their parents.

    For requesters who would neither see nor count the descendants any more once the chain of parents is broken.
    """
    tree = (record, *tokens.descendants(record))
    return tuple(RecordChange("token.delete", one, None) for one in reversed(tree))


def update(tokens: TokenHierarchy, record: TokenRecord, values: Mapping[str, Any]) -> tuple[RecordChange, ...]:
    """Returns the changes that set fields of a record; a new owner also becomes the owner of its descendants.

    ``values`` are fields of ``TokenRecord``. Raises ChangeRefused where a child would exceed its parent, and where a record
    becomes too large.
    """
    after = msgspec.structs.replace(record, **values)
    if any(field in values for field in _GROWING_FIELDS):
        _require_small(after)
    _require_within_parents(tokens, after, values)
    changes = [RecordChange("token.update", record, after)]
    if after.owner != record.owner:
        if record.parent_id is not None:
            raise ChangeRefused("A child has the owner of its parent.", "owner")
        changes += [
            RecordChange("token.update", child, msgspec.structs.replace(child, owner=after.owner))
            for child in tokens.descendants(record)
        ]
    return tuple(change for change in changes if change.before != change.after)


def rotate(
    tokens: TokenHierarchy, record: TokenRecord, secret: str, grace: int, now: float
) -> tuple[RecordChange, ...]:
    """Returns the change that gives a token a new secret; the old one works for ``grace`` seconds more.

    It never works beyond the token's own end. Without grace every older secret ends now: that is what a leak takes.
    Raises ChangeRefused for a token that has ended, too long a grace, and too many secrets at a time.
    """
    status = tokens.status(record, now)
    if status is not Status.ACTIVE:
        raise ChangeRefused(f"This token is {status}; a new secret would not work either.")
    grace_end = int(now) + grace
    replaced = PreviousSecret(
        prefix=record.prefix,
        hash=record.hash,
        rotated_at=int(now),
        valid_until=grace_end if record.expires_at is None else min(grace_end, record.expires_at),
        revoked_at=int(now) if grace == 0 else None,
    )
    after = msgspec.structs.replace(
        record,
        prefix=token_secret.display_prefix(secret),
        hash=token_secret.digest(secret),
        previous_secrets=(*_older_secrets(record, grace, now), replaced),
    )
    return (RecordChange("token.rotate", record, after),)


def _older_secrets(record: TokenRecord, grace: int, now: float) -> list[PreviousSecret]:
    """The replaced secrets that are kept: those that still work, revoked where there is no grace. Raises ChangeRefused."""
    active = [previous for previous in record.previous_secrets if previous.status(now) is Status.ACTIVE]
    if grace > MAX_GRACE_SECONDS:
        raise ChangeRefused("A grace is at most a year: two secrets for ever would be one too many.", "grace")
    if grace == 0:
        return [msgspec.structs.replace(previous, revoked_at=int(now)) for previous in active]
    if len(active) >= MAX_PREVIOUS_SECRETS:
        raise ChangeRefused(
            f"{len(active)} older secrets of this token are still valid. Wait until one has ended, or rotate without "
            "grace.",
            "grace",
        )
    return active


def import_records(tokens: TokenHierarchy, offered: Iterable[TokenRecord]) -> tuple[RecordChange, ...]:
    """Returns the changes that add those records whose id and secrets are not there yet."""
    new = (
        record
        for record in offered
        if tokens.find_by_id(record.id) is None
        and not any(tokens.find_by_digest(one) for one in (record.hash, *(old.hash for old in record.previous_secrets)))
    )
    return tuple(RecordChange("token.import", None, record) for record in new)


def apply(records: Sequence[TokenRecord], changes: Iterable[RecordChange]) -> tuple[TokenRecord, ...]:
    """Returns the records with every change in them, in their order; new ones come last."""
    changes = tuple(changes)
    after = {change.before.id: change.after for change in changes if change.before is not None}
    present = (after.get(record.id, record) for record in records)
    new = (change.after for change in changes if change.before is None)
    return tuple(record for record in (*present, *new) if record is not None)
