"""One request on its way: what each step has learned of it."""

import time
from collections.abc import Mapping
from random import getrandbits
from typing import TYPE_CHECKING

from aiohttp import web

from gateway.admin.tokens import Requester
from gateway.audit.hash_chain import Actor
from gateway.auth.client_address import Client
from gateway.auth.principal import ANONYMOUS, Principal
from gateway.core.errors import GatewayError
from gateway.inference.usage_tracker import UsageTracker

if TYPE_CHECKING:
    from gateway.http.routes import Route

OPENAI_VERSION = "2020-10-01"
UNKNOWN_CLIENT = Client(None, False)
_NO_HEADERS: Mapping[str, str] = {}


def new_request_id() -> str:
    return f"req_{getrandbits(128):032x}"  # a name, not a secret


def _milliseconds(microseconds: int) -> str:
    """Whole-number arithmetic: formatting floats took as long as checking the credential."""
    return f"{microseconds // 1000}.{microseconds % 1000:03d}"


class RequestContext:
    """A request, its id and clock, and who and what it turned out to be. Times in seconds of a monotonic clock."""

    __slots__ = (
        "backend",
        "began",
        "bytes_sent",
        "client",
        "cors_headers",
        "cut",
        "id",
        "method",
        "model",
        "params",
        "path",
        "principal",
        "query",
        "query_tokens",
        "request",
        "route",
        "started",
        "upstream_seconds",
        "usage_tracker",
    )  # fmt: skip

    def __init__(self, request: web.BaseRequest) -> None:
        self.request = request
        self.began = time.perf_counter()
        self.id = new_request_id()
        self.method = request.method
        self.path, _, self.query = request.raw_path.partition("?")
        self.query_tokens: tuple[str, ...] = ()
        """What the query held of credentials; it holds them no longer."""
        self.client = UNKNOWN_CLIENT
        self.route: Route | None = None
        self.params: Mapping[str, str] = {}
        self.principal: Principal | None = None
        self.model: str | None = None
        self.backend: str | None = None
        self.usage_tracker: UsageTracker | None = None
        """What was reserved and used, once it is admitted."""
        self.upstream_seconds = 0.0
        self.bytes_sent = 0
        self.cors_headers: Mapping[str, str] = _NO_HEADERS
        self.started: web.StreamResponse | None = None
        """The answer, once its head has been sent: then an error has no status of its own any more."""
        self.cut: GatewayError | None = None
        """Why the gateway itself ends this call before its time: set just before its task is cancelled."""

    @property
    def caller(self) -> Principal:
        """Who is calling; the gate has let nobody through without one."""
        if self.principal is None:
            raise RuntimeError("this route is public: it has no caller")
        return self.principal

    def requester(self) -> Requester:
        """Who asks for a change, and how that is logged."""
        principal = self.caller
        kind = "token" if principal.secret_match else "open" if principal is ANONYMOUS else "environment"
        actor = Actor(kind, principal.name, principal.token_id, self.client.address, self.id)
        return Requester(principal, actor)

    def anonymous_actor(self) -> Actor:
        """Somebody who shows a secret and asks to end it, and is not otherwise known."""
        return Actor("secret", "whoever holds the secret", None, self.client.address, self.id)

    @property
    def client_is_gone(self) -> bool:
        transport = self.request.transport
        return transport is None or transport.is_closing()

    def headers(self) -> dict[str, str]:
        """The headers that every answer has."""
        elapsed = int((time.perf_counter() - self.began) * 1_000_000)
        upstream = int(self.upstream_seconds * 1_000_000)
        return {
            "server": "gateway",
            "x-request-id": self.id,
            "openai-processing-ms": str(elapsed // 1000),
            "openai-version": OPENAI_VERSION,
            "server-timing": f"gateway;dur={_milliseconds(elapsed - upstream)}, upstream;dur={_milliseconds(upstream)}",
            **(self.usage_tracker.headers() if self.usage_tracker is not None else {}),
            **self.cors_headers,
        }
