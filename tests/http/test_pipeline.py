"""Middleware in order, the endpoint, and every way in which a request ends."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from gateway.auth.roles import Access
from gateway.core.errors import Conflict, Draining, Forbidden, GatewayError, RequestTooLarge
from gateway.http.context import Endpoint, RequestContext, Route
from gateway.http.middleware.base import Middleware
from gateway.http.pipeline import Pipeline
from gateway.http.response import EVENT_STREAM, Response
from tests.support.connection import MemoryConnection, request
from tests.support.reply import Reply, check_error

EVENTS = {"Content-Type": EVENT_STREAM}


class Recorder(Middleware):
    """Notes when it is called; may answer, raise, or set the route."""

    def __init__(self, name: str, calls: list[str], ends: Response | GatewayError | None = None) -> None:
        self.name = name
        self.calls = calls
        self.ends = ends

    async def before(self, ctx: RequestContext) -> Response | None:
        self.calls.append(f"{self.name} before")
        if isinstance(self.ends, GatewayError):
            raise self.ends
        return self.ends

    def after(self, ctx: RequestContext, status: int) -> None:
        self.calls.append(f"{self.name} after {status}")


class To(Middleware):
    """Every request takes the route to this endpoint."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.route = Route(("GET",), "/", Access.PUBLIC, endpoint)
        self.ctx: RequestContext | None = None

    async def before(self, ctx: RequestContext) -> None:
        self.ctx, ctx.route = ctx, self.route


async def ok(ctx: RequestContext) -> Response:
    return Response(200, {"Content-Type": "text/plain"}, b"hello")


async def handle(*middleware: Middleware) -> MemoryConnection:
    connection = MemoryConnection()
    await Pipeline(middleware).handle(request(connection=connection))
    return connection


def reply_of(connection: MemoryConnection) -> Reply:
    assert connection.status is not None
    return Reply(connection.status, list(connection.headers.items()), connection.body, connection.end == "sent")


async def test_middleware_is_called_in_order_and_at_the_end_in_reverse() -> None:
    calls: list[str] = []
    connection = await handle(Recorder("a", calls), Recorder("b", calls), To(ok))
    assert (connection.status, connection.body) == (200, b"hello")
    assert calls == ["a before", "b before", "b after 200", "a after 200"]


@pytest.mark.parametrize(("ends", "status"), [(Response(204, {}), 204), (Forbidden("no"), 403)])
async def test_a_middleware_may_end_it_and_all_are_called_at_the_end(
    ends: Response | GatewayError, status: int
) -> None:
    calls: list[str] = []
    connection = await handle(Recorder("a", calls, ends), Recorder("b", calls), To(ok))
    assert connection.status == status
    assert calls == ["a before", f"b after {status}", f"a after {status}"]


async def test_a_middleware_that_fails_at_the_end_keeps_no_other_from_its_end(caplog: pytest.LogCaptureFixture) -> None:
    """The response is sent by then, so there is nothing else to tell the client."""

    class Failing(Middleware):
        def after(self, ctx: RequestContext, status: int) -> None:
            raise ZeroDivisionError

    calls: list[str] = []
    connection = await handle(Recorder("a", calls), Failing(), To(ok))
    assert (connection.status, connection.body) == (200, b"hello")
    assert calls == ["a before", "a after 200"]
    assert [record.message for record in caplog.records] == ["a middleware failed after the response"]


async def test_errors_of_an_endpoint_have_one_shape() -> None:
    async def endpoint(ctx: RequestContext) -> Response:
        raise Conflict("not now", code="busy", param="id")

    error = check_error(reply_of(await handle(To(endpoint))), 409, "invalid_request_error", "busy")
    assert (error["message"], error["param"]) == ("not now", "id")


async def test_an_error_that_leaves_the_body_unread_closes_the_connection() -> None:
    async def endpoint(ctx: RequestContext) -> Response:
        raise RequestTooLarge(1)

    connection = await handle(To(endpoint))
    assert (connection.status, connection.closes, "Connection" in connection.headers) == (413, True, False)


async def test_unhandled_exceptions_are_logged_and_not_told(caplog: pytest.LogCaptureFixture) -> None:
    async def endpoint(ctx: RequestContext) -> Response:
        raise RuntimeError("secret inside")

    reply = reply_of(await handle(To(endpoint)))
    check_error(reply, 500, "server_error", "internal_error")
    assert b"secret inside" not in reply.body
    [record] = caplog.records
    assert record.message == "unhandled exception"
    assert record.exc_info is not None


async def test_without_a_route_it_is_a_fault_of_ours() -> None:
    check_error(reply_of(await handle(Recorder("a", []))), 500, "server_error", "internal_error")


async def test_an_error_behind_the_first_event_becomes_an_event_and_a_broken_stream() -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"data: 1\n\n"
        raise Conflict("too late")

    async def endpoint(ctx: RequestContext) -> Response:
        return Response(200, EVENTS, chunks())

    connection = await handle(To(endpoint))
    assert (connection.status, connection.end, connection.sent[0]) == (200, "broken off", b"data: 1\n\n")
    assert b'"message":"too late"' in connection.sent[1]


async def test_an_error_before_the_first_event_has_a_status() -> None:
    async def chunks() -> AsyncIterator[bytes]:
        raise Conflict("at once")
        yield b""

    async def endpoint(ctx: RequestContext) -> Response:
        return Response(200, EVENTS, chunks())

    check_error(reply_of(await handle(To(endpoint))), 409, "invalid_request_error", None)


async def test_a_request_that_the_gateway_aborts_is_answered_and_its_task_goes_on() -> None:
    async def endpoint(ctx: RequestContext) -> Response:
        ctx.abort_error = Draining()
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)
        raise AssertionError("it was cancelled")

    reply = reply_of(await handle(To(endpoint)))
    check_error(reply, 503, "server_error", "draining")
    await asyncio.sleep(0)  # the cancellation has been taken back


async def test_a_client_that_leaves_is_counted_and_not_answered() -> None:
    calls: list[str] = []
    started = asyncio.Event()

    async def endpoint(ctx: RequestContext) -> Response:
        started.set()
        await asyncio.Event().wait()
        raise AssertionError("nothing sets it")

    connection = MemoryConnection()
    pipeline = Pipeline([Recorder("a", calls), To(endpoint)])
    task = asyncio.create_task(pipeline.handle(request(connection=connection)))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (connection.status, calls) == (None, ["a before", "a after 499"])


async def test_a_connection_error_of_a_client_that_has_gone_is_passed_on() -> None:
    async def endpoint(ctx: RequestContext) -> Response:
        connection.is_closing = True
        raise ConnectionResetError("gone")

    connection = MemoryConnection()
    with pytest.raises(ConnectionResetError):
        await Pipeline([To(endpoint)]).handle(request(connection=connection))
    assert connection.status is None


async def test_secrets_in_errors_are_redacted() -> None:
    async def endpoint(ctx: RequestContext) -> Response:
        raise Conflict("sk-secret is taken", param="sk-secret")

    connection = MemoryConnection()
    pipeline = Pipeline([To(endpoint)], lambda text: text.replace("sk-secret", "sk-…"))
    await pipeline.handle(request(connection=connection))
    error = check_error(reply_of(connection), 409, "invalid_request_error", None)
    assert (error["message"], error["param"]) == ("sk-… is taken", "sk-…")
