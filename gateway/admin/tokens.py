"""Manages tokens on behalf of requesters.

Every change is decided in a transaction, on the tokens as they are then: a requester who has been revoked since its request
was authenticated, or a parent that has been narrowed meanwhile, counts.
"""

import contextlib
import logging
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Literal, NamedTuple

import msgspec
from msgspec import UNSET

from gateway.admin.authorizer import Authorizer, Requester, authorizer_for
from gateway.audit.hash_chain import Actor
from gateway.auth.principal import Principal
from gateway.auth.roles import Action, Scope
from gateway.core.errors import BadRequest, Conflict, Forbidden, RateLimited, StoreUnavailable
from gateway.tokens import changes
from gateway.tokens import secret as token_secret
from gateway.tokens.changes import ChangeRefused, CreatedToken, TokenSpec
from gateway.tokens.hierarchy import TokenHierarchy
from gateway.tokens.models import Role, TokenRecord
from gateway.tokens.rights import rights_of_chain
from gateway.tokens.store import (
    NewestTokens,
    StoreState,
    TokensDamaged,
    TokenStore,
    TokenStoreFull,
    TokenTransaction,
)

log = logging.getLogger(__name__)

ChangeKind = Literal["changes", "deletions", "revocations"]


class ChangeRules(NamedTuple):
    """What one tree of tokens, a token with all its descendants, may have and do without an admin.

    ``wait`` counts a change under a key, at so many a minute, and returns 0 or the seconds until it may be made.
    """

    max_children: int
    changes_per_minute: int
    wait: Callable[[str, int], float]


NO_RULES = ChangeRules(sys.maxsize, 1, lambda key, per_minute: 0.0)


class TokenManagement:
    """What requesters do to tokens. Every change may raise Unauthenticated, and StoreUnavailable: then nothing changed."""

    def __init__(
        self, store: TokenStore, cache: NewestTokens, clock: Callable[[], float], rules: ChangeRules = NO_RULES
    ) -> None:
        """``clock`` tells seconds since the epoch."""
        self._store = store
        self._cache = cache
        self._clock = clock
        self._rules = rules

    def now(self) -> float:
        """Returns seconds since the epoch."""
        return self._clock()

    async def tokens(self) -> TokenHierarchy:
        """Returns the tokens with every change in them that was made before, by whichever process."""
        await self._cache.refresh()
        return self._cache.tokens

    async def authorizer(self, principal: Principal) -> Authorizer:
        """Returns what a principal may do now. Raises Unauthenticated."""
        return authorizer_for(await self.tokens(), principal, self._clock())

    async def create(self, requester: Requester, spec: TokenSpec) -> CreatedToken:
        """Creates a token and returns it with its secret. Raises BadRequest, Conflict, Forbidden."""
        async with self.transaction(requester) as (tx, authorizer):
            created = new_token(authorizer, spec)
            self.require_few_descendants(authorizer, created.record)
            tx.apply(changes.create(tx.tokens, created.record, tx.now))
        return created

    async def update(self, requester: Requester, token_id: str, values: Mapping[str, Any]) -> TokenRecord:
        """Sets fields of a record and returns it. Raises NotFound, Forbidden, BadRequest."""
        async with self.transaction(requester) as (tx, authorizer):
            record = authorizer.find(Action.UPDATE, token_id)
            authorizer.require_owner(values.get("owner", record.owner), record.owner)
            after = msgspec.structs.replace(record, **values)
            authorizer.require_within(rights_of_chain((after,)), values)
            authorizer.require_narrower(record, after.limits)
            tx.apply(changes.update(tx.tokens, record, values))
        return tx.change_of(record).record

    async def revoke(self, requester: Requester, token_id: str) -> TokenRecord:
        """Ends a token and its descendants, and returns its record. Raises NotFound, Forbidden."""
        async with self.transaction(requester, kind="revocations") as (tx, authorizer):
            record = authorizer.find(Action.REVOKE, token_id)
            tx.apply(changes.revoke(tx.tokens, record, tx.now))
        return tx.change_of(record).record

    async def delete(self, requester: Requester, token_id: str) -> None:
        """Removes a token's record. Raises NotFound, Forbidden.

        Its descendants stay, revoked, where the requester may delete every token; else they are removed as well, because the
        requester could not see and not delete them any more, and they would count as nobody's.
        """
        async with self.transaction(requester, kind="deletions") as (tx, authorizer):
            record = authorizer.find(Action.DELETE, token_id)
            may_delete_all = authorizer.scope(Action.DELETE) is Scope.ALL
            tx.apply(
                changes.delete(tx.tokens, record, tx.now) if may_delete_all else changes.delete_tree(tx.tokens, record)
            )

    async def rotate(self, requester: Requester, token_id: str, grace: int) -> CreatedToken:
        """Gives a token a new secret; the old one works for ``grace`` seconds more.

        Raises NotFound, Forbidden, Conflict, BadRequest.
        """
        async with self.transaction(requester) as (tx, authorizer):
            record = authorizer.find(Action.ROTATE, token_id)
            secret = token_secret.generate(token_secret.kind(record.prefix))
            tx.apply(changes.rotate(tx.tokens, record, secret, grace, tx.now))
        return CreatedToken(tx.change_of(record).record, secret)

    async def revoke_secret(self, actor: Actor, secret: str) -> None:
        """Ends what a secret belongs to, whoever sends it: a token with its descendants, or one replaced secret.

        Raises StoreUnavailable.
        """
        digest = token_secret.digest(secret)
        tokens = await self.tokens()
        if self._cache.state is not StoreState.CURRENT:
            raise StoreUnavailable("The token file cannot be read at the moment, so nothing was revoked.")
        if tokens.find_by_digest(digest) is None:
            return  # whoever guesses shall not keep the store locked
        async with self._store_transaction(actor) as tx:
            match = tx.tokens.find_by_digest(digest)
            if match is not None:
                tx.apply(changes.revoke_match(tx.tokens, match, tx.now))

    @contextlib.asynccontextmanager
    async def transaction(
        self, requester: Requester, *, kind: ChangeKind = "changes"
    ) -> AsyncIterator[tuple[TokenTransaction, Authorizer]]:
        """Changes tokens on behalf of a requester, whose rights are those on the newest tokens.

        Each ``kind`` is counted apart, so that whoever has made too many changes can still end what it made. Raises
        RateLimited, Unauthenticated, StoreUnavailable; BadRequest or Conflict for a change that is refused; what the block
        raises.
        """
        self._count_change(requester.principal, kind)
        async with self._store_transaction(requester.actor) as tx:
            yield tx, authorizer_for(tx.tokens, requester.principal, tx.now)

    def _count_change(self, principal: Principal, kind: ChangeKind) -> None:
        """Counts a change, unless an admin makes it. Raises RateLimited."""
        if principal.role is Role.ADMIN:
            return
        per_minute = self._rules.changes_per_minute
        wait = self._rules.wait(f"{kind} {principal.rate_key}", per_minute)
        if wait > 0:
            raise RateLimited(
                f"Rate limit reached: {per_minute} {kind} of tokens a minute, those of the parents and children of this "
                f"token counted in. Please try again in {wait:.1f} s.",
                wait,
            )

    def require_few_descendants(self, authorizer: Authorizer, record: TokenRecord) -> None:
        """Checks that there may be one more token below the topmost parent of a new record. Admins may make any number.

        Raises Conflict.
        """
        parents = authorizer.tokens.parents(record)
        if not parents or authorizer.scope(Action.CREATE) is Scope.ALL:
            return
        if sum(1 for _ in authorizer.tokens.descendants(parents[-1])) >= self._rules.max_children:
            raise Conflict(
                f"There are {self._rules.max_children} tokens below `{parents[-1].name}` already, and there may be no "
                "more. Delete those that have ended.",
                code="too_many_children",
            )

    @contextlib.asynccontextmanager
    async def _store_transaction(self, actor: Actor) -> AsyncIterator[TokenTransaction]:
        """What it changes is seen by this worker at once; other workers see it with their next read."""
        try:
            async with self._store.transaction(actor, may_create=self._cache.may_create_store) as tx:
                yield tx
        except ChangeRefused as error:
            raise _refusal(error) from None
        except TokenStoreFull as error:
            raise StoreUnavailable(str(error)) from None
        except (TokensDamaged, OSError) as error:
            log.error("a change to the tokens failed", extra={"problem": str(error)})
            raise StoreUnavailable("The change could not be written. Nothing has changed; please try again.") from None
        await self._cache.refresh()


def new_token(authorizer: Authorizer, spec: TokenSpec) -> CreatedToken:
    """Returns a token for the spec. Whoever may not create everywhere creates below itself. Raises Forbidden, ChangeRefused."""
    if authorizer.scope(Action.CREATE) is not Scope.ALL:
        spec = _below_requester(authorizer, spec)
    defaults, owner = changes.inherited_defaults(authorizer.tokens, spec.parent_id, authorizer.rights, authorizer.now)
    if spec.owner is not UNSET:
        authorizer.require_owner(spec.owner, owner)
    created = changes.new_token(spec, defaults, owner, authorizer.now)
    authorizer.require_within(rights_of_chain((created.record,)))
    return created


def _below_requester(authorizer: Authorizer, spec: TokenSpec) -> TokenSpec:
    """The spec with a parent: the requester's token, or one of its descendants. Raises Forbidden, ChangeRefused."""
    own = authorizer.record
    if own is None or authorizer.scope(Action.CREATE) is Scope.NOTHING:
        raise Forbidden(f"A token with the role `{authorizer.rights.role}` may not create tokens.")
    if spec.parent_id in (None, own.id):
        return msgspec.structs.replace(spec, parent_id=own.id)
    if all(descendant.id != spec.parent_id for descendant in authorizer.tokens.descendants(own)):
        raise ChangeRefused("There is no active token with this id.", "parent_id")
    return spec


def _refusal(error: ChangeRefused) -> BadRequest | Conflict:
    if error.field is None:
        return Conflict(str(error), code="token_not_active")
    return BadRequest(str(error), code="invalid_value", param=error.field)
