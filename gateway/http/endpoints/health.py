"""For whoever runs the gateway: alive, ready, counted."""

from collections.abc import Callable
from typing import NamedTuple

from aiohttp import web

from gateway import __version__
from gateway.http import response
from gateway.http.context import RequestContext
from gateway.observability.metrics import Metrics


class Health(NamedTuple):
    """What is told to anybody who asks: no secrets, no names. ``problem`` is None while requests should come here."""

    mode: str
    backend: str
    problem: str | None


class HealthEndpoints:
    def __init__(self, health: Callable[[], Health], metrics_page: Callable[[], bytes]) -> None:
        self._health = health
        self._metrics_page = metrics_page

    async def healthz(self, ctx: RequestContext) -> web.StreamResponse:
        """Alive: it answers."""
        health = self._health()
        return response.json(
            ctx,
            200,
            {"status": "ok", "mode": health.mode, "backend": health.backend, "version": __version__},
        )

    async def readyz(self, ctx: RequestContext) -> web.StreamResponse:
        """Ready: a load balancer should send requests here."""
        problem = self._health().problem
        if problem is None:
            return response.json(ctx, 200, {"status": "ready"})
        return response.json(ctx, 503, {"status": "not ready", "problem": problem})

    async def metrics(self, ctx: RequestContext) -> web.StreamResponse:
        return response.whole(ctx, 200, self._metrics_page(), {"Content-Type": Metrics.content_type})
