"""Queries of every kind: what reaches the upstream is on a list, and a credential never does.

Full length: GATEWAY_TEST_CAMPAIGN=full.
"""

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import unquote_plus

import pytest

from tests.campaigns.fuzzing import (
    Caller,
    Callers,
    Campaign,
    fuzzed_gateway,
    mutate,
    raw_request,
)
from tests.support.upstream import Received

pytestmark = [pytest.mark.campaign, pytest.mark.timeout(1800)]

WITH_JSON = frozenset({"api-version", "beta"})
"""What may go out with a JSON body."""
READING = frozenset(
    {"after", "before", "include", "include[]", "limit", "order", "purpose", "starting_after", "stream"}
)
"""What a token with a list of models may send where it reads something."""
JSON_PATHS = (
    "/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses", "/v1/moderations", "/v1/rerank",
    "/v1/messages", "/v1/images/generations", "/v1/engines/cheap-1/chat/completions",
    "/openai/deployments/cheap-1/completions",
)  # fmt: skip
READ_PATHS = ("/v1/files", "/v1/batches", "/v1/models")
BODY = b'{"model":"cheap-1","messages":[],"input":"x"}'
NAMES = (
    *WITH_JSON, *READING, "model", "models", "Model", "token", "Token", "TOKEN", "to%6ben", "%74oken", "t%6Fk%65n",
    "%2574oken", "token[]", "token%00", " token", "+token", "to\u212aen", "to%E2%84%AAen", "api_key", "key", "n", "user",
    "fallbacks", "deployment", "max_tokens", "API-Version", "api_version", "", "a;token", "x%26token", "x%3btoken",
)  # fmt: skip
VALUES = (
    "", "1", "dear-1", "2024-10-21", "true", "a%26model=dear-1", "a%3bmodel=dear-1", "a%2526model%253Ddear-1", "a;model=dear-1",
    "%0d%0aX:%20y", "%00", "%", "%g1", "%ff", "\u00e9", "x" * 65, "x" * 4000, "a=b", "a+b", "#x", "..%2f..", "\\", "\u2028",
)  # fmt: skip
SEPARATORS = ("&", "&", "&", "&&", ";", "&amp;", "%26", "?", "\n", ",")


def parameter(rng: random.Random, secret: str) -> str:
    value = secret if rng.random() < 0.3 else rng.choice(VALUES)
    return rng.choice(NAMES) + rng.choice(("=", "=", "=", "=", "", "%3d", "==")) + value


def query_of(rng: random.Random, secret: str) -> str:
    query = parameter(rng, secret)
    for _ in range(rng.choice((0, 1, 2, 3, 20))):
        query += rng.choice(SEPARATORS) + parameter(rng, secret)
    return query


def escape(rng: random.Random, query: str) -> str:
    at = rng.randrange(len(query)) if query else 0
    return query[:at] + "".join(f"%{byte:02X}" for byte in query[at : at + 1].encode()) + query[at + 1 :]


def change_case(rng: random.Random, query: str) -> str:
    at = rng.randrange(len(query) + 1)
    return query[:at] + query[at : at + 8].swapcase() + query[at + 8 :]


def cut(rng: random.Random, query: str) -> str:
    at = rng.randrange(len(query) + 1)
    return query[:at] + query[at + rng.randrange(3) :]


def repeat(_rng: random.Random, query: str) -> str:
    return f"{query}&{query}"[:8000]


MUTATORS: tuple[Callable[[random.Random, str], str], ...] = (escape, escape, change_case, cut, repeat)


def parameters(query: str) -> Iterator[tuple[str, str]]:
    """Every name and value that some server may read: parted at ``&`` or ``;``, decoded once."""
    for part in filter(None, query.replace(";", "&").split("&")):
        name, _, value = part.partition("=")
        yield unquote_plus(name), unquote_plus(value)


def problem_with(caller: Caller, callers: Callers, received: Received) -> str | None:
    """What the upstream got that it may not have."""
    query = received.target.partition("?")[2]
    if not query.isascii() or any(ord(char) < 33 or char in '"<>\\^`{|}#' for char in query):
        return "characters that no query may have" if received.body else None
    if any(name.strip().casefold() == "token" for name, _ in parameters(query)):
        return "a credential"
    for name, value in parameters(query):
        if received.body and name not in WITH_JSON and query:
            return f"the parameter {name!r} beside a JSON body"
        if received.body and len(value) > 64:
            return "a long value"
        if caller is callers.limited and query and name not in READING | WITH_JSON:
            return f"the parameter {name!r} of a limited token"
    return None


async def test_queries(tmp_path: Path) -> None:
    campaign = Campaign("fuzzing of queries", 2_000, 100_000)
    async with fuzzed_gateway(tmp_path) as (upstream, _, callers, client):
        for number, rng in campaign.each():
            caller = rng.choice((callers.limited, callers.limited, callers.member, callers.admin))
            has_body = rng.random() < 0.6
            path = rng.choice(JSON_PATHS if has_body else READ_PATHS)
            query = mutate(rng, query_of(rng, caller.secret or ""), MUTATORS)
            target = f"{path}?{query}".encode().translate(None, b"\r\n ")
            headers = [*caller.headers[: rng.choice((0, 1, 1, 1))], ("Content-Type", "application/json")]
            data = raw_request("POST" if has_body else "GET", target, headers, BODY if has_body else None)
            upstream.requests.clear()
            reply = await client.send(data)
            shown = (caller.name, target, reply, [(r.method, r.target) for r in upstream.requests])
            if reply.status >= 500:
                campaign.fail(number, "a server error", *shown)
            campaign.counts[f"answered {reply.status}"] += 1
            for received in upstream.requests:
                if problem := problem_with(caller, callers, received):
                    campaign.fail(number, problem, *shown)
                campaign.counts["reached the upstream"] += 1
                campaign.counts["reached the upstream with a query"] += "?" in received.target
    campaign.report()
    assert campaign.counts["reached the upstream with a query"] > campaign.cases / 50


@pytest.mark.parametrize("query", ["a=1;Token=x", "a&to%6Ben=x", "token", "+token=x"])
def test_the_judge_sees_a_credential(query: str) -> None:
    member = Caller("member", "x")
    callers = Callers(*[member] * 5)
    assert problem_with(member, callers, Received("GET", f"/v1/files?{query}", [], b"", b"")) == "a credential"
