"""What a caller may do to which tokens, on the tokens of one moment. Pure.

Somebody else's token is as good as none; one that the caller may see, and not do this to, is forbidden.
"""

from collections.abc import Container
from typing import NamedTuple

from gateway.auth.principal import ANYBODY, Principal
from gateway.auth.roles import ROLES, Reach, Verb, kinship, reaches
from gateway.core.errors import Forbidden, NotFound, Unauthenticated
from gateway.tokens.hierarchy import Held, TokenView
from gateway.tokens.models import Status, TokenRecord
from gateway.tokens.rights import EVERYTHING, Grant, grant_of

_MASTERS = frozenset({Verb.UPDATE, Verb.ROTATE, Verb.DELETE})
"""What a token may only do to tokens that may do no more than itself: else it could get the secret of a mightier one, or
change it. Revoking takes nothing but reach: it gives nothing."""


class Authority(NamedTuple):
    """``held`` is None for who holds no token: the environment key, and anybody in open mode."""

    view: TokenView
    now: float
    held: Held | None
    grant: Grant

    @property
    def record(self) -> TokenRecord | None:
        return self.held.record if self.held else None

    def reach(self, verb: Verb) -> Reach:
        return ROLES[self.grant.role][verb]

    def may(self, verb: Verb, record: TokenRecord) -> bool:
        """Whether the caller's role reaches this token."""
        return reaches(self.grant.role, verb, kinship(self.view, self.record, record))

    def find(self, verb: Verb, token_id: str) -> TokenRecord:
        """A token to do this to. Raises NotFound for what the caller may not even see, Forbidden for what it may not do."""
        record = self.view.by_id(token_id)
        if record is None or not self.may(Verb.READ, record):
            raise NotFound("There is no token with this id.", code="token_not_found")
        if not self.may(verb, record):
            raise Forbidden(f"A token with the role `{self.grant.role}` may not {verb} this token.")
        if verb in _MASTERS:
            self.refuse_excess(grant_of(self.view, Held(record, None)))
        return record

    def refuse_excess(self, wanted: Grant, changed: Container[str] | None = None) -> None:
        """Raises Forbidden for more than the caller has, in any field or in those that change."""
        excess = [field for field in wanted.excess(self.grant) if changed is None or field in changed]
        if not excess:
            return
        message = f"Nobody can give more than they have; `{excess[0]}` goes beyond the token that asks."
        if self.held is not None and self.held.previous is not None:
            message += " The secret that was sent has been replaced: send the new one."
        raise Forbidden(message, param=excess[0])

    def refuse_owner(self, owner: str | None, due: str | None) -> None:
        """Raises Forbidden for an owner other than the due one, unless the caller manages everybody's tokens."""
        if owner != due and self.reach(Verb.CREATE) is not Reach.ALL:
            raise Forbidden("A token can only have the owner of the token that asks.", param="owner")


def authority_of(view: TokenView, principal: Principal, now: float) -> Authority:
    """Raises Unauthenticated for a caller who could not come in any more."""
    if principal is ANYBODY and len(view) > 0:
        raise Unauthenticated("Somebody has just created the first token. From now on a key is needed.")
    if principal.held is None:
        return Authority(view, now, None, EVERYTHING)
    held = view.by_hash(principal.secret_hash)
    if held is None or view.secret_status(held, now) is not Status.ACTIVE:
        raise Unauthenticated("Invalid API key provided: it has just ended.", code="invalid_api_key")
    return Authority(view, now, held, grant_of(view, held))
