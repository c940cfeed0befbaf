"""Responses of every kind on kept connections, several callers at once: none gets what belongs to another, none waits for ever,
and no stream looks complete that is not.

Full length: GATEWAY_TEST_CAMPAIGN=full.
"""

import asyncio
import random
from pathlib import Path

import pytest

from tests.campaigns.fuzzing import Campaign, KeptClient, fuzzed_gateway
from tests.campaigns.hostile_upstream import MARKER, HostileUpstream, marker
from tests.support.gateway import BEARER
from tests.support.reply import Reply
from tests.support.wire import post

pytestmark = [pytest.mark.campaign, pytest.mark.timeout(1800)]

CALLERS = 6
TIMEOUTS = {
    "GATEWAY_CONNECT_TIMEOUT": "2",
    "GATEWAY_FIRST_BYTE_TIMEOUT": "0.3",
    "GATEWAY_CHUNK_TIMEOUT": "0.3",
}
LONGEST = 8.0
"""Seconds after which a caller has waited for too long, on a busy machine too."""


def problem_with(number: int, is_stream: bool, reply: Reply, payload: bytes) -> str | None:
    """What a caller got that it may not have got."""
    said = b"".join(f"{name}:{value}\n".encode("latin-1") for name, value in reply.headers) + reply.body
    if any(int(found[1]) != number for found in MARKER.finditer(said)):
        return "bytes of another caller"
    if b'"internal_error"' in reply.body:
        return "a server error of the gateway's own"
    if not reply.whole or reply.status >= 300:
        return None
    is_events = (reply.header("Content-Type") or "").startswith("text/event-stream")
    if is_stream and is_events and b"[DONE]" not in reply.body:
        return "a stream that looks complete and is not"
    if is_stream and is_events and b"[DONE]" not in payload and b"finish_reason" not in payload and payload[:1] == b"d":
        return "a stream that was completed by the gateway alone"
    return None


async def call(campaign: Campaign, number: int, client: KeptClient, upstream: HostileUpstream) -> None:
    is_stream = number % 3 != 0
    text = b',"stream":true' if is_stream else b""
    body = b'{"model":"m","messages":[{"role":"user","content":"%s"}]%s}' % (marker(number), text)
    try:
        reply = await client.send(post(body=body, headers=(BEARER, ("Accept-Encoding", "gzip"))), LONGEST)
    except TimeoutError:
        campaign.fail(number, "no end of the response", body)
        return
    except (asyncio.IncompleteReadError, ConnectionError):
        campaign.counts["without a response"] += 1
        return
    payload = upstream.payloads.pop(number, b"")
    if problem := problem_with(number, is_stream, reply, payload):
        campaign.fail(number, problem, payload, reply)
    kind = "stream" if is_stream else "answer"
    campaign.counts[f"{kind} {reply.status}{'' if reply.whole else ' broken off'}"] += 1


async def test_upstream_answers(tmp_path: Path) -> None:
    campaign = Campaign("fuzzing of upstream answers", 900, 30_000)
    upstream = HostileUpstream(lambda number: random.Random(f"{campaign.seed}/{number}"))
    numbers = iter(range(campaign.cases))

    async with fuzzed_gateway(tmp_path, upstream, **TIMEOUTS) as bench:

        async def caller() -> None:
            client = KeptClient(bench.gateway.port)
            try:
                for number in numbers:
                    await call(campaign, number, client, upstream)
            finally:
                client.close()

        async with asyncio.TaskGroup() as group:
            for _ in range(CALLERS):
                group.create_task(caller())
        reused = len(bench.upstream.requests) - len(bench.upstream.connections)
        campaign.counts["requests on a connection that was used before"] = reused
    campaign.report()
    assert campaign.counts["requests on a connection that was used before"] > campaign.cases / 10
    assert campaign.counts["stream 200"] > campaign.cases / 20
    assert campaign.counts["stream 200 broken off"] > campaign.cases / 100


def test_the_judge_sees_bytes_of_another_caller() -> None:
    foreign = Reply(200, [("x-upstream-request-id", marker(8).decode())], marker(7), True)
    assert problem_with(7, False, foreign, b"") == "bytes of another caller"
    events = [("Content-Type", "text/event-stream")]
    assert problem_with(7, True, Reply(200, events, b"data: {}\n\n", True), b"") is not None
    assert problem_with(7, True, Reply(200, events, b"data: {}\n\n", False), b"") is None
