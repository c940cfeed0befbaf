"""Requests in every form of bad HTTP, several on one connection: the gateway takes none for a request that a strict reader of
RFC 9112 does not, and answers each once at most.

Full length: GATEWAY_TEST_CAMPAIGN=full.
"""

import asyncio
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.campaigns.fuzzing import BASE, GOOD, Bench, Campaign, fuzzed_gateway, mutate
from tests.campaigns.strict_http import Message, Rest, Stream, read_requests, read_responses
from tests.support.gateway import CHAT, KEY
from tests.support.wire import Client, connected

pytestmark = [pytest.mark.campaign, pytest.mark.timeout(1800)]

LAST = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
"""Sent behind each case, so that a gateway that has understood all of it closes the connection."""
NAMES = (
    b"Content-Length", b"Transfer-Encoding", b"Host", b"Connection", b"Expect", b"Upgrade", b"Content-Type", b"X-A", b"TE",
    b"Content_Length", b"Transfer\x00-Encoding", b"Content-Length ", b" Host", b"X A", b"", b":", b"X\xff", b"Trailer",
    b"Content-Encoding", b"Proxy-Connection", b"Keep-Alive", b"Sec-WebSocket-Key", b"HTTP2-Settings",
)  # fmt: skip
VALUES = (
    b"0", b"1", b"5", b"64", b"+5", b"-1", b"0x5", b"5, 5", b"5,6", b"5 5", b"99999999999999999999", b"chunked", b"Chunked",
    b"chunked, chunked", b"gzip, chunked", b"chunked, identity", b"identity", b"xchunked", b"chunked;q=1", b"close",
    b"keep-alive", b"close, upgrade", b"100-continue", b"websocket", b"h2c", b"localhost", b"a b", b"", b"\x00", b"\x0b5",
    b"\xa05", b"\x85", b"a\rb", b"a\nb", b"a\r\n b", b"x" * 9000, b"application/json", b"gzip", b"\xc3\xa9", b"\t5\t",
    b"5\x0c",
)  # fmt: skip
LINE_ENDS = (
    b"\r\n",
    b"\n",
    b"\r",
    b"\r\r\n",
    b"\n\r",
    b"\r\n ",
    b"\r\n\t",
    b"",
    b"\r\n\r\n",
    b"\x0b\r\n",
    b"\x00\r\n",
    b" \r\n",
)
REQUEST_LINES = (
    b"GET /v1/models HTTP/1.1", b"GET  /v1/models HTTP/1.1", b"GET /v1/models  HTTP/1.1", b"GET /v1/models",
    b"get /v1/models HTTP/1.1", b"GET /v1/models HTTP/1.0", b"GET /v1/models HTTP/1.2", b"GET /v1/models HTTP/2.0",
    b"GET /v1/models HTTP/1.1 ", b" GET / HTTP/1.1", b"GET\t/v1/models\tHTTP/1.1", b"GET /v1/mod\x00els HTTP/1.1",
    b"GET /v1/mod els HTTP/1.1", b"PRI * HTTP/2.0", b"GET / http/1.1", b"CONNECT localhost:1 HTTP/1.1", b"OPTIONS * HTTP/1.1",
    b"HEAD /healthz HTTP/1.1", b"GET http://x/v1/models HTTP/1.1", b"TRACE / HTTP/1.1", b"M-SEARCH * HTTP/1.1",
    b"G\xc9T / HTTP/1.1", b"GET /\xff HTTP/1.1", b"GET #a HTTP/1.1", b"HTTP/1.1 200 OK", b"\x16\x03\x01\x02", b"GET / HTTP/11",
    b"GET /" + b"x" * 9000 + b" HTTP/1.1", b"GET / HTTP/1.1\x00", b"POST /api/tokens/validate HTTP/1.1",
)  # fmt: skip


class Parts(NamedTuple):
    """A request before it becomes bytes."""

    lines: list[bytes]
    body: bytes
    line_end: bytes = b"\r\n"

    @property
    def data(self) -> bytes:
        return self.line_end.join([*self.lines, b"", b""]) + self.body


def chunked(rng: random.Random, body: bytes) -> bytes:
    """Mostly as it should be."""
    data = b""
    while body:
        size = rng.randrange(1, len(body) + 1)
        data += b"%x\r\n%s\r\n" % (size, body[:size])
        body = body[size:]
    data += b"0\r\n" + rng.choice((b"", b"", b"X-Trailer: a\r\n")) + b"\r\n"
    if rng.random() < 0.7:
        return data
    old, new = rng.choice((
        (b"\r\n", b"\n"), (b"\r\n", b""), (b"\r\n", b";a=b\r\n"), (b"\r\n", b" \r\n"), (b"\r\n", b";a\n\r\n"),
        (b"0\r\n", b"00\r\n"), (b"0\r\n\r\n", b"0\r\n"), (b"0\r\n", b"0\r\nContent-Length: 5\r\n"), (b"\r\n", b"\r"),
        (b"0\r\n", b"-0\r\n"), (b"0\r\n", b"0x0\r\n"), (b"\r\n", b"g\r\n"), (b"0\r\n", b"ffffffffffffffff1\r\n"),
        (b"\r\n", b"x\r\n"), (b"\r\n", b";\x00\r\n"), (b"\r\n", b"\t;a\r\n"),
    ))  # fmt: skip
    at = rng.randrange(len(data))
    return data[:at] + data[at:].replace(old, new, 1)


def tag(number: int) -> bytes:
    """What tells the requests of one case from those of the case before, which may come to the upstream late."""
    return b"case-%08d" % number


def valid_request(rng: random.Random, number: int) -> Parts:
    chat = CHAT.replace(b"Hello there", tag(number))
    key = b"Authorization: Bearer %s" % KEY.encode()
    kind = rng.random()
    if kind < 0.25:
        return Parts([b"GET /v1/files?after=%s HTTP/1.1" % tag(number), b"Host: localhost", key], b"")
    if kind < 0.35:
        return Parts([b"GET /healthz HTTP/1.1", b"Host: localhost"], b"")
    lines = [b"POST /v1/chat/completions HTTP/1.1", b"Host: localhost", key, b"Content-Type: application/json"]
    if kind < 0.7:
        return Parts([*lines, b"Content-Length: %d" % len(chat)], chat)
    return Parts([*lines, b"Transfer-Encoding: chunked"], chunked(rng, chat))


def add_header(rng: random.Random, parts: Parts) -> Parts:
    line = rng.choice(NAMES) + rng.choice((b":", b": ", b": ", b": ", b" :", b":\t", b"", b"::")) + rng.choice(VALUES)
    lines = list(parts.lines)
    lines.insert(rng.randrange(1, len(lines) + 1), line)
    return parts._replace(lines=lines)


def repeat_line(rng: random.Random, parts: Parts) -> Parts:
    lines = list(parts.lines)
    lines.insert(rng.randrange(1, len(lines) + 1), rng.choice(lines))
    return parts._replace(lines=lines)


def remove_line(rng: random.Random, parts: Parts) -> Parts:
    lines = list(parts.lines)
    del lines[rng.randrange(len(lines))]
    return parts._replace(lines=lines)


def change_value(rng: random.Random, parts: Parts) -> Parts:
    lines = list(parts.lines)
    at = rng.randrange(len(lines))
    lines[at] = lines[at].partition(b":")[0] + b": " + rng.choice(VALUES)
    return parts._replace(lines=lines)


def change_request_line(rng: random.Random, parts: Parts) -> Parts:
    return parts._replace(lines=[rng.choice(REQUEST_LINES), *parts.lines[1:]])


def change_line_end(rng: random.Random, parts: Parts) -> Parts:
    lines = list(parts.lines)
    at = rng.randrange(len(lines))
    lines[at : at + 2] = [rng.choice(LINE_ENDS).join(lines[at : at + 2])]
    return parts._replace(lines=lines, line_end=rng.choice((b"\r\n",) * 9 + LINE_ENDS[1:3]))


def many_headers(rng: random.Random, parts: Parts) -> Parts:
    count, size = rng.choice(((200, 10), (3000, 10), (10, 8000), (1, 70_000), (9, 7000)))
    return parts._replace(lines=[*parts.lines, *[b"X-%d: %s" % (number, b"a" * size) for number in range(count)]])


def change_body(rng: random.Random, parts: Parts) -> Parts:
    return parts._replace(
        body=rng.choice((b"", parts.body * 2, parts.body[:-1], parts.body + b"\r\n", LAST, b"0\r\n\r\n"))
    )


def fold(_rng: random.Random, parts: Parts) -> Parts:
    return parts._replace(lines=[line.replace(b": ", b":\r\n ", 1) for line in parts.lines])


MUTATORS: tuple[Callable[[random.Random, Parts], Parts], ...] = (
    add_header, add_header, add_header, repeat_line, remove_line, change_value, change_request_line, change_line_end,
    many_headers, change_body, fold,
)  # fmt: skip


def mutate_bytes(rng: random.Random, data: bytes) -> bytes:
    at = rng.randrange(len(data) + 1)
    piece = rng.choice((b"\r", b"\n", b" ", b"\x00", b"\t", b":", b"\x7f", b"\xff", b"", b"", b"\r\n", b"0", LAST))
    return data[:at] + piece + data[at + rng.randrange(3) :]


def case(rng: random.Random, number: int) -> bytes:
    """One to three requests, some of them spoiled."""
    data = b""
    for _ in range(rng.choice((1, 1, 2, 3))):
        data += mutate(rng, valid_request(rng, number), MUTATORS, 2).data
    return mutate_bytes(rng, data) if rng.random() < 0.3 else data


async def exchange(client: Client, rng: random.Random, data: bytes, sent: Stream) -> bytes:
    """Sends the case in pieces, and returns what came back until the connection ended, or until nothing more is due."""
    received = b""
    try:
        if rng.random() < 0.3:
            at = rng.randrange(len(data))
            await client.send(data[:at])
            await asyncio.sleep(0)
            data = data[at:]
        await client.send(data)
        async with asyncio.timeout(10 if sent.rest is Rest.CLOSED else 0.1):
            while part := await client.reader.read(65536):
                received += part
    except (ConnectionError, TimeoutError) as error:
        if isinstance(error, TimeoutError) and sent.rest is Rest.CLOSED:
            raise
    return received


def problem_with(sent: Stream, received: Stream, upstream: list[tuple[str, bytes]]) -> str | None:
    """Compares what a strict reader sees in the request with what the gateway has answered and passed on."""
    if received.rest is Rest.INVALID:
        return "a response that is no HTTP"
    one_more = sent.rest in (Rest.INCOMPLETE, Rest.INVALID)  # its head may be whole, so that it can be answered
    if len(received.messages) > len(sent.messages) + one_more:
        return "more responses than requests"
    for response in received.messages:
        if problem := problem_with_response(response):
            return problem
    due = [request.body for request in sent.messages if b"/v1/" in request.start]
    for _, body in upstream:
        if body and body not in due:
            return "a request at the upstream that a strict reader does not see"
        if body:
            del due[: due.index(body) + 1]
    if len(upstream) > sum(b"/v1/" in request.start for request in sent.messages) + one_more:
        return "more requests at the upstream than a strict reader sees"
    return None


def problem_with_response(response: Message) -> str | None:
    if response.status >= 500:
        return "a server error"
    if response.status < 400:
        return None
    if response.values("content-type") != [b"application/json"]:
        return "an error that is not JSON"
    is_error = not response.body or "error" in json.loads(response.body)
    return None if is_error else "an error without an error object"


async def run_case(campaign: Campaign, bench: Bench, number: int, rng: random.Random) -> None:
    data = case(rng, number) + LAST
    sent = read_requests(data)
    bench.upstream.requests.clear()
    async with connected(bench.gateway.port) as client:
        try:
            raw = await exchange(client, rng, data, sent)
        except TimeoutError:
            campaign.fail(number, "a complete request without a response", data)
            return
        client.writer.transport.abort()
    received = read_responses(raw, [request.start.partition(b" ")[0] for request in sent.messages])
    if received.rest is Rest.INVALID and b"\r\nconnection: close\r\n" in raw:
        received = read_responses(raw)  # where a HEAD does not parse, its method is not known either
    await bench.gateway.wait_idle()
    seen = [(request.target, request.body) for request in bench.upstream.requests]
    foreign = [item for item in seen if b"case-" in (text := item[0].encode() + item[1]) and tag(number) not in text]
    upstream = [item for item in seen if item not in foreign]
    if problem := problem_with(sent, received, upstream):
        campaign.fail(number, problem, data, sent, raw, upstream)
    campaign.counts["requests that a strict reader sees"] += len(sent.messages)
    campaign.counts["requests at the upstream"] += len(upstream)
    campaign.counts[f"cases that end with {sent.rest.value}"] += 1
    for response in received.messages:
        campaign.counts[f"answered {response.status}"] += 1


async def test_heads(tmp_path: Path) -> None:
    campaign = Campaign("fuzzing of heads", 1_200, 60_000)
    async with fuzzed_gateway(tmp_path) as bench:
        for number, rng in campaign.each():
            await run_case(campaign, bench, number, rng)
    campaign.report()
    assert campaign.counts["requests at the upstream"] > campaign.cases / 5
    assert campaign.counts["answered 400"] > campaign.cases / 5


GET = b"GET /v1/files HTTP/1.1\r\nHost: a\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


@pytest.mark.parametrize(
    ("data", "count", "rest"),
    [
        (GET * 2, 2, Rest.NOTHING),
        (GET + LAST + GET, 2, Rest.CLOSED),
        (GET.replace(b"\r\n", b"\n"), 0, Rest.INVALID),
        (GET.replace(b"GET ", b"GET  "), 0, Rest.INVALID),
        (GET.replace(b"a", b"a\r\nHost: b"), 0, Rest.INVALID),
        (GET.replace(b"a", b"a\r\nContent-Length: 3"), 0, Rest.INCOMPLETE),
        (GET.replace(b"a", b"a\r\nContent-Length: 2\r\nContent-Length: 2") + b"{}", 0, Rest.INVALID),
        (GET.replace(b"a", b"a\r\nTransfer-Encoding: chunked") + b"2\r\n{}\r\n0\r\n\r\n", 1, Rest.NOTHING),
        (GET.replace(b"a", b"a\r\nTransfer-Encoding: chunked") + b"2\n{}\r\n0\r\n\r\n", 0, Rest.INVALID),
    ],
)
def test_the_strict_reader(data: bytes, count: int, rest: Rest) -> None:
    found = read_requests(data)
    assert (len(found.messages), found.rest) == (count, rest)


def test_the_judge_sees_what_was_smuggled() -> None:
    one, two = read_responses(OK), read_responses(OK * 2)
    assert problem_with(read_requests(GET), one, [(BASE, GOOD)]) is not None
    assert problem_with(read_requests(GET), one, [(BASE, b"")] * 2) is not None
    assert problem_with(read_requests(GET), two, []) == "more responses than requests"
    assert problem_with(read_requests(GET), one, [(BASE, b"")]) is None
