"""One request's way through the house, on one screen. Everything below simply raises; here it becomes an answer."""

import asyncio
import logging

from aiohttp import web

from gateway.errors import Draining, GatewayError, InternalError
from gateway.http import cors
from gateway.http.active import ActiveCalls
from gateway.http.call import Call
from gateway.http.gate import Gate
from gateway.http.observe import CLIENT_GONE, Observer

log = logging.getLogger(__name__)

_DURING_DRAIN = frozenset({"/healthz", "/readyz", "/metrics"})


class Entrance:
    """The handler that the server calls for every request."""

    def __init__(self, gate: Gate, observer: Observer, active: ActiveCalls, origins: frozenset[str]) -> None:
        self._gate = gate
        self._observer = observer
        self._active = active
        self._origins = origins
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
            response = await self._served(call)
        except GatewayError as error:
            response = _error_response(call, error)
        except asyncio.CancelledError:
            if call.cut is None:
                raise  # the client has gone: there is nobody to answer
            if (task := asyncio.current_task()) is not None:
                task.uncancel()
            response = _error_response(call, call.cut)
        except ConnectionError:
            raise  # the client has gone while we were writing
        except Exception:
            log.exception("a bug", extra={"request_id": call.id})
            response = _error_response(call, InternalError(call.id))
        if self._origins and not response.prepared:
            response.headers.update(cors.answer_headers(call.request.headers.get("Origin"), self._origins))
        return response

    async def _served(self, call: Call) -> web.StreamResponse:
        if self._origins:
            preflight = cors.preflight_headers(call.method, call.request.headers, self._origins)
            if preflight is not None:
                return web.Response(status=204, headers={**call.headers(), **preflight})
        route = self._gate.admit(call)
        if self.draining and route.pattern not in _DURING_DRAIN:
            raise Draining
        return await route.handler(call)


def _error_response(call: Call, error: GatewayError) -> web.Response:
    body = error.body()
    call.bytes_sent += len(body)
    headers = {**call.headers(), **error.headers, "Content-Type": "application/json"}
    response = web.Response(body=body, status=error.status, headers=headers)
    if error.headers.get("Connection") == "close":
        response.force_close()
    return response
