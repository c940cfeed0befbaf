"""The use case of a user's one key, found by e-mail address: a ``sk_live_`` token that its owner may replace and end."""

from collections.abc import Container, Sequence

from gateway.admin.authorizer import Authority
from gateway.admin.tokens import Caller, TokenManagement
from gateway.auth.principal import Principal
from gateway.auth.roles import Reach, Verb
from gateway.core.errors import Forbidden, NotFound
from gateway.tokens import changes
from gateway.tokens import secret as secrets_room
from gateway.tokens.changes import NewToken, TokenWish, Touch
from gateway.tokens.hierarchy import Held, TokenView
from gateway.tokens.models import Status, TokenRecord
from gateway.tokens.rights import grant_along, grant_of


class UserKeys:
    """Keys by their owner."""

    def __init__(self, management: TokenManagement) -> None:
        self._management = management

    async def current(self, principal: Principal, email: str) -> TokenRecord | None:
        """The user's key; None where there is none. Raises NotFound for somebody else's."""
        may = await self._management.authority(principal)
        if not _is_theirs(may, email, Verb.READ):
            raise _no_key()
        active = (record for record in _keys_of(may.view, email) if may.view.status(record, may.now) is Status.ACTIVE)
        return next(active, None)

    async def replace(self, caller: Caller, email: str, name: str) -> NewToken:
        """Make the user's key; one that is there ends. Raises Forbidden."""
        made: list[NewToken] = []

        def plan(may: Authority) -> Sequence[Touch]:
            if not _is_theirs(may, email, Verb.CREATE):
                raise Forbidden("Only an admin, or a token of that owner, may make this user's key.", param="email")
            ending = [touch for old in _keys_of(may.view, email) for touch in changes.revoked(may.view, old, may.now)]
            made.append(_successor(may, email, name, {touch.record.id for touch in ending}))
            return (*ending, *changes.created(may.view, made[-1].record, may.now))

        await self._management.change(caller, plan)
        return made[-1]

    async def revoke(self, caller: Caller, email: str) -> None:
        """Raises NotFound where there is none, and for somebody else's."""

        def plan(may: Authority) -> Sequence[Touch]:
            if not _is_theirs(may, email, Verb.REVOKE):
                raise _no_key()
            ending = [touch for old in _keys_of(may.view, email) for touch in changes.revoked(may.view, old, may.now)]
            if not ending:
                raise _no_key()
            return ending

        await self._management.change(caller, plan)


def _keys_of(view: TokenView, email: str) -> list[TokenRecord]:
    """The newest first. More than one only where somebody made them by other means."""
    return [
        record
        for record in reversed(view.document.tokens)
        if record.owner == email and record.revoked_at is None and secrets_room.kind(record.prefix) == secrets_room.LIVE
    ]


def _is_theirs(may: Authority, email: str, verb: Verb) -> bool:
    reach = may.reach(verb)
    return reach is Reach.ALL or (reach is Reach.OWN and may.record is not None and may.record.owner == email)


def _successor(may: Authority, email: str, name: str, ending: Container[str]) -> NewToken:
    """With the limits of the key that it replaces, if that was good; never more than the caller has."""
    old = next((one for one in _keys_of(may.view, email) if may.view.status(one, may.now) is Status.ACTIVE), None)
    giver = may.grant
    if old is not None and not (carried := grant_of(may.view, Held(old, None))).excess(may.grant):
        giver = carried
    parent = _surviving(may.view, old if may.reach(Verb.CREATE) is Reach.ALL else may.record, ending)
    wish = TokenWish(name=name, owner=email, parent_id=parent.id if parent else None, prefix=secrets_room.LIVE)
    made = changes.new_token(wish, giver, email, may.now)
    may.refuse_excess(grant_along((made.record,)))
    return made


def _surviving(view: TokenView, start: TokenRecord | None, ending: Container[str]) -> TokenRecord | None:
    """The first of a line upwards that goes on: a key below one that ends would be born dead."""
    line = (start, *(view.parents(start) or ())) if start is not None else ()
    return next((record for record in line if record.id not in ending), None)


def _no_key() -> NotFound:
    return NotFound("This user has no API key.", code="key_not_found")
