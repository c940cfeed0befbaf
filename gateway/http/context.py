"""One request on its way: what each step has learned of it, the route it takes, and the sending of its response."""

import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from random import getrandbits
from typing import NamedTuple, TypeAlias

from multidict import istr

from gateway.auth.client_address import client_address
from gateway.auth.local_client import Arrival
from gateway.auth.principal import Principal
from gateway.auth.roles import Access
from gateway.config.parsers import Network
from gateway.core.errors import GatewayError
from gateway.core.upstream_errors import UpstreamReported
from gateway.http.error_formats import FOLLOWS_REPORTS, ErrorFormat, EventFormat, openai_error, openai_event
from gateway.http.path_validation import origin_form
from gateway.http.request import Request
from gateway.http.response import Response
from gateway.inference.models import InferenceRequest

OPENAI_VERSION = "2020-10-01"
_FORWARDED_FOR = istr("X-Forwarded-For")
_UPGRADE = istr("Upgrade")
_STREAM_HEADERS: Mapping[str, str] = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
_NO_HEADERS: Mapping[str, str] = {}


def new_request_id() -> str:
    """Returns ``req_`` and 32 hexadecimal digits, of milliseconds since the epoch and 80 random bits. It is no secret.

    Ids in the order of time go to one place of an index. Random ones touch a page each, and the ledger gets slower as it grows.
    """
    return f"req_{time.time_ns() // 1_000_000:012x}{getrandbits(80):020x}"


Endpoint: TypeAlias = "Callable[[RequestContext], Awaitable[Response]]"
"""Answers a request. Raises GatewayError for anything that is not an answer."""


class Route(NamedTuple):
    """A row of the route table.

    ``{name}`` in a pattern is one segment, ``{name...}`` one or more; both arrive percent-decoded. ``access`` has no default:
    it cannot be forgotten.
    """

    methods: tuple[str, ...]
    pattern: str
    access: Access
    endpoint: Endpoint
    error_format: ErrorFormat = openai_error
    error_event: EventFormat = openai_event
    """How an error ends an event stream that has begun."""


class RequestContext:
    """A request, its id, and who and what it turned out to be."""

    __slots__ = (
        "_target",
        "_trusted_proxies",
        "abort_error",
        "access",
        "began",
        "bytes_sent",
        "error",
        "error_format",
        "extra_headers",
        "first_bytes",
        "id",
        "inference",
        "last_bytes",
        "method",
        "params",
        "path",
        "principal",
        "query",
        "request",
        "route",
        "routing_error",
        "started_response",
    )  # fmt: skip

    def __init__(self, request: Request, trusted_proxies: Sequence[Network] = ()) -> None:
        """``trusted_proxies`` are those whose ``X-Forwarded-For`` is believed."""
        self.request = request
        self._trusted_proxies = trusted_proxies
        self.began = time.perf_counter()
        """In seconds of the performance counter."""
        self.id = new_request_id()
        self.method = request.method
        target = request.raw_path
        if not target.startswith("/"):
            target = origin_form(target, request.headers.get("Host", ""))
        self._target = target
        self.path, _, self.query = target.partition("?")
        """``query`` has no credential in it any more once the request is authenticated."""
        self.route: Route | None = None
        self.access = Access.ANY
        """What the path requires of the caller. A path without a route requires some valid credential."""
        self.error_format: ErrorFormat = openai_error
        """How errors are written on this path, also for a method that it does not have."""
        self.routing_error: GatewayError | None = None
        """Why there is no route. It is only told to callers who have authenticated."""
        self.params: Mapping[str, str] = _NO_HEADERS
        """The parameters of the route's pattern."""
        self.principal: Principal | None = None
        self.inference: InferenceRequest | None = None
        """Model, deployment and usage, once it is known to be a request for inference."""
        self.bytes_sent = 0
        self.first_bytes = b""
        """The beginning of a response that is sent in chunks."""
        self.last_bytes = b""
        """The last chunk of such a response behind the first one."""
        self.extra_headers: Mapping[str, str] = _NO_HEADERS
        """Headers that a middleware adds to the response, whatever it will be."""
        self.started_response: Response | None = None
        """The response whose head has been sent. An error after that can only abort it."""
        self.error: GatewayError | None = None
        """What the request was answered with, if that was an error of the gateway."""
        self.abort_error: GatewayError | None = None
        """Why the gateway itself ends this request early. It is set just before the request's task is cancelled."""

    @property
    def caller(self) -> Principal:
        """The principal of a request that had to authenticate. Raises RuntimeError on a public route."""
        if self.principal is None:
            raise RuntimeError("this route is public: it has no caller")
        return self.principal

    @property
    def client_address(self) -> str | None:
        """The client's address, seen through trusted proxies only; None where it cannot be told."""
        peer = self.request.connection.peer_address
        forwarded_for = self.request.headers.getall(_FORWARDED_FOR, ()) if self._trusted_proxies else ()
        return client_address(peer, forwarded_for, self._trusted_proxies)

    @property
    def arrival(self) -> Arrival:
        """What tells whether the client is a program on this machine."""
        request = self.request
        ends = request.connection.peer_address, request.connection.own_address
        return Arrival(*ends, request.version, self._target, request.headers)

    @property
    def asks_for_websocket(self) -> bool:
        """Whether the client wants to open a WebSocket. The header may hold a list of protocols."""
        protocols = self.request.headers.get(_UPGRADE, "") if self.method == "GET" else ""
        return bool(protocols) and any(each.strip() == "websocket" for each in protocols.lower().split(","))

    @property
    def client_is_gone(self) -> bool:
        return self.request.connection.is_closing

    def common_headers(self) -> dict[str, str]:
        """Returns the headers that every response has."""
        inference = self.inference
        elapsed = int((time.perf_counter() - self.began) * 1_000_000)
        upstream = int(inference.upstream_seconds * 1_000_000) if inference is not None else 0
        return {
            "server": "gateway",
            "x-request-id": self.id,
            "openai-processing-ms": str(elapsed // 1000),
            "openai-version": OPENAI_VERSION,
            "x-content-type-options": "nosniff",
            "server-timing": f"gateway;dur={_milliseconds(elapsed - upstream)}, upstream;dur={_milliseconds(upstream)}",
            **(inference.usage.headers() if inference is not None and inference.usage is not None else _NO_HEADERS),
            **self.extra_headers,
        }

    async def send(self, response: Response) -> Response:
        """Sends the response, with the headers that every response has, and returns it.

        Raises ConnectionError if the client has gone, and whatever the iterator of a streamed body raises. If
        ``started_response`` is set by then, the caller has to ``abort``.
        """
        body = response.body
        if not isinstance(body, bytes):
            try:
                await self._stream(response, body)
            finally:
                if isinstance(body, AsyncGenerator):
                    await body.aclose()
            return response
        self.bytes_sent = len(body)
        headers = {**response.headers, **self.common_headers()}
        self.started_response = response
        await self.request.connection.send(response.status, headers, body, closes=response.closes_connection)
        return response

    async def _stream(self, response: Response, chunks: AsyncIterator[bytes]) -> None:
        waited = time.perf_counter()
        first = await anext(chunks, b"")  # an error up to here still has a status of its own
        if self.inference is not None:
            self.inference.upstream_seconds += time.perf_counter() - waited
        content_type = response.headers["Content-Type"]
        rest = {name: value for name, value in response.headers.items() if name != "Content-Type"}
        headers = {**rest, **self.common_headers(), "Content-Type": content_type}
        if response.is_event_stream:
            headers |= _STREAM_HEADERS
        connection = self.request.connection
        await connection.start(response.status, headers)
        self.started_response = response
        if first:
            self.bytes_sent += len(first)
            self.first_bytes = first
            await connection.write(first)
        chunk = b""
        try:
            async for chunk in chunks:
                self.bytes_sent += len(chunk)
                await connection.write(chunk)
        finally:
            self.last_bytes = chunk
        await connection.finish()

    def abort(self, error: GatewayError, body: bytes) -> None:
        """Ends a response that has begun, so that no client takes it for a whole one.

        An event stream first gets an event with ``body``, the error as the client's dialect writes it. Where the upstream has
        reported the error in the stream itself, only dialects get it whose clients would miss that.
        """
        started, connection, last = self.started_response, self.request.connection, b""
        if started is not None and started.is_event_stream:
            render = self.route.error_event if self.route is not None else openai_event
            if not isinstance(error, UpstreamReported) or render in FOLLOWS_REPORTS:
                last = render(body, self.first_bytes, self.last_bytes)
        connection.break_off(last)


def _milliseconds(microseconds: int) -> str:
    """Formats by whole-number arithmetic: formatting floats took as long as checking the credential."""
    return f"{microseconds // 1000}.{microseconds % 1000:03d}"
