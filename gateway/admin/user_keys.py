"""Manages a user's one key, found by e-mail address: a ``sk_live_`` token whose secret its owner may replace, and end."""

from collections.abc import Container
from typing import NamedTuple

import msgspec

from gateway.admin.authorizer import Authorizer, Requester
from gateway.admin.tokens import TokenManagement
from gateway.auth.principal import Principal
from gateway.auth.roles import Action, Scope
from gateway.core.errors import Forbidden, NotFound
from gateway.tokens import changes
from gateway.tokens import secret as token_secret
from gateway.tokens.changes import CreatedToken, TokenSpec
from gateway.tokens.hierarchy import TokenHierarchy
from gateway.tokens.models import RecordChange, SecretMatch, Status, TokenRecord
from gateway.tokens.rights import rights_of, rights_of_chain


class UserKeys:
    """Keys by their owner."""

    def __init__(self, management: TokenManagement) -> None:
        self._management = management

    async def current(self, principal: Principal, email: str) -> TokenRecord | None:
        """Returns the user's key; None where there is none. Raises NotFound for somebody else's, Unauthenticated."""
        authorizer = await self._management.authorizer(principal)
        if not _is_allowed(authorizer, email, Action.READ):
            raise _no_key()
        return _OwnedKeys.of(authorizer, email).active

    async def replace(self, requester: Requester, email: str, name: str) -> CreatedToken:
        """Gives the user a key and returns it with its secret; every key that is there ends.

        An active key with no more rights than the requester's gets a new secret: it stays the same token, with its limits and
        what it has used of them. Else a token is created. Raises Forbidden, Conflict, Unauthenticated,
        StoreUnavailable.
        """
        async with self._management.transaction(requester) as (tx, authorizer):
            if not _is_allowed(authorizer, email, Action.CREATE):
                raise Forbidden("Only an admin, or a token of that owner, may make this user's key.", param="email")
            owned = _OwnedKeys.of(authorizer, email)
            kept = owned.active if owned.active is not None and _may_be_kept(authorizer, owned.active) else None
            tx.apply(change for change in owned.revocations if kept is None or change.record.id != kept.id)
            if kept is None:
                created = _new_key(authorizer, owned, email, name)
                self._management.require_few_descendants(authorizer, created.record)
                tx.apply(changes.create(tx.tokens, created.record, tx.now))
                return created
            secret = token_secret.generate(token_secret.LIVE)
            [rotation] = changes.rotate(tx.tokens, kept, secret, 0, tx.now)
            record = msgspec.structs.replace(rotation.record, name=name)
            tx.apply([rotation._replace(after=record)])
            return CreatedToken(record, secret)

    async def revoke(self, requester: Requester, email: str) -> None:
        """Ends the user's key. Raises NotFound where there is none and for somebody else's, Unauthenticated,
        StoreUnavailable."""
        async with self._management.transaction(requester, kind="revocations") as (tx, authorizer):
            owned = _OwnedKeys.of(authorizer, email)
            if not _is_allowed(authorizer, email, Action.REVOKE) or not owned.revocations:
                raise _no_key()
            tx.apply(owned.revocations)


class _OwnedKeys(NamedTuple):
    """A user's keys: the newest that is active, and what ends them all with their descendants.

    There is more than one only where somebody created them by other means.
    """

    active: TokenRecord | None
    revocations: tuple[RecordChange, ...]

    @staticmethod
    def of(authorizer: Authorizer, email: str) -> "_OwnedKeys":
        tokens, now = authorizer.tokens, authorizer.now
        keys = [record for record in reversed(tokens.records) if _is_key_of(record, email)]
        active = (record for record in keys if tokens.status(record, now) is Status.ACTIVE)
        revocations = tuple(change for record in keys for change in changes.revoke(tokens, record, now))
        return _OwnedKeys(next(active, None), revocations)


def _is_key_of(record: TokenRecord, email: str) -> bool:
    is_active = (
        record.owner == email and record.revoked_at is None
    )  # first: it is cheap, and true for few of many records
    return is_active and token_secret.kind(record.prefix) == token_secret.LIVE


def _is_allowed(authorizer: Authorizer, email: str, action: Action) -> bool:
    """Whether the requester may do this to that user's key."""
    scope = authorizer.scope(action)
    if scope is Scope.OWN:
        return authorizer.record is not None and authorizer.record.owner == email
    return scope is Scope.ALL


def _may_be_kept(authorizer: Authorizer, active: TokenRecord) -> bool:
    """Whether the requester may have a secret of the active key, which gives it all rights of that key."""
    rights = rights_of(SecretMatch(active, None), authorizer.tokens.parents(active))
    return not rights.fields_exceeding(authorizer.rights)


def _new_key(authorizer: Authorizer, owned: _OwnedKeys, email: str, name: str) -> CreatedToken:
    """Returns a key below the requester's token, with its rights. Raises Forbidden."""
    above = owned.active if authorizer.scope(Action.CREATE) is Scope.ALL else authorizer.record
    parent = _first_not_ending(authorizer.tokens, above, {change.record.id for change in owned.revocations})
    spec = TokenSpec(name=name, owner=email, parent_id=parent.id if parent else None, prefix=token_secret.LIVE)
    created = changes.new_token(spec, authorizer.rights, email, authorizer.now)
    authorizer.require_within(rights_of_chain((created.record,)))
    return created


def _first_not_ending(tokens: TokenHierarchy, record: TokenRecord | None, ending: Container[str]) -> TokenRecord | None:
    """The first of a record and its parents that goes on: below one that ends, a new key would have ended, too."""
    chain = (record, *(tokens.parents(record) or ())) if record is not None else ()
    return next((record for record in chain if record.id not in ending), None)


def _no_key() -> NotFound:
    return NotFound("This user has no API key.", code="key_not_found")
