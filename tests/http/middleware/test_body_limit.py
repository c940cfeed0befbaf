"""The memory of bodies over HTTP: refused before it is read, and free again when the request has ended."""

from pathlib import Path

from tests.support.gateway import BEARER, CHAT, JSON
from tests.support.reply import check_error
from tests.support.upstream import always, answer
from tests.support.wire import connected, gateway_before, post, request, talk

GOOD = answer(b'{"choices":[]}')
SMALL = {"GATEWAY_MAX_BODIES_MB": "2", "GATEWAY_QUEUE_SECONDS": "0"}
HALF = 512 * 1024


async def test_a_body_that_there_is_no_memory_for_is_refused_before_it_is_read(tmp_path: Path) -> None:
    async with gateway_before(always(GOOD), tmp_path, **SMALL) as (upstream, gateway), connected(gateway.port) as first:
        head = request(
            "POST", "/v1/chat/completions", [BEARER, JSON, ("Content-Length", str(HALF)), ("Expect", "100-continue")]
        )
        await first.send(head)
        assert (await first.head()).status == 100
        reply = await talk(gateway.port, head)
        check_error(reply, 429, "requests", "rate_limit_exceeded")
        assert reply.header("Retry-After") == "2"
        body = CHAT[:-1] + b',"x":"' + b"y" * (HALF - len(CHAT) - 7) + b'"}'
        await first.send(body)
        assert (await first.reply()).status == 200
        assert (await talk(gateway.port, post(body=body))).status == 200
        assert len(upstream.requests) == 2


async def test_a_body_without_a_length_is_refused_while_it_is_read(tmp_path: Path) -> None:
    chunked = request("POST", "/v1/chat/completions", [BEARER, JSON, ("Transfer-Encoding", "chunked")])
    async with gateway_before(always(GOOD), tmp_path, **SMALL) as (upstream, gateway):
        sent = chunked + b"90000\r\n" + b" " * 0x90000 + b"\r\n0\r\n\r\n"
        check_error(await talk(gateway.port, sent), 429, "requests", "rate_limit_exceeded")
        assert not upstream.requests


async def test_what_is_passed_on_in_chunks_needs_no_memory(tmp_path: Path) -> None:
    upload = request("POST", "/v1/files", [BEARER, ("Content-Type", "text/plain")], b"z" * 2 * HALF)
    async with gateway_before(always(GOOD), tmp_path, **SMALL) as (_, gateway):
        assert (await talk(gateway.port, upload)).status == 200
