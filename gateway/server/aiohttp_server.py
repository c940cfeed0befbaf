"""Where aiohttp's server meets us: its limits, and errors of its parser in the shape of all others."""

import logging
from typing import Any

import aiohttp.http
import aiohttp.http_parser
from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from gateway.core.errors import BadRequest, GatewayError, InternalError
from gateway.http.buffered_response import WholeResponse
from gateway.http.context import new_request_id
from gateway.http.pipeline import Pipeline

log = logging.getLogger(__name__)

KEEP_ALIVE_SECONDS = 75.0
LINGERING_SECONDS = 2.0
"""How long an unread body is read on after its answer, so that the client gets to see the answer."""


class ParserMissing(RuntimeError):
    """aiohttp runs on its parser in Python, which most of its request-smuggling holes were in."""


def require_c_parser() -> None:
    """Raises ParserMissing."""
    if aiohttp.http_parser.HttpRequestParser is aiohttp.http_parser.HttpRequestParserPy:
        raise ParserMissing(
            "aiohttp's C parser is not there (or AIOHTTP_NO_EXTENSIONS is set); install aiohttp from a wheel for this platform"
        )


class _Protocol(RequestHandler):
    """A connection. What does not parse is answered as JSON, too."""

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if self.transport is None or self.transport.is_closing():
            raise ConnectionResetError("the client has gone")
        request_id = new_request_id()
        error: GatewayError = BadRequest("The request is not valid HTTP.", code="invalid_http")
        if status != 400:
            log.error("a bug", exc_info=exc, extra={"request_id": request_id})
            error = InternalError(request_id)
        log.info("a request that is none", extra={"request_id": request_id, "status": error.status})
        headers = {"server": "gateway", "x-request-id": request_id, "Content-Type": "application/json"}
        response = WholeResponse(error.status, headers, error.body())
        response.force_close()
        return response


class AiohttpServer(web.Server):
    """The factory of connections."""

    def __init__(self, pipeline: Pipeline) -> None:
        super().__init__(
            pipeline.handle,
            handler_cancellation=True,  # a client that leaves cancels its request, and with it the upstream's work
            access_log=None,
            keepalive_timeout=KEEP_ALIVE_SECONDS,
            lingering_time=LINGERING_SECONDS,
            auto_decompress=False,  # compressed bodies are refused, so nothing may unpack them first
        )

    def __call__(self) -> RequestHandler:
        kwargs: dict[str, Any] = self._kwargs
        return _Protocol(self, loop=self._loop, **kwargs)
