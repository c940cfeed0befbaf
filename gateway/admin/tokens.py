"""The use case of managing tokens: every change is decided under the lock of the file, on the tokens as they are then. A
caller who has been revoked since the gate let it in, or a parent that has been narrowed meanwhile, counts.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
from msgspec import UNSET

from gateway.admin.authorizer import Authorizer, authorizer_for
from gateway.audit.hash_chain import Actor
from gateway.auth.principal import Principal
from gateway.auth.roles import Action, Scope
from gateway.core.errors import BadRequest, Conflict, Forbidden, StoreUnavailable
from gateway.tokens import changes, service
from gateway.tokens import secret as secrets_room
from gateway.tokens.cache import FileState, TokenCache
from gateway.tokens.changes import ChangeRefused, CreatedToken, RecordChange, TokenSpec
from gateway.tokens.hierarchy import TokenHierarchy
from gateway.tokens.models import TokenRecord
from gateway.tokens.rights import rights_of_chain
from gateway.tokens.service import TokenService
from gateway.tokens.stores.json_format import TokenFileError

log = logging.getLogger(__name__)


class Requester(NamedTuple):
    """Who asks, and how that is written down."""

    principal: Principal
    actor: Actor


Plan = Callable[[Authorizer], Sequence[RecordChange]]


class TokenManagement:
    """What callers do to tokens. Every method may raise StoreUnavailable; then nothing has changed."""

    def __init__(self, tokens: TokenService, cache: TokenCache, clock: Callable[[], float]) -> None:
        self._service = tokens
        self._cache = cache
        self._clock = clock

    def now(self) -> float:
        """Seconds since the epoch."""
        return self._clock()

    async def view(self) -> TokenHierarchy:
        """The tokens with every change in them that was made before, by whichever process."""
        await self._cache.refresh()
        return self._cache.view

    async def authorizer(self, principal: Principal) -> Authorizer:
        """What the caller may do now. Raises Unauthenticated."""
        return authorizer_for(await self.view(), principal, self._clock())

    async def create(self, caller: Requester, spec: TokenSpec) -> CreatedToken:
        """Raises BadRequest, Forbidden."""
        made: list[CreatedToken] = []

        def plan(authorizer: Authorizer) -> Sequence[RecordChange]:
            made.append(new_token(authorizer, spec))
            return changes.created(authorizer.view, made[-1].record, authorizer.now)

        await self.change(caller, plan)
        return made[-1]

    async def update(self, caller: Requester, token_id: str, values: Mapping[str, Any]) -> TokenRecord:
        """``values`` are fields of the record. Raises NotFound, Forbidden, BadRequest."""

        def plan(authorizer: Authorizer) -> Sequence[RecordChange]:
            record = authorizer.find(Action.UPDATE, token_id)
            authorizer.require_owner(values.get("owner", record.owner), record.owner)
            after = msgspec.structs.replace(record, **values)
            authorizer.require_within(rights_of_chain((after,)), values)
            return changes.patched(authorizer.view, record, values)

        return await self._changed(caller, token_id, plan)

    async def revoke(self, caller: Requester, token_id: str) -> TokenRecord:
        """Raises NotFound, Forbidden."""
        return await self._changed(
            caller,
            token_id,
            lambda authorizer: changes.revoked(
                authorizer.view, authorizer.find(Action.REVOKE, token_id), authorizer.now
            ),
        )

    async def delete(self, caller: Requester, token_id: str) -> None:
        """Raises NotFound, Forbidden."""
        await self.change(
            caller,
            lambda authorizer: changes.deleted(
                authorizer.view, authorizer.find(Action.DELETE, token_id), authorizer.now
            ),
        )

    async def rotate(self, caller: Requester, token_id: str, grace: int) -> CreatedToken:
        """``grace`` in seconds. Raises NotFound, Forbidden, Conflict, BadRequest."""
        secrets: list[str] = []

        def plan(authorizer: Authorizer) -> Sequence[RecordChange]:
            record = authorizer.find(Action.ROTATE, token_id)
            secrets.append(secrets_room.generate(secrets_room.kind(record.prefix)))
            return changes.rotated(authorizer.view, record, secrets[-1], grace, authorizer.now)

        return CreatedToken(await self._changed(caller, token_id, plan), secrets[-1])

    async def revoke_secret(self, actor: Actor, secret: str) -> None:
        """Whoever holds a secret may end it: a token and all below it, or one secret that has been replaced."""
        digest = secrets_room.digest(secret)

        def plan(view: TokenHierarchy, now: float) -> Sequence[RecordChange]:
            match = view.find_by_digest(digest)
            return () if match is None else changes.ended(view, match, now)

        view = await self.view()
        if self._cache.state is not FileState.CURRENT:
            raise StoreUnavailable("The token file cannot be read at the moment, so nothing was revoked.")
        if view.find_by_digest(digest) is not None:  # who guesses shall not keep the lock busy
            await self._write(actor, plan)

    async def change(self, caller: Requester, plan: Plan) -> tuple[RecordChange, ...]:
        """Make a change that ``plan`` decides on the newest tokens."""

        def planned(view: TokenHierarchy, now: float) -> Sequence[RecordChange]:
            return plan(authorizer_for(view, caller.principal, now))

        return await self._write(caller.actor, planned)

    async def _changed(self, caller: Requester, token_id: str, plan: Plan) -> TokenRecord:
        """The record afterwards, also where there was nothing to change."""
        seen: dict[str, TokenRecord] = {}

        def planned(authorizer: Authorizer) -> Sequence[RecordChange]:
            record_changes = plan(authorizer)
            for record in (authorizer.view.find_by_id(token_id), *(change.record for change in record_changes)):
                if record is not None:
                    seen[record.id] = record
            return record_changes

        await self.change(caller, planned)
        return seen[token_id]

    async def _write(self, actor: Actor, plan: service.Plan) -> tuple[RecordChange, ...]:
        """In a thread, and then seen by this worker at once; the others see it with their next look."""
        try:
            record_changes = await asyncio.to_thread(
                self._service.change, actor, plan, create=self._cache.may_create_file
            )
        except ChangeRefused as error:
            raise _refusal(error) from None
        except (TokenFileError, OSError) as error:
            log.error("a change to the tokens failed", extra={"problem": str(error)})
            raise StoreUnavailable("The change could not be written. Nothing has changed; please try again.") from None
        await self._cache.refresh()
        return record_changes


def new_token(authorizer: Authorizer, spec: TokenSpec) -> CreatedToken:
    """Whoever may not create everywhere creates below itself. Raises Forbidden, ChangeRefused."""
    if authorizer.scope(Action.CREATE) is not Scope.ALL:
        spec = _below(authorizer, spec)
    defaults, owner = changes.inherited_defaults(authorizer.view, spec.parent_id, authorizer.rights, authorizer.now)
    if spec.owner is not UNSET:
        authorizer.require_owner(spec.owner, owner)
    made = changes.new_token(spec, defaults, owner, authorizer.now)
    authorizer.require_within(rights_of_chain((made.record,)))
    return made


def _below(authorizer: Authorizer, spec: TokenSpec) -> TokenSpec:
    """With a parent: the caller, or a token below it."""
    caller = authorizer.record
    if caller is None or authorizer.scope(Action.CREATE) is Scope.NOTHING:
        raise Forbidden(f"A token with the role `{authorizer.rights.role}` may not create tokens.")
    if spec.parent_id in (None, caller.id):
        return msgspec.structs.replace(spec, parent_id=caller.id)
    if all(child.id != spec.parent_id for child in authorizer.view.descendants(caller)):
        raise ChangeRefused("There is no active token with this id.", "parent_id")
    return spec


def _refusal(error: ChangeRefused) -> BadRequest | Conflict:
    if error.field is None:
        return Conflict(str(error), code="token_not_active")
    return BadRequest(str(error), code="invalid_value", param=error.field)
