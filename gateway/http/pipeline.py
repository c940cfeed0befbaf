"""The way of every request: the middleware in order, the endpoint, and whatever is raised becomes a response."""

import asyncio
import logging
from collections.abc import Callable, Sequence

from gateway.config.parsers import Network
from gateway.core.errors import GatewayError, InternalError
from gateway.http.context import RequestContext
from gateway.http.middleware.base import Middleware
from gateway.http.request import Request
from gateway.http.response import Response

log = logging.getLogger(__name__)

CLIENT_GONE = 499
"""The status that is logged, never sent, for a client that left (nginx's number for it)."""


class Pipeline:
    """The handler that a server calls for every request.

    ``middleware`` is in the order in which a request meets it. The last one has to leave a route in the context, or raise.
    """

    def __init__(
        self,
        middleware: Sequence[Middleware],
        redact: Callable[[str], str] = str,
        trusted_proxies: Sequence[Network] = (),
    ) -> None:
        """``redact`` makes secrets unreadable in errors; ``trusted_proxies`` are those that may name a client's address."""
        self._trusted_proxies = trusted_proxies
        self.middleware = tuple(middleware)
        self._before = [step.before for step in middleware if type(step).before is not Middleware.before]
        self._after = [step.after for step in reversed(middleware) if type(step).after is not Middleware.after]
        self._redact = redact

    async def handle(self, request: Request) -> None:
        """Answers the request on its connection. Raises ConnectionError and CancelledError where the client has gone."""
        ctx = RequestContext(request, self._trusted_proxies)
        status = CLIENT_GONE
        try:
            response = await self._respond(ctx)
            status = response.status
        finally:
            for after in self._after:
                try:
                    after(ctx, status)
                except Exception:  # the response is sent, and the other steps have to end, too
                    log.exception("a middleware failed after the response", extra={"request_id": ctx.id})

    async def _respond(self, ctx: RequestContext) -> Response:
        """Returns the response that was sent."""
        try:
            response = await self._run(ctx)
            return response if ctx.started_response is not None else await ctx.send(response)
        except GatewayError as error:
            return await self._send_error(ctx, error)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if ctx.abort_error is None and (task is None or task.cancelling()):
                raise  # the client has gone: there is nobody to answer
            if ctx.abort_error is not None and task is not None:
                task.uncancel()  # the gateway cancelled it itself, and the task goes on to its end
            return await self._send_error(ctx, ctx.abort_error or InternalError(ctx.id))
        except Exception as error:
            if isinstance(error, ConnectionError) and ctx.client_is_gone:
                raise
            log.exception("unhandled exception", extra={"request_id": ctx.id})
            return await self._send_error(ctx, InternalError(ctx.id))

    async def _run(self, ctx: RequestContext) -> Response:
        for before in self._before:
            outcome = before(ctx)
            if outcome is not None and not isinstance(outcome, Response):
                outcome = await outcome
            if outcome is not None:
                return outcome
        if ctx.route is None:
            raise RuntimeError("no middleware has found a route")
        return await ctx.route.endpoint(ctx)

    async def _send_error(self, ctx: RequestContext, error: GatewayError) -> Response:
        """Sends an error: with a status of its own while nothing has been sent; after that the response is aborted."""
        ctx.error = error
        body = ctx.error_format(error, self._redact, ctx.id)
        if ctx.started_response is not None:
            ctx.abort(error, body)
            return ctx.started_response
        headers = {name: value for name, value in error.headers.items() if name != "Connection"}
        closes = "Connection" in error.headers
        return await ctx.send(Response(error.status, {**headers, "Content-Type": "application/json"}, body, closes))
