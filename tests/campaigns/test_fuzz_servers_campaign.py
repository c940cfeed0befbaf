"""The server of our own and aiohttp's are given the same bytes, and answer the same: the same requests, bodies and ends.

Full length: GATEWAY_TEST_CAMPAIGN=full.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import pytest

from gateway.core.errors import GatewayError
from gateway.http.request import InvalidBody, Request
from gateway.server.aiohttp_server import AiohttpServer
from gateway.server.http1_server import Http1Server
from tests.campaigns.bad_requests import MUTATORS, Parts, chunked, mutate_bytes
from tests.campaigns.fuzzing import Campaign, mutate
from tests.campaigns.memory_client import Exchange, exchange
from tests.campaigns.strict_http import Rest, read_requests

pytestmark = [pytest.mark.campaign, pytest.mark.timeout(3600)]

LARGE = b"x" * 70_000


async def handle(request: Request) -> None:
    """Answers with all that a handler sees of the request, in the way that its path names."""
    await WAYS[way_of(request)](request)


def way_of(request: Request) -> str:
    way = request.raw_path.lstrip("/")
    return way if way in WAYS else "whole"


async def whole(request: Request) -> None:
    try:
        body = await request.read(100_000)
    except GatewayError as error:
        await send(request, error.status, repr(error.code).encode(), closes=error.status != 415)
        return
    await send(request, 200, body)


async def send(request: Request, status: int, body: bytes, closes: bool = False) -> None:
    said = repr((request.method, request.raw_path, request.version, _headers_of(request))).encode()
    connection = request.connection
    said += repr((connection.has_body, connection.content_length, request.media_type)).encode()
    await connection.send(status, _headers(request), said + body, closes=closes)


def _headers(request: Request) -> dict[str, str]:
    """With those that aiohttp sets where there are none."""
    said = f"{request.method} 1.{request.version[1]} {way_of(request)}"
    return {"X-Request": said, "Server": "gateway", "Content-Type": "text/plain"}


def _headers_of(request: Request) -> list[tuple[str, str]]:
    """Without trailers: aiohttp's parser gives those of a body to the next request. Ours has a parser for each body."""
    return sorted(item for item in request.headers.items() if "rail" not in "".join(item))


async def unread(request: Request) -> None:
    await send(request, 401, b"")


async def late(request: Request) -> None:
    for _ in range(3):
        await asyncio.sleep(0)
    await whole(request)


async def part(request: Request) -> None:
    try:
        await request.connection.read_chunk()
    except InvalidBody:
        await send(request, 400, b"invalid", closes=True)
    else:
        await send(request, 200, b"part")


async def stream(request: Request) -> None:
    await write(request, {}, b"", b"one", b"two")
    await request.connection.finish()


async def sized(request: Request) -> None:
    await write(request, {"Content-Length": "6"}, b"one", b"two")
    await request.connection.finish()


async def write(request: Request, headers: dict[str, str], *pieces: bytes) -> None:
    await request.connection.start(200, {**_headers(request), **headers})
    if request.method != "HEAD":  # aiohttp would send a body; ours is tried in tests/server/test_http1_exchange.py
        for piece in pieces:
            await request.connection.write(piece)


async def fail(request: Request) -> None:
    raise ValueError("made up")


async def broken(request: Request) -> None:
    if request.method == "HEAD":  # there is nothing to break off
        await unread(request)
        return
    await write(request, {}, b"one")
    request.connection.break_off()


async def none(request: Request) -> None:
    await send(request, 204, b"")


async def same(request: Request) -> None:
    await send(request, 304, b"")


async def large(request: Request) -> None:
    await send(request, 200, LARGE)


WAYS = {
    "whole": whole, "unread": unread, "late": late, "part": part, "stream": stream, "sized": sized, "fail": fail,
    "broken": broken, "none": none, "same": same, "large": large,
}  # fmt: skip
PATHS = [way.encode() for way in WAYS for _ in range(1 if way in ("large", "fail", "broken") else 4)]


class Answer(NamedTuple):
    """A response without what differs from one run to the next. ``is_whole`` says whether its body has an end."""

    status: int
    headers: list[bytes]
    body: bytes
    is_whole: bool

    @property
    def way(self) -> bytes:
        """How the handler has answered, ``b""`` where it was not asked."""
        return next((item.rpartition(b" ")[2] for item in self.headers if item.startswith(b"x-request:")), b"")


_CHANGING = (b"date:", b"x-request-id:")
CLOSE = b"connection:close"
"""Ours says so to HTTP/1.0, too, where it goes without saying."""


def read_answers(data: bytes) -> list[Answer]:
    """Returns what came back, without interim responses: whether one is due depends on how much of a body has come."""
    answers, at = [], 0
    while at < len(data):
        end = data.find(b"\r\n\r\n", at)
        if end < 0:
            return [*answers, Answer(0, [], data[at:], False)]
        line, *lines = data[at:end].split(b"\r\n")
        headers = sorted(
            name.lower() + b":" + value.strip() for name, _, value in (item.partition(b":") for item in lines)
        )
        if not line.startswith((b"HTTP/1.1 ", b"HTTP/1.0 ")):
            return [*answers, Answer(0, [], data[at:], False)]
        status = int(line[9:12])
        body, at, is_whole = _read_body(data, end + 4, status, headers)
        if status == 500:
            body = b""  # it names the request
        is_1_0 = any(item.startswith(b"x-request:") and b" 1.0 " in item for item in headers)
        if status == 100:
            continue
        kept = [item for item in headers if not item.startswith(_CHANGING) and not (is_1_0 and item == CLOSE)]
        answers.append(Answer(status, kept, body, is_whole))
    return answers


def _read_body(data: bytes, at: int, status: int, headers: Sequence[bytes]) -> tuple[bytes, int, bool]:
    if any(item.startswith(b"x-request:HEAD ") for item in headers) or status < 200 or status in (204, 304):
        return b"", at, True
    if b"transfer-encoding:chunked" in headers:
        return _read_chunks(data, at)
    length = next((int(item[15:]) for item in headers if item.startswith(b"content-length:")), None)
    if length is None:
        return data[at:], len(data), True
    body = data[at : at + length]
    return body, at + len(body), len(body) == length


def _read_chunks(data: bytes, at: int) -> tuple[bytes, int, bool]:
    parts = []
    while (end := data.find(b"\r\n", at)) >= 0:
        size = int(data[at:end], 16)
        at = end + 2 + size + 2
        if size == 0:
            return b"".join(parts), at, True
        parts.append(data[end + 2 : at - 2])
    return b"".join(parts), len(data), False


def valid_request(rng: random.Random) -> Parts:
    kind, path = rng.random(), rng.choice(PATHS)
    version = b"1.0" if rng.random() < 0.1 else b"1.1"
    lines = [b"%s /%s HTTP/%s" % (rng.choice((b"GET", b"POST", b"HEAD", b"PUT")), path, version), b"Host: a"]
    if rng.random() < 0.1:
        lines.append(b"Connection: " + rng.choice((b"close", b"keep-alive", b"Upgrade\r\nUpgrade: websocket")))
    if kind < 0.35:
        return Parts(lines, b"")
    body = rng.choice((b"abc", b"GET /no HTTP/1.1\r\nHost: a\r\n\r\n", b"\r\n\r\n", rng.randbytes(rng.randrange(300))))
    if rng.random() < 0.02:
        body = rng.randbytes(1000) * rng.choice((3, 100, 200))
    if rng.random() < 0.1:
        lines.append(b"Expect: " + rng.choice((b"100-continue", b"100-Continue", b"200-ok")))
    if kind < 0.7:
        return Parts([*lines, b"Content-Length: %d" % len(body)], body)
    return Parts([*lines, b"Transfer-Encoding: chunked"], chunked(rng, body))


def case(rng: random.Random) -> list[bytes]:
    """One to four requests, some of them spoiled, in pieces."""
    data = b""
    for _ in range(rng.choice((1, 1, 2, 2, 4))):
        parts = valid_request(rng)
        data += (mutate(rng, parts, MUTATORS, 2) if rng.random() < 0.6 else parts).data
    if rng.random() < 0.2:
        data = mutate_bytes(rng, data)
    return list(cut(rng, data))


def cut(rng: random.Random, data: bytes) -> Iterator[bytes]:
    count = rng.choice((0, 0, 0, 1, 1, 3, 8))
    if count == 8 and len(data) < 200:
        yield from (data[at : at + 1] for at in range(len(data)))
        return
    places = sorted(rng.randrange(len(data) + 1) for _ in range(count))
    for start, end in zip([0, *places], [*places, len(data)], strict=True):
        if start < end:
            yield data[start:end]


async def test_servers(caplog: pytest.LogCaptureFixture) -> None:
    for name in ("gateway.server", "aiohttp.server"):
        caplog.set_level(logging.CRITICAL, name)
    campaign = Campaign("comparison of servers", 6_000, 1_000_000)
    ours, reference = Http1Server(handle), AiohttpServer(handle)
    for number, rng in campaign.each():
        pieces = case(rng)
        found, expected = await exchange(ours, pieces), await exchange(reference, pieces)
        compare(campaign, number, pieces, found, expected)
    campaign.report()
    assert campaign.counts["answered 200"] > campaign.cases / 4
    assert campaign.counts["answered 400"] > campaign.cases / 4
    assert sum(count for what, count in campaign.counts.items() if what.startswith("other")) < campaign.cases / 10


def compare(campaign: Campaign, number: int, pieces: list[bytes], found: Exchange, expected: Exchange) -> None:
    answers, due = read_answers(found.received), read_answers(expected.received)
    for answer in answers:
        campaign.counts[f"answered {answer.status}"] += 1
    if found.received.startswith(b"HTTP/1.1 100 ") and b"100-c" not in b"".join(pieces).lower():
        campaign.fail(number, "a client that has not asked is told to go on", pieces, found)
    if (answers, found.is_closed, found.is_reset) != (due, expected.is_closed, expected.is_reset):
        data = b"".join(pieces)
        pair = Pair(answers, due, found, expected)
        if (reason := why_other(data, pair)) is None:
            campaign.fail(number, "another answer", pieces, found, expected)
        campaign.counts[f"other because {reason}"] += 1


def why_other(data: bytes, pair: "Pair") -> str | None:
    return next((name for name, explains in REASONS.items() if explains(data, pair)), None)


class Pair(NamedTuple):
    """What both servers did."""

    answers: list[Answer]
    due: list[Answer]
    found: Exchange
    expected: Exchange

    @property
    def first(self) -> int:
        """The number of the first answer that is not the same."""
        both = zip(self.answers, self.due, strict=False)
        return next(
            (at for at, (ours, theirs) in enumerate(both) if ours != theirs), min(len(self.answers), len(self.due))
        )

    @property
    def is_at_end(self) -> bool:
        """Whether that answer is the last one of either, and ours has closed the connection."""
        return self.found.is_closed and self.first == max(len(self.answers), len(self.due)) - 1

    @property
    def both_closed(self) -> bool:
        """Whether both have closed the connection."""
        return self.found.is_closed and self.expected.is_closed


def is_broken_body(data: bytes, pair: Pair) -> bool:
    """Ours answers what came before, and closes. aiohttp's closes first if it sees the end of a body before its handler begins.

    No handler that has read a body may take it for a whole one. Of a large body aiohttp's reads a part first, and then lingers.
    """
    ours, theirs = pair.answers[pair.first :], pair.due[pair.first :]
    lingers = len(data) > 65536 and not pair.expected.is_closed
    if b"chunked" not in data.lower() or not pair.is_at_end or not (pair.both_closed or lingers) or len(ours) != 1:
        return False
    if theirs and theirs[0].way == ours[0].way == b"part":
        return True  # whether the part or the end comes first depends on how much of the body has come
    if theirs and theirs[0]._replace(headers=[]) != ours[0]._replace(headers=[]):
        return len(data) > 65536 and {ours[0].status, theirs[0].status} == {400, 413}
    return ours[0].status >= 400 or ours[0].way not in (b"whole", b"late")


def is_broken_body_taken_for_whole(data: bytes, pair: Pair) -> bool:
    """aiohttp's misses a chunk's size that is invalid where it comes while the handler wakes up for the chunk before."""
    ours, theirs = pair.answers[pair.first :], pair.due[pair.first :]
    if not pair.is_at_end or len(ours) != 1 or len(theirs) != 1 or ours[0].way != theirs[0].way:
        return False
    is_refused = (ours[0].status, theirs[0].status) == (400, 200) and CLOSE in ours[0].headers
    return is_refused and read_requests(data).rest is Rest.INVALID


def is_endless_body(_data: bytes, pair: Pair) -> bool:
    """aiohttp's goes on behind a body that ends with the connection, where a client of HTTP/1.0 wants to keep that."""
    if not pair.answers or len(pair.answers) != len(pair.due) or not pair.found.is_closed:
        return False
    ours, theirs = pair.answers[-1], pair.due[-1]
    is_same = pair.answers[:-1] == pair.due[:-1] and ours._replace(body=b"") == theirs._replace(body=b"")
    return (
        is_same and ours.way == b"stream" and theirs.body.startswith(ours.body) and b" 1.0 " in b"".join(ours.headers)
    )


def is_upgrade_with_body(data: bytes, pair: Pair) -> bool:
    """aiohttp's takes the body of a request that names another protocol for what that protocol says."""
    return b"upgrade" in data.lower() and len(pair.due) == pair.first and not pair.expected.is_closed


def is_unmet_expectation(data: bytes, pair: Pair) -> bool:
    """Ours does not keep a client that waits to be told to send its body: it may go on with a request instead."""
    ours = pair.answers[pair.first :]
    return b"expect" in data.lower() and len(ours) == 1 and CLOSE in ours[0].headers


def is_refused_twice(_data: bytes, pair: Pair) -> bool:
    """A head that is invalid in two ways, or too large besides: which of both is said depends on what is looked at first."""
    both = (*pair.answers[pair.first :], *pair.due[pair.first :])
    are_refused = all(answer.status in (400, 431) and not answer.way for answer in both)
    return pair.is_at_end and pair.both_closed and len(both) == 2 and are_refused


def lingers_on_large_body(data: bytes, pair: Pair) -> bool:
    """aiohttp's waits for the rest of a body that nobody has read. Ours has read it all, and closed as it was to."""
    return pair.answers == pair.due and pair.found.is_closed and not pair.expected.is_closed and len(data) > 65536


def is_trailer_in_next_head(data: bytes, pair: Pair) -> bool:
    """aiohttp's refuses the request behind a trailer ``Host``, which its parser takes for that request's second one."""
    theirs = pair.due[pair.first :]
    return b"\r\n0\r\nHost:" in data and len(theirs) == 1 and theirs[0].status == 400 and not theirs[0].way


def is_blank_behind_chunked(data: bytes, pair: Pair) -> bool:
    """Ours refuses a blank behind ``chunked``, which the parser does not take for it."""
    ours = pair.answers[pair.first :]
    is_refused = len(ours) == 1 and ours[0].status == 400 and not ours[0].way and pair.found.is_closed
    return is_refused and (b"chunked\t" in data.lower() or b"chunked " in data.lower())


REASONS: dict[str, Callable[[bytes, Pair], bool]] = {
    "a body is broken": is_broken_body,
    "a broken body is refused by ours alone": is_broken_body_taken_for_whole,
    "a body ends with the connection": is_endless_body,
    "an upgrade has a body": is_upgrade_with_body,
    "an expectation was not met": is_unmet_expectation,
    "a head is invalid in two ways": is_refused_twice,
    "a trailer is a header to aiohttp's parser": is_trailer_in_next_head,
    "a blank is behind chunked": is_blank_behind_chunked,
    "a large body was not read": lingers_on_large_body,
}
"""Why answers may differ. None of these lets ours take for a request what is none to aiohttp's."""


SMUGGLING = b"POST /whole HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nUpgrade: x\r\nExpect: y\r\n\r\n1\r\na\r\n0\r\n\r\n"
PART = b"HTTP/1.1 200 OK\r\nX-Request: POST 1.1 whole\r\nContent-Length: 1\r\n\r\n"


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (PART + b"a", PART + b"b"),  # another body
        ((PART + b"a") * 2, PART + b"a"),  # a request that only ours sees
        (PART + b"a", b""),  # a body that only ours takes for a whole one
        (PART + b"a", (PART + b"a").replace(b"200 OK", b"400 no")),
    ],
)
def test_the_judge_sees_what_only_one_server_does(ours: bytes, theirs: bytes) -> None:
    pair = Pair(read_answers(ours), read_answers(theirs), Exchange(ours, True, False), Exchange(theirs, True, False))
    assert why_other(SMUGGLING, pair) is None
