"""What the fuzzing campaigns share: the callers, a gateway whose log is read, a client that keeps its connection, and the seed.

A campaign sends one request at a time, so that each request that the upstream sees belongs to the case that was sent last.
"""

import asyncio
import logging
import os
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pytest

from gateway.tokens.changes import TokenSpec
from gateway.tokens.models import Role
from tests.support.gateway import KEY, Running, running_gateway
from tests.support.reply import Reply
from tests.support.tokens import BY, Clock, TokenEditor
from tests.support.upstream import Behaviour, Connection, Received, Upstream, answer, running_upstream
from tests.support.wire import Client

FULL = os.environ.get("GATEWAY_TEST_CAMPAIGN") == "full"
BASE = "/tenant/v1"
"""The base path of the upstream: nothing may be requested outside it."""
ALLOWED, FORBIDDEN = "cheap-1", "dear-1"
"""A model that the limited token may use, and one that it may not."""
OPENED = ("files", "batches")
"""What ``GATEWAY_PASS_THROUGH`` opens."""
GOOD = (
    b'{"id":"1","object":"list","data":[],"choices":[],"model":"cheap-1","usage":{"prompt_tokens":1,"total_tokens":1}}'
)

T = TypeVar("T")


class Caller(NamedTuple):
    """Who sends a case. ``secret`` is None for a stranger."""

    name: str
    secret: str | None

    @property
    def headers(self) -> list[tuple[str, str]]:
        return [] if self.secret is None else [("Authorization", f"Bearer {self.secret}")]


class Callers(NamedTuple):
    """One of each kind."""

    limited: Caller
    member: Caller
    without_models: Caller
    admin: Caller
    stranger: Caller


class Bench(NamedTuple):
    """What a campaign works with."""

    upstream: Upstream
    gateway: Running
    callers: Callers
    client: "KeptClient"


def create_callers(folder: Path) -> Callers:
    editor = TokenEditor(folder / "api_tokens.json", Clock(time.time()))

    def create(name: str, models: tuple[str, ...] | None) -> Caller:
        spec = TokenSpec(name=name, role=Role.MEMBER, models=models, owner=f"{name}@example.com")
        return Caller(name, editor.create(BY, spec).secret)

    return Callers(
        limited=create("limited", ("cheap-*",)),
        member=create("member", None),
        without_models=create("nobody", ()),
        admin=Caller("admin", KEY),
        stranger=Caller("stranger", None),
    )


async def respond(received: Received, connection: Connection) -> None:
    """The upstream of the campaigns about requests: it accepts everything."""
    await connection.send(answer(b"" if received.method == "HEAD" else GOOD))


@asynccontextmanager
async def fuzzed_gateway(folder: Path, behave: Behaviour = respond, **values: str) -> AsyncIterator[Bench]:
    """Runs an upstream and a gateway. In the end it checks that the gateway is alive and has logged no bug."""
    callers = create_callers(folder)
    async with running_upstream(behave) as upstream:
        chosen = {
            "FREEGPT_API_KEY": KEY,
            "GATEWAY_UPSTREAM_URL": f"http://127.0.0.1:{upstream.port}{BASE}",
            "GATEWAY_PASS_THROUGH": ",".join(OPENED),
            **values,
        }
        with bugs_in_log() as bugs:
            async with running_gateway(folder, **chosen) as gateway:
                with closing(KeptClient(gateway.port)) as client:
                    yield Bench(upstream, gateway, callers, client)
                assert (await gateway.get("/healthz")).status == 200
                await gateway.wait_idle()
        assert not bugs, bugs[:3]


@contextmanager
def bugs_in_log() -> Iterator[list[str]]:
    """Collects exceptions that the gateway logs, and errors of aiohttp and of the event loop."""
    bugs: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            is_of_library = record.levelno >= logging.ERROR and not record.name.startswith("gateway")
            if is_of_library or record.exc_info or "unhandled exception" in record.getMessage():
                bugs.append(f"{record.name}: {self.format(record)}")

    handler = Handler(logging.WARNING)
    logging.getLogger().addHandler(handler)
    try:
        yield bugs
    finally:
        logging.getLogger().removeHandler(handler)


class KeptClient:
    """Sends one request after another, on one connection as long as the gateway keeps it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._client: Client | None = None

    async def send(self, data: bytes, seconds: float = 10) -> Reply:
        """Returns the response. Raises TimeoutError, and IncompleteReadError where there is none."""
        if self._client is None:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port, limit=2**22)
            self._client = Client(reader, writer)
        client = self._client
        try:
            await client.send(data)
            reply = await client.reply(seconds, to_head=data.startswith(b"HEAD "))
        except BaseException:
            self.close()
            raise
        if (reply.header("Connection") or "").lower() == "close" or not reply.whole:
            self.close()
        return reply

    def close(self) -> None:
        if self._client is not None:
            self._client.writer.close()
            self._client = None


def raw_request(method: str, target: bytes, headers: Sequence[tuple[str, str]], body: bytes | None) -> bytes:
    """A request whose target is any bytes."""
    lines = [f"{name}: {value}".encode("latin-1") for name, value in [("Host", "localhost"), *headers]]
    if body is not None:
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join([b"%s %s HTTP/1.1" % (method.encode(), target), *lines, b"", body or b""])


def choose_seed() -> int:
    """The short form is the same in every run."""
    return random.SystemRandom().randrange(10**6) if FULL else 1


class Campaign:
    """Counts the cases, and says how to repeat one that fails."""

    def __init__(self, name: str, cases: int, full_cases: int) -> None:
        self.name = name
        self.seed = choose_seed()
        self.cases = full_cases if FULL else cases
        self.counts: Counter[str] = Counter()
        self._began = time.monotonic()

    def each(self) -> Iterator[tuple[int, random.Random]]:
        """Yields the number of each case and its own generator."""
        for number in range(self.cases):
            yield number, random.Random(f"{self.seed}/{number}")

    def fail(self, number: int, why: str, *shown: Any) -> None:
        """Fails the test with the case."""
        details = "\n".join(repr(item)[:3000] for item in shown)
        pytest.fail(f"{self.name}: seed {self.seed}, case {number}: {why}\n{details}", pytrace=False)

    def report(self) -> None:
        """Prints the counts for docs/testing.md."""
        told = ", ".join(f"{count} {what}" for what, count in sorted(self.counts.items()))
        seconds = time.monotonic() - self._began
        print(f"\ncampaign {self.name}: seed {self.seed}, {self.cases} cases in {seconds:.0f} s: {told}")


def mutate(rng: random.Random, value: T, mutators: Sequence[Callable[[random.Random, T], T]], most: int = 3) -> T:
    """Returns the value after none, one or some of the mutators."""
    for _ in range(rng.randrange(most + 1)):
        value = rng.choice(mutators)(rng, value)
    return value
