"""Manages a user's one key, found by e-mail address: a ``sk_live_`` token that its owner may replace and end."""

from collections.abc import Container
from typing import NamedTuple

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
        """Creates the user's key and returns it with its secret; a key that is there ends.

        Raises Forbidden, Unauthenticated, StoreUnavailable.
        """
        async with self._management.transaction(requester) as (tx, authorizer):
            if not _is_allowed(authorizer, email, Action.CREATE):
                raise Forbidden("Only an admin, or a token of that owner, may make this user's key.", param="email")
            owned = _OwnedKeys.of(authorizer, email)
            tx.apply(owned.revocations)
            created = _replacement(authorizer, owned, email, name)
            tx.apply(changes.create(tx.tokens, created.record, tx.now))
        return created

    async def revoke(self, requester: Requester, email: str) -> None:
        """Ends the user's key. Raises NotFound where there is none and for somebody else's, Unauthenticated,
        StoreUnavailable."""
        async with self._management.transaction(requester) as (tx, authorizer):
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
    is_live = token_secret.kind(record.prefix) == token_secret.LIVE
    return record.owner == email and record.revoked_at is None and is_live


def _is_allowed(authorizer: Authorizer, email: str, action: Action) -> bool:
    """Whether the requester may do this to that user's key."""
    scope = authorizer.scope(action)
    if scope is Scope.OWN:
        return authorizer.record is not None and authorizer.record.owner == email
    return scope is Scope.ALL


def _replacement(authorizer: Authorizer, owned: _OwnedKeys, email: str, name: str) -> CreatedToken:
    """A key with the rights of the active one that it replaces, unless they exceed the requester's. Raises Forbidden."""
    defaults, above = authorizer.rights, authorizer.record
    if owned.active is not None:
        rights = rights_of(SecretMatch(owned.active, None), authorizer.tokens.parents(owned.active))
        defaults = authorizer.rights if rights.fields_exceeding(authorizer.rights) else rights
    if authorizer.scope(Action.CREATE) is Scope.ALL:
        above = owned.active
    parent = _first_not_ending(authorizer.tokens, above, {change.record.id for change in owned.revocations})
    spec = TokenSpec(name=name, owner=email, parent_id=parent.id if parent else None, prefix=token_secret.LIVE)
    created = changes.new_token(spec, defaults, email, authorizer.now)
    authorizer.require_within(rights_of_chain((created.record,)))
    return created


def _first_not_ending(tokens: TokenHierarchy, record: TokenRecord | None, ending: Container[str]) -> TokenRecord | None:
    """The first of a record and its parents that goes on: below one that ends, a new key would have ended, too."""
    chain = (record, *(tokens.parents(record) or ())) if record is not None else ()
    return next((record for record in chain if record.id not in ending), None)


def _no_key() -> NotFound:
    return NotFound("This user has no API key.", code="key_not_found")
