"""Decides what a requester may do to which tokens, on the tokens of one moment. Pure.

A token that the requester may not see is treated as if it did not exist; one that it may see, and not do this to, is forbidden.
"""

from collections.abc import Container
from typing import NamedTuple

from gateway.audit.hash_chain import Actor
from gateway.auth.principal import ANONYMOUS, Principal
from gateway.auth.roles import ROLES, Action, Relation, Scope, allows
from gateway.core.errors import Forbidden, NotFound, Unauthenticated
from gateway.limits.config import UNLIMITED, LimitSet
from gateway.tokens.hierarchy import TokenHierarchy
from gateway.tokens.models import SecretMatch, Status, TokenRecord
from gateway.tokens.rights import EVERYTHING, Rights, rights_of

_NEEDS_EQUAL_RIGHTS = frozenset({Action.UPDATE, Action.ROTATE, Action.DELETE})
"""What a token may only do to tokens with no more rights than its own: else it could get the secret of one with more rights,
or change it. Revoking needs nothing but the scope: it gives nothing."""


class Requester(NamedTuple):
    """Who asks for a change, and how that is logged."""

    principal: Principal
    actor: Actor


def relation(tokens: TokenHierarchy, requester: TokenRecord | None, other: TokenRecord) -> Relation:
    """Returns what a token is to the requester's token, which is None for a requester without one.

    Two tokens without an owner are unrelated: nobody owns them both.
    """
    if requester is None:
        return Relation.UNRELATED
    if requester.id == other.id:
        return Relation.ITSELF
    if requester.owner is not None and requester.owner == other.owner:
        return Relation.OWN
    is_descendant = any(parent.id == requester.id for parent in tokens.parents(other) or ())
    return Relation.OWN if is_descendant else Relation.UNRELATED


class Authorizer(NamedTuple):
    """A requester's rights at one moment. ``secret_match`` is None without a token: the environment key, open mode."""

    tokens: TokenHierarchy
    now: float
    secret_match: SecretMatch | None
    rights: Rights

    @property
    def record(self) -> TokenRecord | None:
        """The requester's token."""
        return self.secret_match.record if self.secret_match else None

    def scope(self, action: Action) -> Scope:
        """Returns to which tokens the requester's role may do this."""
        return ROLES[self.rights.role][action]

    def allows(self, action: Action, record: TokenRecord) -> bool:
        """Whether the requester's role may do this to that token."""
        return allows(self.rights.role, action, relation(self.tokens, self.record, record))

    def readable_ids(self) -> frozenset[str] | None:
        """Returns the ids of the tokens that the requester may read; None means all.

        It is what ``allows`` says of each, without walking the parents of each: there may be a hundred thousand.
        """
        scope, own = self.scope(Action.READ), self.record
        if scope is Scope.ALL:
            return None
        if own is None:
            return frozenset()
        found = {own.id}
        if scope is Scope.OWN:
            found.update(record.id for record in self.tokens.descendants(own))
            if own.owner is not None:
                found.update(record.id for record in self.tokens.records if record.owner == own.owner)
        return frozenset(found)

    def find(self, action: Action, token_id: str) -> TokenRecord:
        """Returns a token to do this to.

        Raises NotFound for a token that the requester may not even see, Forbidden for one that it may not do this to.
        """
        record = self.tokens.find_by_id(token_id)
        if record is None or not self.allows(Action.READ, record):
            raise NotFound("There is no token with this id.", code="token_not_found")
        if not self.allows(action, record):
            raise Forbidden(f"A token with the role `{self.rights.role}` may not {action} this token.")
        if action in _NEEDS_EQUAL_RIGHTS:
            self.require_within(rights_of(SecretMatch(record, None), self.tokens.parents(record)))
        return record

    def require_within(self, rights: Rights, changed: Container[str] | None = None) -> None:
        """Checks that rights do not exceed the requester's, in any field or in those that change. Raises Forbidden."""
        exceeding = [field for field in rights.fields_exceeding(self.rights) if changed is None or field in changed]
        if not exceeding:
            return
        message = f"Nobody can give more than they have; `{exceeding[0]}` goes beyond the token that asks."
        if self.secret_match is not None and self.secret_match.previous is not None:
            message += " The secret that was sent has been replaced: send the new one."
        raise Forbidden(message, param=exceeding[0])

    def require_narrower(self, record: TokenRecord, limits: LimitSet | None) -> None:
        """Checks that new limits of a token give it nothing that it did not have. Raises Forbidden.

        Whoever manages everybody's tokens, or has created this one as a descendant of its own token, may give as much as it
        has itself. For any other token the limits were set by somebody else: its owner may only narrow them, and may not
        replace a limit by one that begins to count anew.
        """
        if record.limits is None or self.scope(Action.UPDATE) is Scope.ALL or self._is_descendant(record):
            return
        if not (limits or UNLIMITED).narrows(record.limits):
            raise Forbidden(
                "The owner of a token may only narrow its `limits`: every limit stays, for the same models and the same "
                "period, at most as large. Ask whoever created the token.",
                param="limits",
            )

    def _is_descendant(self, record: TokenRecord) -> bool:
        own = self.record
        return own is not None and any(parent.id == own.id for parent in self.tokens.parents(record) or ())

    def require_owner(self, owner: str | None, allowed: str | None) -> None:
        """Checks that an owner is the allowed one, unless the requester manages everybody's tokens. Raises Forbidden."""
        if owner != allowed and self.scope(Action.CREATE) is not Scope.ALL:
            raise Forbidden("A token can only have the owner of the token that asks.", param="owner")


def authorizer_for(tokens: TokenHierarchy, principal: Principal, now: float) -> Authorizer:
    """Returns what a principal may do to these tokens now; it may have been authenticated on older ones.

    Raises Unauthenticated for a principal that would not be authenticated any more.
    """
    if principal is ANONYMOUS and len(tokens) > 0:
        raise Unauthenticated("Somebody has just created the first token. From now on a key is needed.")
    if principal.secret_match is None:
        return Authorizer(tokens, now, None, EVERYTHING)
    match = tokens.find_by_digest(principal.secret_hash)
    if match is None or tokens.secret_status(match, now) is not Status.ACTIVE:
        raise Unauthenticated("Invalid API key provided: it has just ended.", code="invalid_api_key")
    return Authorizer(tokens, now, match, rights_of(match, tokens.parents(match.record)))
