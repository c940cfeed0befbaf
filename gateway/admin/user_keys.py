"""The use case of a user's one key, found by e-mail address: a ``sk_live_`` token that its owner may replace and end."""

from collections.abc import Container, Sequence

from gateway.admin.authorizer import Authorizer
from gateway.admin.tokens import Requester, TokenManagement
from gateway.auth.principal import Principal
from gateway.auth.roles import Action, Scope
from gateway.core.errors import Forbidden, NotFound
from gateway.tokens import changes
from gateway.tokens import secret as secrets_room
from gateway.tokens.changes import CreatedToken, RecordChange, TokenSpec
from gateway.tokens.hierarchy import SecretMatch, TokenHierarchy
from gateway.tokens.models import Status, TokenRecord
from gateway.tokens.rights import rights_of, rights_of_chain


class UserKeys:
    """Keys by their owner."""

    def __init__(self, management: TokenManagement) -> None:
        self._management = management

    async def current(self, principal: Principal, email: str) -> TokenRecord | None:
        """The user's key; None where there is none. Raises NotFound for somebody else's."""
        authorizer = await self._management.authorizer(principal)
        if not _is_theirs(authorizer, email, Action.READ):
            raise _no_key()
        active = (
            record
            for record in _keys_of(authorizer.view, email)
            if authorizer.view.status(record, authorizer.now) is Status.ACTIVE
        )
        return next(active, None)

    async def replace(self, caller: Requester, email: str, name: str) -> CreatedToken:
        """Make the user's key; one that is there ends. Raises Forbidden."""
        made: list[CreatedToken] = []

        def plan(authorizer: Authorizer) -> Sequence[RecordChange]:
            if not _is_theirs(authorizer, email, Action.CREATE):
                raise Forbidden("Only an admin, or a token of that owner, may make this user's key.", param="email")
            ending = [
                change
                for old in _keys_of(authorizer.view, email)
                for change in changes.revoked(authorizer.view, old, authorizer.now)
            ]
            made.append(_successor(authorizer, email, name, {change.record.id for change in ending}))
            return (*ending, *changes.created(authorizer.view, made[-1].record, authorizer.now))

        await self._management.change(caller, plan)
        return made[-1]

    async def revoke(self, caller: Requester, email: str) -> None:
        """Raises NotFound where there is none, and for somebody else's."""

        def plan(authorizer: Authorizer) -> Sequence[RecordChange]:
            if not _is_theirs(authorizer, email, Action.REVOKE):
                raise _no_key()
            ending = [
                change
                for old in _keys_of(authorizer.view, email)
                for change in changes.revoked(authorizer.view, old, authorizer.now)
            ]
            if not ending:
                raise _no_key()
            return ending

        await self._management.change(caller, plan)


def _keys_of(view: TokenHierarchy, email: str) -> list[TokenRecord]:
    """The newest first. More than one only where somebody made them by other means."""
    return [
        record
        for record in reversed(view.document.tokens)
        if record.owner == email and record.revoked_at is None and secrets_room.kind(record.prefix) == secrets_room.LIVE
    ]


def _is_theirs(authorizer: Authorizer, email: str, action: Action) -> bool:
    scope = authorizer.scope(action)
    return scope is Scope.ALL or (
        scope is Scope.OWN and authorizer.record is not None and authorizer.record.owner == email
    )


def _successor(authorizer: Authorizer, email: str, name: str, ending: Container[str]) -> CreatedToken:
    """With the limits of the key that it replaces, if that was good; never more than the caller has."""
    old = next(
        (
            one
            for one in _keys_of(authorizer.view, email)
            if authorizer.view.status(one, authorizer.now) is Status.ACTIVE
        ),
        None,
    )
    defaults = authorizer.rights
    if old is not None and not (carried := rights_of(authorizer.view, SecretMatch(old, None))).fields_exceeding(
        authorizer.rights
    ):
        defaults = carried
    parent = _surviving(
        authorizer.view, old if authorizer.scope(Action.CREATE) is Scope.ALL else authorizer.record, ending
    )
    spec = TokenSpec(name=name, owner=email, parent_id=parent.id if parent else None, prefix=secrets_room.LIVE)
    made = changes.new_token(spec, defaults, email, authorizer.now)
    authorizer.require_within(rights_of_chain((made.record,)))
    return made


def _surviving(view: TokenHierarchy, start: TokenRecord | None, ending: Container[str]) -> TokenRecord | None:
    """The first of a line upwards that goes on: a key below one that ends would be born dead."""
    line = (start, *(view.parents(start) or ())) if start is not None else ()
    return next((record for record in line if record.id not in ending), None)


def _no_key() -> NotFound:
    return NotFound("This user has no API key.", code="key_not_found")
