"""One request's way through the house, on one screen. Everything below simply raises; here it becomes an answer."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from aiohttp import web

from gateway.core.errors import Draining, GatewayError, InternalError, UnknownCredential
from gateway.http import response as relay
from gateway.http.context import RequestContext
from gateway.http.in_flight import InFlightRequests
from gateway.http.middleware import cors
from gateway.http.middleware.access_log import CLIENT_GONE, AccessLog
from gateway.http.middleware.authentication import Gate
from gateway.http.routes import Route
from gateway.observability.redaction import Redactor

log = logging.getLogger(__name__)

Look = Callable[[], Awaitable[None]]

_DURING_DRAIN = frozenset({"/healthz", "/readyz", "/metrics"})


class PipelineRules(NamedTuple):
    """Which origins browsers may call from, and what makes secrets unreadable in errors."""

    origins: frozenset[str]
    redactor: Redactor


class Pipeline:
    """The handler that the server calls for every request."""

    def __init__(
        self, gate: Gate, look_at_tokens: Look, observer: AccessLog, active: InFlightRequests, rules: PipelineRules
    ) -> None:
        self._gate = gate
        self._look_at_tokens = look_at_tokens
        self._observer = observer
        self._in_flight = active
        self._origins, self._redactor = rules
        self.draining = False

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        ctx = RequestContext(request)
        self._in_flight.enter(ctx)
        status = CLIENT_GONE
        try:
            response = await self._answer(ctx)
            status = response.status
            return response
        finally:
            self._in_flight.leave(ctx)
            self._observer.ended(ctx, status)

    async def _answer(self, ctx: RequestContext) -> web.StreamResponse:
        try:
            return await self._served(ctx)
        except GatewayError as error:
            return await self._failed(ctx, error)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if ctx.cut is None and (task is None or task.cancelling()):
                raise  # the client has gone: there is nobody to answer
            if ctx.cut is not None and task is not None:
                task.uncancel()  # it was our own doing, and the task goes on to its end
            return await self._failed(ctx, ctx.cut or InternalError(ctx.id))
        except Exception as error:
            if isinstance(error, ConnectionError) and ctx.client_is_gone:
                raise
            log.exception("a bug", extra={"request_id": ctx.id})
            return await self._failed(ctx, InternalError(ctx.id))

    async def _admitted(self, ctx: RequestContext) -> Route:
        """A token that another process has just made is known here with the next look: that one look is taken at once."""
        try:
            return self._gate.admit(ctx)
        except UnknownCredential:
            await self._look_at_tokens()
            return self._gate.admit(ctx)

    async def _served(self, ctx: RequestContext) -> web.StreamResponse:
        if self._origins:
            headers = ctx.request.headers
            ctx.cors_headers = cors.answer_headers(headers.get("Origin"), self._origins)
            preflight = cors.preflight_headers(ctx.method, headers, self._origins)
            if preflight is not None:
                return web.Response(status=204, headers={**ctx.headers(), **preflight})
        route = await self._admitted(ctx)
        if self.draining and route.pattern not in _DURING_DRAIN:
            raise Draining
        return await route.handler(ctx)

    async def _failed(self, ctx: RequestContext, error: GatewayError) -> web.StreamResponse:
        """A status of its own while nothing has been sent; after that the answer is broken off."""
        body = error.body(self._redactor)
        if ctx.started is not None:
            await relay.break_off(ctx, ctx.started, error, body)
            return ctx.started
        headers = {name: value for name, value in error.headers.items() if name != "Connection"}
        response = relay.whole(ctx, error.status, body, {**headers, "Content-Type": "application/json"})
        if "Connection" in error.headers:
            response.force_close()
        return response
