"""One request's way through the house, on one screen. Everything below simply raises; here it becomes an answer."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from aiohttp import web

from gateway.core.errors import Draining, GatewayError, InternalError, UnknownCredential
from gateway.http import response as relay
from gateway.http.context import Call
from gateway.http.in_flight import ActiveCalls
from gateway.http.middleware import cors
from gateway.http.middleware.access_log import CLIENT_GONE, Observer
from gateway.http.middleware.authentication import Gate
from gateway.http.routes import Route
from gateway.observability.redaction import Redactor

log = logging.getLogger(__name__)

Look = Callable[[], Awaitable[None]]

_DURING_DRAIN = frozenset({"/healthz", "/readyz", "/metrics"})


class EntranceRules(NamedTuple):
    """Which origins browsers may call from, and what makes secrets unreadable in errors."""

    origins: frozenset[str]
    redactor: Redactor


class Entrance:
    """The handler that the server calls for every request."""

    def __init__(
        self, gate: Gate, look_at_tokens: Look, observer: Observer, active: ActiveCalls, rules: EntranceRules
    ) -> None:
        self._gate = gate
        self._look_at_tokens = look_at_tokens
        self._observer = observer
        self._active = active
        self._origins, self._redactor = rules
        self.draining = False

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        call = Call(request)
        self._active.enter(call)
        status = CLIENT_GONE
        try:
            response = await self._answer(call)
            status = response.status
            return response
        finally:
            self._active.leave(call)
            self._observer.ended(call, status)

    async def _answer(self, call: Call) -> web.StreamResponse:
        try:
            return await self._served(call)
        except GatewayError as error:
            return await self._failed(call, error)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if call.cut is None and (task is None or task.cancelling()):
                raise  # the client has gone: there is nobody to answer
            if call.cut is not None and task is not None:
                task.uncancel()  # it was our own doing, and the task goes on to its end
            return await self._failed(call, call.cut or InternalError(call.id))
        except Exception as error:
            if isinstance(error, ConnectionError) and call.client_is_gone:
                raise
            log.exception("a bug", extra={"request_id": call.id})
            return await self._failed(call, InternalError(call.id))

    async def _admitted(self, call: Call) -> Route:
        """A token that another process has just made is known here with the next look: that one look is taken at once."""
        try:
            return self._gate.admit(call)
        except UnknownCredential:
            await self._look_at_tokens()
            return self._gate.admit(call)

    async def _served(self, call: Call) -> web.StreamResponse:
        if self._origins:
            headers = call.request.headers
            call.cors_headers = cors.answer_headers(headers.get("Origin"), self._origins)
            preflight = cors.preflight_headers(call.method, headers, self._origins)
            if preflight is not None:
                return web.Response(status=204, headers={**call.headers(), **preflight})
        route = await self._admitted(call)
        if self.draining and route.pattern not in _DURING_DRAIN:
            raise Draining
        return await route.handler(call)

    async def _failed(self, call: Call, error: GatewayError) -> web.StreamResponse:
        """A status of its own while nothing has been sent; after that the answer is broken off."""
        body = error.body(self._redactor)
        if call.started is not None:
            await relay.break_off(call, call.started, error, body)
            return call.started
        headers = {name: value for name, value in error.headers.items() if name != "Connection"}
        response = relay.whole(call, error.status, body, {**headers, "Content-Type": "application/json"})
        if "Connection" in error.headers:
            response.force_close()
        return response
