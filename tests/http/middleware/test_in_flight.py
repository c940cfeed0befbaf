"""The requests that run: counted, waited for, aborted, and closed when their client has disconnected."""

import asyncio
import socket

import pytest

from gateway.core.errors import Draining
from gateway.http.context import RequestContext
from gateway.http.middleware.in_flight import InFlightRequests
from tests.support.connection import MemoryConnection, context


async def run(in_flight: InFlightRequests, ctx: RequestContext, until: asyncio.Event) -> None:
    in_flight.before(ctx)
    try:
        await until.wait()
    finally:
        in_flight.after(ctx, 200)


async def test_they_are_counted() -> None:
    in_flight, until = InFlightRequests(), asyncio.Event()
    tasks = [asyncio.create_task(run(in_flight, context(), until)) for _ in range(2)]
    await asyncio.sleep(0)
    assert len(in_flight) == 2
    until.set()
    await asyncio.gather(*tasks)
    assert len(in_flight) == 0


async def test_nothing_runs_is_known_at_once() -> None:
    assert await InFlightRequests().wait_idle(0)


async def test_waiting_for_the_last_one() -> None:
    in_flight, until = InFlightRequests(), asyncio.Event()
    task = asyncio.create_task(run(in_flight, context(), until))
    await asyncio.sleep(0)
    assert not await in_flight.wait_idle(0.001)
    waiting = asyncio.create_task(in_flight.wait_idle(10))
    await asyncio.sleep(0)
    until.set()
    assert await waiting
    await task


async def test_only_those_concerned_are_aborted_and_each_once() -> None:
    in_flight, until = InFlightRequests(), asyncio.Event()
    concerned, other = context(raw_path="/a"), context(raw_path="/b")
    tasks = [asyncio.create_task(run(in_flight, ctx, until)) for ctx in (concerned, other)]
    await asyncio.sleep(0)
    error = Draining()
    assert in_flight.abort_where(lambda: error, lambda ctx: ctx.path == "/a") == 1
    assert in_flight.abort_where(Draining, lambda ctx: ctx.path == "/a") == 0
    assert concerned.abort_error is error
    with pytest.raises(asyncio.CancelledError):
        await tasks[0]
    assert (other.abort_error, tasks[1].done()) == (None, False)
    until.set()
    await tasks[1]


@pytest.mark.parametrize("is_gone", [True, False])
async def test_connections_of_clients_that_have_disconnected_are_closed(is_gone: bool) -> None:
    in_flight, until = InFlightRequests(), asyncio.Event()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        connection = MemoryConnection()
        connection.file_descriptor = ours.fileno()
        tasks = [
            asyncio.create_task(run(in_flight, context(connection=one), until))
            for one in (connection, MemoryConnection())
        ]
        await asyncio.sleep(0)
        theirs.sendall(b"more of the request")
        if is_gone:
            theirs.close()
        in_flight.close_disconnected()
        assert (connection.end == "aborted") is is_gone
        until.set()
        await asyncio.gather(*tasks)
