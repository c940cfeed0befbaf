"""Our parser and aiohttp's read the same bytes: they agree, or the difference is one of those that are explained here.

Full length: GATEWAY_TEST_CAMPAIGN=full.
"""

import asyncio
import random
import re
from typing import NamedTuple

import pytest
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpProcessingError
from aiohttp.http_parser import HttpResponseParser

from gateway.providers.transport import http1_limits as limits
from gateway.providers.transport.http1_parser import Body, InvalidResponse, ResponseParser
from tests.campaigns.fuzzing import Campaign, mutate
from tests.campaigns.hostile_upstream import MUTATORS, frame, json_answer, pieces, stream_answer
from tests.campaigns.strict_http import read_responses

pytestmark = [pytest.mark.campaign, pytest.mark.timeout(3600)]

STRANGE = (
    b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b";", b",", b"0", b"-", b"+", b"\xff", b"HTTP/1.1 200 OK\r\n\r\n",
    b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n", b"0\r\n\r\n", b"Connection: close\r\n", b"\x0b", b"\x7f", b"1",
)  # fmt: skip


class Read(NamedTuple):
    """What a parser has made of a connection's bytes. ``status`` is 0 where it has found no response."""

    status: int
    body: bytes = b""
    is_complete: bool = False


NOTHING = Read(0)


def by_ours(data: list[bytes], is_head: bool) -> Read:
    parser = ResponseParser()
    parser.is_head = is_head
    try:
        for piece in data:
            parser.feed(piece)
    except InvalidResponse:
        return Read(parser.status, b"".join(parser.parts), False) if parser.status else NOTHING
    is_complete = parser.is_complete or (bool(parser.status) and parser.body is Body.UNTIL_CLOSE)
    return Read(parser.status, b"".join(parser.parts), is_complete)


def by_aiohttp(data: list[bytes], is_head: bool, loop: asyncio.AbstractEventLoop) -> Read:
    parser = HttpResponseParser(
        BaseProtocol(loop), loop, 2**30, max_line_size=limits.MAX_HEADER_BYTES, max_field_size=limits.MAX_HEADER_BYTES,
        max_headers=limits.MAX_HEADERS, read_until_eof=True, auto_decompress=False, response_with_body=not is_head,
    )  # fmt: skip
    found, is_valid = [], True
    try:
        for piece in data:
            messages, _, _ = parser.feed_data(piece)
            found += messages
        parser.feed_eof()
    except (HttpProcessingError, ValueError):
        is_valid = False
    final = [(head, body) for head, body in found if head.code >= 200 or head.code == 101]
    if not final:
        return NOTHING
    head, body = final[0]
    has_failed = body.exception() is not None
    # Its parser has no error for a fault behind the end of the first response, and one for a fault within.
    is_complete = not has_failed and (body.is_eof() or (is_valid and len(final) > 1))
    return Read(head.code, b"" if has_failed else body.read_nowait(-1), is_complete)


def split_heads(data: bytes) -> list[bytes]:
    """Cuts behind each head: of a read that has a fault, aiohttp's parser gives nothing, not even what came before."""
    parts = data.split(b"\r\n\r\n")
    return [part + b"\r\n\r\n" for part in parts[:-1]] + [part for part in parts[-1:] if part]


def explain(data: bytes, is_head: bool, ours: Read, theirs: Read) -> str | None:
    """Returns why the two may differ, None where they may not."""
    strict = read_responses(data, [b"HEAD"] if is_head else []).messages[:1]
    if not ours.is_complete and not strict:
        return "ours and a strict reader of RFC 9112 refuse it, or find no end; aiohttp's client is lenient"
    if strict and ours == Read(strict[0].status, strict[0].body, True):
        return "ours and a strict reader of RFC 9112 find the same response; aiohttp another, or none"
    if ours == NOTHING and data.count(b"\r\n\r\n") > limits.MAX_INTERIM_RESPONSES:
        return "ours refuses many interim responses; aiohttp's parser counts none"
    if ours == NOTHING and re.search(rb"\ntransfer-encoding:[^\r]*\t\r", data.lower()):
        return "ours refuses a coding with a tab behind it, which llhttp does not take for chunked"
    if ours == NOTHING and is_head:
        return "ours refuses lengths and codings that are invalid also where no body comes"
    if ours == NOTHING and len(data) > limits.MAX_HEADER_BYTES:
        return "ours refuses heads that are too long"
    return None


def create_case(rng: random.Random) -> bytes:
    answer = rng.choice((lambda: json_answer(b"[x]"), lambda: stream_answer(rng, b"[x]")))()
    answer = mutate(rng, answer, MUTATORS, 3)
    data = frame(rng, answer)
    data = data[: int(len(data) * answer.cut)] + answer.behind
    for _ in range(rng.choice((0, 0, 1, 1, 2))):
        at = rng.randrange(len(data[:600]) + 1)
        data = data[:at] + rng.choice(STRANGE) + data[at + rng.choice((0, 0, 1, 2, 9)) :]
    return data


async def test_responses_are_read_as_aiohttp_reads_them() -> None:
    campaign = Campaign("fuzzing of responses, by two parsers", 4000, 1_000_000)
    loop = asyncio.get_running_loop()
    for number, rng in campaign.each():
        data = create_case(rng)
        is_head = rng.random() < 0.1
        ours = by_ours([data], is_head)
        cut = by_ours(pieces(rng, data), is_head)
        if (cut.status, cut.is_complete) != (ours.status, ours.is_complete) or (
            ours.is_complete and cut.body != ours.body
        ):
            campaign.fail(number, "a cut changes what is read", data, ours, cut)
        theirs = by_aiohttp(split_heads(data), is_head, loop)
        if ours == theirs:
            campaign.counts["complete" if ours.is_complete else "broken off" if ours.status else "refused"] += 1
        elif reason := explain(data, is_head, ours, theirs):
            campaign.counts[reason] += 1
        else:
            campaign.fail(number, "a difference that nobody has explained", data, ours, theirs)
    campaign.report()
    assert campaign.counts["complete"] > campaign.cases / 4
    assert campaign.counts["refused"] > campaign.cases / 20
