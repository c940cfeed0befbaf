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
        return _OwnedKeys.of(authorizer, email).newest

    async def replace(self, requester: Requester, email: str, name: str) -> CreatedToken:
        """Gives the user a key and returns it with its secret; every key that is there ends.

        The newest active key with no more rights than the requester's gets a new secret: it stays the same token, with its
        limits and what it has used of them. Else a token is created. Raises Forbidden, Conflict, Unauthenticated,
        StoreUnavailable.
        """
        async with self._management.transaction(requester) as (tx, authorizer):
            if not _is_allowed(authorizer, email, Action.CREATE):
                raise Forbidden("Only an admin, or a token of that owner, may make this user's key.", param="email")
            owned = _OwnedKeys.of(authorizer, email)
            kept = next((key for key in owned.active if _may_be_kept(authorizer, key)), None)
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
    """A user's keys: those that are active, the newest first, and what ends them all with their descendants.

    There is more than one only where somebody created them by other means.
    """

    active: tuple[TokenRecord, ...]
    revocations: tuple[RecordChange, ...]

    @property
    def newest(self) -> TokenRecord | None:
        return next(iter(self.active), None)

    @staticmethod
    def of(authorizer: Authorizer, email: str) -> "_OwnedKeys":
        tokens, now = authorizer.tokens, authorizer.now
        keys = [record for record in reversed(tokens.records) if _is_key_of(record, email)]
        active = tuple(record for record in keys if tokens.status(record, now) is Status.ACTIVE)
        revocations = tuple(change for record in keys for change in changes.revoke(tokens, record, now))
        return _OwnedKeys(active, revocations)


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
    """Returns a key with the requester's rights, whose parent goes on when the user's keys end. Raises Forbidden."""
    ending = {change.record.id for change in owned.revocations}
    if authorizer.scope(Action.CREATE) is Scope.ALL:
        parent = _first_not_ending(authorizer.tokens, owned.newest, ending)
    else:
        parent = _requester_token(authorizer, ending)
    spec = TokenSpec(name=name, owner=email, parent_id=parent.id if parent else None, prefix=token_secret.LIVE)
    created = changes.new_token(spec, authorizer.rights, email, authorizer.now)
    authorizer.require_within(rights_of_chain((created.record,)))
    return created


def _requester_token(authorizer: Authorizer, ending: Container[str]) -> TokenRecord | None:
    """The token that asks, unless it is one of those that end: a key beside it would count what it uses anew.

    Raises Forbidden.
    """
    own = authorizer.record
    if own is not None and own.id in ending:
        raise Forbidden(
            "This token would end together with the key that is to be replaced, and it may not do all that this key may. "
            "Send the key itself, or ask an admin."
        )
    return own


def _first_not_ending(tokens: TokenHierarchy, record: TokenRecord | None, ending: Container[str]) -> TokenRecord | None:
    """The first of a record and its parents that goes on: below one that ends, a new key would have ended, too."""
    chain = (record, *(tokens.parents(record) or ())) if record is not None else ()
    return next((record for record in chain if record.id not in ending), None)


def _no_key() -> NotFound:
    return NotFound("This user has no API key.", code="key_not_found")
