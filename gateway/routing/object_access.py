"""Decides which stored objects of the upstream a caller may use, and notes which it makes.

Admins may use all. Any other token may use what its owner has made through this gateway; whatever else is asked for is answered
as if it did not exist, so that nobody can find out whether it does.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from typing import NamedTuple
from urllib.parse import parse_qsl

from gateway.auth.principal import Principal
from gateway.core import upstream_routes
from gateway.core.errors import Forbidden, NotFound, StoreUnavailable
from gateway.core.json_body import JsonObject
from gateway.core.threads import Threads
from gateway.providers.base import EVENT_STREAM, ProviderRequest, ProviderResponse
from gateway.routing import created_objects
from gateway.routing.ownership import ObjectKey, ObjectRecord, ObjectStoreError, Ownership
from gateway.routing.requested_objects import LARGE_BODY, Reference, find_references
from gateway.tokens.models import Role

MAX_LIST_BYTES = 16 * 1024 * 1024
"""A longer response that passes in chunks is neither filtered nor searched for ids."""


class ObjectRules(NamedTuple):
    """``opened`` are the beginnings of paths that tokens which are not admins may use besides inference. ``provider_name``
    returns who answers a caller. ``clock`` is in seconds since the epoch."""

    opened: tuple[str, ...]
    provider_name: Callable[[Principal], str]
    clock: Callable[[], float]


class ObjectAccess:
    """Checks requests against ``Ownership``, and records what responses tell."""

    def __init__(self, ownership: Ownership, rules: ObjectRules) -> None:
        self._ownership = ownership
        self._rules = rules
        self._threads = Threads("bodies")

    async def check_body(self, principal: Principal, body: bytes) -> None:
        """Checks the ids of stored objects in a JSON body. Raises NotFound, BadRequest, StoreUnavailable."""
        if principal.role is Role.ADMIN:
            return
        is_large = len(body) > LARGE_BODY
        references = await self._threads.run(find_references, body) if is_large else find_references(body)
        if references:
            await self._check(principal, references)

    async def check_path(self, principal: Principal, method: str, path: str, query: str) -> None:
        """Checks the ids behind the name of a collection, the first of which must be an object of the caller.

        Without one, a collection can be listed and added to. ``path`` is what follows ``/v1/``. Raises NotFound, Forbidden,
        StoreUnavailable.
        """
        if principal.role is Role.ADMIN or upstream_routes.is_inference(method, path):
            return
        segments = self._segments(path)
        if not segments and method not in ("GET", "POST"):
            raise Forbidden("Only admins may change a whole collection, or ask for its size.")
        references = [Reference("id", text, is_needed=number == 0) for number, text in enumerate(segments)]
        references += [Reference(name, text, is_needed=False) for name, text in parse_qsl(query)]
        if references:
            await self._check(principal, references)

    async def _check(self, principal: Principal, references: list[Reference]) -> None:
        owner = owner_of(principal)
        owners = await self._owners(principal, [reference.id for reference in references])
        for reference in references:
            found = owners.get(reference.id)
            if found != owner and (found is not None or reference.is_needed):
                raise _not_found(reference)

    async def receive(self, principal: Principal, request: ProviderRequest, response: ProviderResponse) -> None:
        """Records what a response tells of new objects, before any byte of it is sent, and takes out of a list what is not the
        caller's. It may replace the response's body.

        Raises Forbidden where a list cannot be read, StoreUnavailable.
        """
        if self._is_list(principal, request):
            await self._filter_list(principal, response)
        elif owner_of(principal) is not None and self._may_tell_ids(principal, request):
            await self._learn(principal, request, response)

    async def _learn(self, principal: Principal, request: ProviderRequest, response: ProviderResponse) -> None:
        if response.content_type.startswith(EVENT_STREAM):
            if not isinstance(response.body, bytes):
                response.body = self._learn_events(principal, request.path, response.body)
        elif "json" in response.content_type and (body := await _read(response)) is not None:
            await self._record(principal, request.path, created_objects.ids_in_object(body))

    async def _learn_events(
        self, principal: Principal, path: str, blocks: AsyncIterator[bytes]
    ) -> AsyncGenerator[bytes, None]:
        known: set[str] = set()
        try:
            async for block in blocks:
                ids = [text for text in created_objects.ids_in_events(block) if text not in known]
                if ids:
                    known.update(ids)
                    await self._record(principal, path, ids)
                yield block
        finally:
            if isinstance(blocks, AsyncGenerator):
                await blocks.aclose()

    async def _record(self, principal: Principal, path: str, ids: Iterable[str]) -> None:
        owner, provider = owner_of(principal), self._rules.provider_name(principal)
        kind, now = upstream_routes.collection(path), int(self._rules.clock() * 1000)
        if owner is not None:
            keys = [ObjectKey(provider, text) for text in dict.fromkeys(ids)]
            if keys:
                await self._ownership.record([ObjectRecord(key, kind, owner, now) for key in keys])

    async def _filter_list(self, principal: Principal, response: ProviderResponse) -> None:
        body = await _read(response)
        ids = [] if body is None else created_objects.ids_in_list(body)
        owner = owner_of(principal)
        owned = frozenset(text for text, found in (await self._owners(principal, ids)).items() if found == owner)
        filtered = None if body is None else created_objects.own_entries(body, owned)
        if filtered is None:
            raise Forbidden("The upstream's response is no list of which your part can be shown. An admin can read it.")
        response.body = filtered
        response.headers = {name: value for name, value in response.headers.items() if name.lower() != "etag"}

    async def _owners(self, principal: Principal, ids: list[str]) -> dict[str, str]:
        provider = self._rules.provider_name(principal)
        try:
            found = await self._ownership.owners([ObjectKey(provider, text) for text in dict.fromkeys(ids)])
        except ObjectStoreError:
            raise StoreUnavailable("Who made the objects of this request cannot be read at the moment.") from None
        return {key.id: owner for key, owner in found.items()}

    def _segments(self, path: str) -> tuple[str, ...]:
        return upstream_routes.object_segments(path, upstream_routes.opening_prefix(path, self._rules.opened) or "")

    def _is_list(self, principal: Principal, request: ProviderRequest) -> bool:
        is_reading = request.method == "GET" and principal.role is not Role.ADMIN
        return is_reading and not self._segments(request.path)

    def _may_tell_ids(self, principal: Principal, request: ProviderRequest) -> bool:
        """Whether the response may tell the id of something that the upstream keeps for this caller."""
        if upstream_routes.is_inference(request.method, request.path):
            return _is_stored(request)
        is_below = bool(self._segments(request.path))
        if principal.role is Role.ADMIN:
            # What an admin does with an object of somebody else does not make it the admin's.
            return request.method == "POST" and not is_below
        return request.method == "POST" or is_below


def owner_of(principal: Principal) -> str | None:
    """Returns to whom belongs what a caller makes: the owner of its token, or the token itself. None without a token."""
    match = principal.secret_match
    return None if match is None else match.record.owner or match.record.id


def _is_stored(request: ProviderRequest) -> bool:
    """Whether the upstream keeps what a model answers: a response unless ``store`` is false, a chat if it is true."""
    fields = request.fields
    if request.path == "responses":
        return not isinstance(fields, JsonObject) or fields.get("store") is not False
    return request.path == "chat/completions" and isinstance(fields, JsonObject) and fields.get("store") is True


async def _read(response: ProviderResponse) -> bytes | None:
    """Returns the whole body, and leaves it in the response; None where it is too long, which leaves a body in chunks."""
    if isinstance(response.body, bytes):
        return response.body
    chunks, size = [], 0
    rest = response.body
    async for chunk in rest:
        chunks.append(chunk)
        size += len(chunk)
        if size > MAX_LIST_BYTES:
            response.body = _chained(chunks, rest)
            return None
    response.body = whole = b"".join(chunks)
    response.headers = {name: value for name, value in response.headers.items() if name.lower() != "content-length"}
    return whole


async def _chained(chunks: list[bytes], rest: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    try:
        for chunk in chunks:
            yield chunk
        async for chunk in rest:
            yield chunk
    finally:
        if isinstance(rest, AsyncGenerator):
            await rest.aclose()


def _not_found(reference: Reference) -> NotFound:
    shown = reference.id[:100]
    if reference.field == "previous_response_id":
        message = f"Previous response with id '{shown}' not found."
        return NotFound(message, code="previous_response_not_found", param=reference.field)
    return NotFound(f"No object with id '{shown}' was found.", code="object_not_found", param=reference.field)
