"""What a request knows of itself, and the sending of its response."""

import time
from collections.abc import AsyncIterator

import pytest

from gateway.auth.roles import Access
from gateway.core.errors import Conflict
from gateway.core.upstream_errors import UpstreamReported
from gateway.http.context import RequestContext, Route, new_request_id
from gateway.http.error_formats import responses_event
from gateway.http.response import EVENT_STREAM, Response
from gateway.inference.models import InferenceRequest
from gateway.providers.base import ProviderRequest
from tests.support.connection import MemoryConnection, context

TEXT = {"Content-Type": "text/plain"}
EVENTS = {"Content-Type": f"{EVENT_STREAM}; charset=utf-8"}


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


def test_path_and_query_are_apart() -> None:
    ctx = context(raw_path="/v1/models?a=1?b")
    assert (ctx.path, ctx.query) == ("/v1/models", "a=1?b")


def test_request_ids_differ() -> None:
    ids = {new_request_id() for _ in range(100)}
    assert len(ids) == 100
    assert all(one.startswith("req_") and len(one) == 36 for one in ids)


def test_a_request_id_begins_with_its_time() -> None:
    """The ledger is sorted by ids, and adds to its end."""
    before = time.time_ns() // 1_000_000
    assert before <= int(new_request_id()[4:16], 16) <= time.time_ns() // 1_000_000


def test_a_public_route_has_no_caller() -> None:
    with pytest.raises(RuntimeError, match="public"):
        _ = context().caller


@pytest.mark.parametrize(
    ("peer", "headers", "expected"),
    [
        ("127.0.0.1", [], "127.0.0.1"),
        ("192.0.2.1", [], "192.0.2.1"),
        ("127.0.0.1", [("X-Forwarded-For", "192.0.2.9")], "127.0.0.1"),
        (None, [], None),
    ],
)
def test_the_client(peer: str | None, headers: list[tuple[str, str]], expected: str | None) -> None:
    connection = MemoryConnection()
    connection.peer_address = peer
    assert context(headers=headers, connection=connection).client_address == expected


async def test_a_whole_response_has_the_common_headers() -> None:
    connection = MemoryConnection()
    ctx = context(connection=connection)
    ctx.extra_headers = {"Vary": "Origin"}
    await ctx.send(Response(200, TEXT, b"hello"))
    assert (connection.status, connection.body, connection.end) == (200, b"hello", "sent")
    assert (ctx.bytes_sent, ctx.started_response is None) == (5, False)
    assert connection.headers["x-request-id"] == ctx.id
    assert connection.headers["Vary"] == "Origin"
    assert connection.headers["openai-processing-ms"].isdigit()


async def test_a_streamed_response() -> None:
    connection = MemoryConnection()
    ctx = context(connection=connection)
    await ctx.send(Response(200, EVENTS, chunks(b"data: 1\n\n", b"data: 2\n\n")))
    assert (connection.sent, connection.end) == ([b"data: 1\n\n", b"data: 2\n\n"], "finished")
    assert ctx.bytes_sent == 18
    assert connection.headers["X-Accel-Buffering"] == "no"


async def test_only_event_streams_are_kept_from_proxies_buffers() -> None:
    connection = MemoryConnection()
    await context(connection=connection).send(Response(200, {"Content-Type": "audio/mpeg"}, chunks(b"a")))
    assert "X-Accel-Buffering" not in connection.headers


async def test_an_empty_stream_is_started_and_finished() -> None:
    connection = MemoryConnection()
    await context(connection=connection).send(Response(200, EVENTS, chunks()))
    assert (connection.status, connection.sent, connection.end) == (200, [], "finished")


async def test_a_streamed_body_is_closed_when_the_client_has_gone() -> None:
    closed: list[bool] = []

    async def body() -> AsyncIterator[bytes]:
        try:
            yield b"a"
            yield b"b"
        finally:
            closed.append(True)

    connection = MemoryConnection()
    connection.is_closing = True
    with pytest.raises(ConnectionResetError):
        await context(connection=connection).send(Response(200, EVENTS, body()))
    assert closed == [True]


async def started(connection: MemoryConnection, headers: dict[str, str]) -> RequestContext:
    ctx = context(connection=connection)
    ctx.started_response = Response(200, headers, chunks())
    return ctx


async def test_an_aborted_event_stream_ends_with_the_error() -> None:
    connection = MemoryConnection()
    (await started(connection, EVENTS)).abort(Conflict("x"), b'{"error":{}}')
    assert (connection.sent, connection.end) == ([b'data: {"error":{}}\n\n'], "broken off")


async def test_an_error_that_the_upstream_has_told_is_not_told_again() -> None:
    connection = MemoryConnection()
    (await started(connection, EVENTS)).abort(UpstreamReported("m", None), b"{}")
    assert (connection.sent, connection.end) == ([], "broken off")


async def test_the_event_that_responses_end_with_follows_what_the_upstream_has_told() -> None:
    connection = MemoryConnection()
    ctx = await started(connection, EVENTS)
    ctx.route = Route(("POST",), "/v1/responses", Access.INFERENCE, json_endpoint, error_event=responses_event)
    ctx.last_bytes = b'data: {"sequence_number":4}\n\n'
    ctx.abort(UpstreamReported("m", None), b'{"error":{"message":"m"}}')
    assert b'"sequence_number":5' in connection.sent[0]
    assert connection.end == "broken off"


async def json_endpoint(_ctx: RequestContext) -> Response:
    return Response(200, TEXT)


async def test_what_is_no_event_stream_gets_no_event() -> None:
    connection = MemoryConnection()
    (await started(connection, TEXT)).abort(Conflict("x"), b"{}")
    assert (connection.sent, connection.end) == ([], "broken off")


def test_time_upstream_is_not_time_of_the_gateway() -> None:
    ctx = context()
    ctx.inference = InferenceRequest(ctx.id, ProviderRequest("POST", "chat/completions"))
    ctx.inference.upstream_seconds = 0.0125
    assert ctx.common_headers()["server-timing"].endswith("upstream;dur=12.500")
