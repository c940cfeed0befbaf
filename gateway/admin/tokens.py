"""The use case of managing tokens: every change is decided under the lock of the file, on the tokens as they are then. A
caller who has been revoked since the gate let it in, or a parent that has been narrowed meanwhile, counts.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
from msgspec import UNSET

from gateway.admin.authorizer import Authority, authority_of
from gateway.audit.hash_chain import Actor
from gateway.auth.principal import Principal
from gateway.auth.roles import Reach, Verb
from gateway.core.errors import BadRequest, Conflict, Forbidden, StoreUnavailable
from gateway.tokens import changes, service
from gateway.tokens import secret as secrets_room
from gateway.tokens.cache import FileState, TokenWatcher
from gateway.tokens.changes import ChangeRefused, NewToken, TokenWish, Touch
from gateway.tokens.hierarchy import TokenView
from gateway.tokens.models import TokenRecord
from gateway.tokens.rights import grant_along
from gateway.tokens.service import TokenService
from gateway.tokens.stores.json_format import TokenFileError

log = logging.getLogger(__name__)


class Caller(NamedTuple):
    """Who asks, and how that is written down."""

    principal: Principal
    actor: Actor


Plan = Callable[[Authority], Sequence[Touch]]


class TokenManagement:
    """What callers do to tokens. Every method may raise StoreUnavailable; then nothing has changed."""

    def __init__(self, tokens: TokenService, watcher: TokenWatcher, clock: Callable[[], float]) -> None:
        self._service = tokens
        self._watcher = watcher
        self._clock = clock

    def now(self) -> float:
        """Seconds since the epoch."""
        return self._clock()

    async def view(self) -> TokenView:
        """The tokens with every change in them that was made before, by whichever process."""
        await self._watcher.look()
        return self._watcher.view

    async def authority(self, principal: Principal) -> Authority:
        """What the caller may do now. Raises Unauthenticated."""
        return authority_of(await self.view(), principal, self._clock())

    async def create(self, caller: Caller, wish: TokenWish) -> NewToken:
        """Raises BadRequest, Forbidden."""
        made: list[NewToken] = []

        def plan(may: Authority) -> Sequence[Touch]:
            made.append(new_token(may, wish))
            return changes.created(may.view, made[-1].record, may.now)

        await self.change(caller, plan)
        return made[-1]

    async def update(self, caller: Caller, token_id: str, values: Mapping[str, Any]) -> TokenRecord:
        """``values`` are fields of the record. Raises NotFound, Forbidden, BadRequest."""

        def plan(may: Authority) -> Sequence[Touch]:
            record = may.find(Verb.UPDATE, token_id)
            may.refuse_owner(values.get("owner", record.owner), record.owner)
            after = msgspec.structs.replace(record, **values)
            may.refuse_excess(grant_along((after,)), values)
            return changes.patched(may.view, record, values)

        return await self._changed(caller, token_id, plan)

    async def revoke(self, caller: Caller, token_id: str) -> TokenRecord:
        """Raises NotFound, Forbidden."""
        return await self._changed(
            caller, token_id, lambda may: changes.revoked(may.view, may.find(Verb.REVOKE, token_id), may.now)
        )

    async def delete(self, caller: Caller, token_id: str) -> None:
        """Raises NotFound, Forbidden."""
        await self.change(caller, lambda may: changes.deleted(may.view, may.find(Verb.DELETE, token_id), may.now))

    async def rotate(self, caller: Caller, token_id: str, grace: int) -> NewToken:
        """``grace`` in seconds. Raises NotFound, Forbidden, Conflict, BadRequest."""
        secrets: list[str] = []

        def plan(may: Authority) -> Sequence[Touch]:
            record = may.find(Verb.ROTATE, token_id)
            secrets.append(secrets_room.generate(secrets_room.kind(record.prefix)))
            return changes.rotated(may.view, record, secrets[-1], grace, may.now)

        return NewToken(await self._changed(caller, token_id, plan), secrets[-1])

    async def revoke_secret(self, actor: Actor, secret: str) -> None:
        """Whoever holds a secret may end it: a token and all below it, or one secret that has been replaced."""
        digest = secrets_room.digest(secret)

        def plan(view: TokenView, now: float) -> Sequence[Touch]:
            held = view.by_hash(digest)
            return () if held is None else changes.ended(view, held, now)

        view = await self.view()
        if self._watcher.state is not FileState.CURRENT:
            raise StoreUnavailable("The token file cannot be read at the moment, so nothing was revoked.")
        if view.by_hash(digest) is not None:  # who guesses shall not keep the lock busy
            await self._write(actor, plan)

    async def change(self, caller: Caller, plan: Plan) -> tuple[Touch, ...]:
        """Make a change that ``plan`` decides on the newest tokens."""

        def planned(view: TokenView, now: float) -> Sequence[Touch]:
            return plan(authority_of(view, caller.principal, now))

        return await self._write(caller.actor, planned)

    async def _changed(self, caller: Caller, token_id: str, plan: Plan) -> TokenRecord:
        """The record afterwards, also where there was nothing to change."""
        seen: dict[str, TokenRecord] = {}

        def planned(may: Authority) -> Sequence[Touch]:
            touches = plan(may)
            for record in (may.view.by_id(token_id), *(touch.record for touch in touches)):
                if record is not None:
                    seen[record.id] = record
            return touches

        await self.change(caller, planned)
        return seen[token_id]

    async def _write(self, actor: Actor, plan: service.Plan) -> tuple[Touch, ...]:
        """In a thread, and then seen by this worker at once; the others see it with their next look."""
        try:
            touches = await asyncio.to_thread(self._service.change, actor, plan, create=self._watcher.may_begin)
        except ChangeRefused as error:
            raise _refusal(error) from None
        except (TokenFileError, OSError) as error:
            log.error("a change to the tokens failed", extra={"problem": str(error)})
            raise StoreUnavailable("The change could not be written. Nothing has changed; please try again.") from None
        await self._watcher.look()
        return touches


def new_token(may: Authority, wish: TokenWish) -> NewToken:
    """Whoever may not create everywhere creates below itself. Raises Forbidden, ChangeRefused."""
    if may.reach(Verb.CREATE) is not Reach.ALL:
        wish = _below(may, wish)
    giver, owner = changes.giver(may.view, wish.parent_id, may.grant, may.now)
    if wish.owner is not UNSET:
        may.refuse_owner(wish.owner, owner)
    made = changes.new_token(wish, giver, owner, may.now)
    may.refuse_excess(grant_along((made.record,)))
    return made


def _below(may: Authority, wish: TokenWish) -> TokenWish:
    """With a parent: the caller, or a token below it."""
    caller = may.record
    if caller is None or may.reach(Verb.CREATE) is Reach.NOTHING:
        raise Forbidden(f"A token with the role `{may.grant.role}` may not create tokens.")
    if wish.parent_id in (None, caller.id):
        return msgspec.structs.replace(wish, parent_id=caller.id)
    if all(child.id != wish.parent_id for child in may.view.descendants(caller)):
        raise ChangeRefused("There is no active token with this id.", "parent_id")
    return wish


def _refusal(error: ChangeRefused) -> BadRequest | Conflict:
    if error.field is None:
        return Conflict(str(error), code="token_not_active")
    return BadRequest(str(error), code="invalid_value", param=error.field)
