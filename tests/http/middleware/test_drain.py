"""A shutdown refuses new requests, waits for the running ones, and then ends them."""

import asyncio

import pytest

from gateway.auth.roles import Access
from gateway.core.errors import Draining
from gateway.http.context import RequestContext, Route
from gateway.http.middleware.drain import Drain
from gateway.http.middleware.in_flight import InFlightRequests
from gateway.http.response import Response
from tests.support.connection import context as make_context


async def endpoint(_ctx: RequestContext) -> Response:
    return Response(200, {})


def context(pattern: str | None) -> RequestContext:
    ctx = make_context()
    ctx.route = None if pattern is None else Route(("GET",), pattern, Access.PUBLIC, endpoint)
    return ctx


async def test_everything_passes_until_then() -> None:
    Drain(InFlightRequests()).before(context("/v1/models"))


@pytest.mark.parametrize("pattern", ["/healthz", "/readyz", "/metrics"])
async def test_operators_can_look_on(pattern: str) -> None:
    drain = Drain(InFlightRequests())
    await drain.drain(0)
    drain.before(context(pattern))


@pytest.mark.parametrize("pattern", ["/v1/models", "/api/tokens", None])
async def test_new_requests_are_refused(pattern: str | None) -> None:
    drain = Drain(InFlightRequests())
    await drain.drain(0)
    with pytest.raises(Draining):
        drain.before(context(pattern))


async def test_what_runs_is_aborted_when_the_time_is_over() -> None:
    in_flight = InFlightRequests()
    ctx = make_context()

    async def run() -> None:
        in_flight.before(ctx)
        try:
            await asyncio.Event().wait()
        finally:
            in_flight.after(ctx, 503)

    task = asyncio.create_task(run())
    await asyncio.sleep(0)
    await Drain(in_flight).drain(0)
    await asyncio.wait([task])
    assert isinstance(ctx.abort_error, Draining)
    assert len(in_flight) == 0


async def test_an_announced_drain_still_serves() -> None:
    drain = Drain(InFlightRequests())
    assert not drain.is_draining
    drain.announce()
    assert drain.is_draining
    drain.before(context("/v1/models"))
