"""Endpoints for whoever runs the gateway: is it alive, is it ready, and its metrics."""

from collections.abc import Callable
from typing import NamedTuple

from gateway import __version__
from gateway.auth.authenticator import Authenticator
from gateway.http.context import RequestContext
from gateway.http.response import Response, json_response
from gateway.observability.metrics import Metrics
from gateway.tokens.cache import TokenCache
from gateway.tokens.store import StoreState


class Health(NamedTuple):
    """What everybody may know: no secrets, no names. ``problem`` is None while requests should be sent here."""

    mode: str
    backend: str
    problem: str | None


class HealthCheck(NamedTuple):
    """The parts whose state is the health of a worker."""

    authenticator: Authenticator
    token_cache: TokenCache
    is_draining: Callable[[], bool]
    store_problem: Callable[[], str | None]
    backend: str

    def check(self) -> Health:
        """Returns the present state."""
        state = self.token_cache.state
        problem = "draining" if self.is_draining() else self.store_problem()
        if state is not StoreState.CURRENT:
            problem = "the token file is gone" if state is StoreState.GONE else "the token file is damaged"
        return Health(self.authenticator.mode.value, self.backend, problem)


class HealthEndpoints:
    """``metrics_page`` renders the metrics of all workers."""

    def __init__(self, health: HealthCheck, metrics_page: Callable[[], bytes]) -> None:
        self._health = health
        self._metrics_page = metrics_page

    async def healthz(self, ctx: RequestContext) -> Response:
        """Says that the process is alive."""
        health = self._health.check()
        content = {"status": "ok", "mode": health.mode, "backend": health.backend, "version": __version__}
        return json_response(200, content)

    async def readyz(self, ctx: RequestContext) -> Response:
        """Says whether a load balancer should send requests here."""
        problem = self._health.check().problem
        if problem is None:
            return json_response(200, {"status": "ready"})
        return json_response(503, {"status": "not ready", "problem": problem})

    async def metrics(self, ctx: RequestContext) -> Response:
        """Returns the metrics as Prometheus reads them."""
        return Response(200, {"Content-Type": Metrics.content_type}, self._metrics_page())
