"""Requests in every form of bad HTTP, several on one connection: the gateway takes none for a request that a strict reader of
RFC 9112 does not, and answers each once at most.

Full length: GATEWAY_TEST_CAMPAIGN=full.
"""

import asyncio
import json
import random
from pathlib import Path

import pytest

from tests.campaigns.bad_requests import LAST, MUTATORS, Parts, chunked, mutate_bytes
from tests.campaigns.fuzzing import BASE, GOOD, Bench, Campaign, fuzzed_gateway, mutate
from tests.campaigns.strict_http import Message, Rest, Stream, read_requests, read_responses
from tests.support.gateway import CHAT, KEY
from tests.support.wire import Client, connected

pytestmark = [pytest.mark.campaign, pytest.mark.timeout(1800)]


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
