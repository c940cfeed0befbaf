"""For whoever runs the gateway: alive, ready, counted."""

from collections.abc import Callable
from typing import NamedTuple

from aiohttp import web

from gateway import __version__
from gateway.http import response
from gateway.http.context import Call
from gateway.observability.metrics import Metrics


class Health(NamedTuple):
    """What is told to anybody who asks: no secrets, no names. ``problem`` is None while requests should come here."""

    mode: str
    backend: str
    problem: str | None


class OpsRoutes:
    def __init__(self, health: Callable[[], Health], metrics_page: Callable[[], bytes]) -> None:
        self._health = health
        self._metrics_page = metrics_page

    async def healthz(self, call: Call) -> web.StreamResponse:
        """Alive: it answers."""
        health = self._health()
        return response.json(
            call,
            200,
            {"status": "ok", "mode": health.mode, "backend": health.backend, "version": __version__},
        )

    async def readyz(self, call: Call) -> web.StreamResponse:
        """Ready: a load balancer should send requests here."""
        problem = self._health().problem
        if problem is None:
            return response.json(call, 200, {"status": "ready"})
        return response.json(call, 503, {"status": "not ready", "problem": problem})

    async def metrics(self, call: Call) -> web.StreamResponse:
        return response.whole(call, 200, self._metrics_page(), {"Content-Type": Metrics.content_type})
