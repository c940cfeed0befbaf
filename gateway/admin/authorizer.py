"""What a caller may do to which tokens, on the tokens of one moment. Pure.

Somebody else's token is as good as none; one that the caller may see, and not do this to, is forbidden.
"""

from collections.abc import Container
from typing import NamedTuple

from gateway.auth.principal import ANONYMOUS, Principal
from gateway.auth.roles import ROLES, Action, Scope, allows, relation
from gateway.core.errors import Forbidden, NotFound, Unauthenticated
from gateway.tokens.hierarchy import SecretMatch, TokenHierarchy
from gateway.tokens.models import Status, TokenRecord
from gateway.tokens.rights import EVERYTHING, Rights, rights_of

_NEEDS_EQUAL_RIGHTS = frozenset({Action.UPDATE, Action.ROTATE, Action.DELETE})
"""What a token may only do to tokens that may do no more than itself: else it could get the secret of a mightier one, or
change it. Revoking takes nothing but reach: it gives nothing."""


class Authorizer(NamedTuple):
    """``match`` is None for who holds no token: the environment key, and anybody in open mode."""

    view: TokenHierarchy
    now: float
    secret_match: SecretMatch | None
    rights: Rights

    @property
    def record(self) -> TokenRecord | None:
        return self.secret_match.record if self.secret_match else None

    def scope(self, action: Action) -> Scope:
        return ROLES[self.rights.role][action]

    def allows(self, action: Action, record: TokenRecord) -> bool:
        """Whether the caller's role reaches this token."""
        return allows(self.rights.role, action, relation(self.view, self.record, record))

    def find(self, action: Action, token_id: str) -> TokenRecord:
        """A token to do this to. Raises NotFound for what the caller may not even see, Forbidden for what it may not do."""
        record = self.view.find_by_id(token_id)
        if record is None or not self.allows(Action.READ, record):
            raise NotFound("There is no token with this id.", code="token_not_found")
        if not self.allows(action, record):
            raise Forbidden(f"A token with the role `{self.rights.role}` may not {action} this token.")
        if action in _NEEDS_EQUAL_RIGHTS:
            self.require_within(rights_of(self.view, SecretMatch(record, None)))
        return record

    def require_within(self, wanted: Rights, changed: Container[str] | None = None) -> None:
        """Raises Forbidden for more than the caller has, in any field or in those that change."""
        excess = [field for field in wanted.fields_exceeding(self.rights) if changed is None or field in changed]
        if not excess:
            return
        message = f"Nobody can give more than they have; `{excess[0]}` goes beyond the token that asks."
        if self.secret_match is not None and self.secret_match.previous is not None:
            message += " The secret that was sent has been replaced: send the new one."
        raise Forbidden(message, param=excess[0])

    def require_owner(self, owner: str | None, due: str | None) -> None:
        """Raises Forbidden for an owner other than the due one, unless the caller manages everybody's tokens."""
        if owner != due and self.scope(Action.CREATE) is not Scope.ALL:
            raise Forbidden("A token can only have the owner of the token that asks.", param="owner")


def authorizer_for(view: TokenHierarchy, principal: Principal, now: float) -> Authorizer:
    """Raises Unauthenticated for a caller who could not come in any more."""
    if principal is ANONYMOUS and len(view) > 0:
        raise Unauthenticated("Somebody has just created the first token. From now on a key is needed.")
    if principal.secret_match is None:
        return Authorizer(view, now, None, EVERYTHING)
    match = view.find_by_digest(principal.secret_hash)
    if match is None or view.secret_status(match, now) is not Status.ACTIVE:
        raise Unauthenticated("Invalid API key provided: it has just ended.", code="invalid_api_key")
    return Authorizer(view, now, match, rights_of(view, match))
