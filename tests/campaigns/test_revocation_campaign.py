"""A revoked token is refused by every worker within a second, and its streams end within two, while requests are in flight.

Full length: GATEWAY_TEST_CAMPAIGN=full, 100 revocations.
"""

import asyncio
import os
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from statistics import median

import pytest

from gateway.audit.entry import verify
from gateway.audit.journal import AuditLog
from gateway.clock import SteadyClock
from gateway.tokens.changes import NewToken, TokenWish
from gateway.tokens.service import TokenService
from gateway.tokens.token_file import TokenFile
from tests.support.gateway import KEY, Process, gateway_process
from tests.support.server import slow_upstream
from tests.support.tokens import BY
from tests.support.wire import BEARER, STREAM, Client, connected, post, request, talk

FULL = os.environ.get("GATEWAY_TEST_CAMPAIGN") == "full"
REVOCATIONS = 100 if FULL else 6
WORKERS = 4
BOUND, STREAM_BOUND = 1.0, 2.0
LOOK_SECONDS = 0.005

pytestmark = [pytest.mark.campaign, pytest.mark.timeout(900)]


def workers_of(gateway: Process) -> list[int]:
    """The process ids of its workers."""
    return [
        int(pid) for pid in Path(f"/proc/{gateway.popen.pid}/task/{gateway.popen.pid}/children").read_text().split()
    ]


def sockets_of(pid: int) -> set[str]:
    """The inodes of the sockets that a process has open."""
    found = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found |= set(re.findall(r"socket:\[(\d+)\]", str(link.readlink())))
        except FileNotFoundError:
            continue  # closed meanwhile
    return found


def accepted_by(gateway: Process, client: Client) -> int | None:
    """The worker at the other end of a connection."""
    ours = client.writer.get_extra_info("sockname")[1]
    ends = f":{gateway.port:04X} ", f":{ours:04X} "
    for line in Path("/proc/net/tcp").read_text().splitlines():
        fields = line.split()
        if f"{fields[1]} ".endswith(ends[0]) and f"{fields[2]} ".endswith(ends[1]):
            return next((pid for pid in workers_of(gateway) if fields[9] in sockets_of(pid)), None)
    return None


@asynccontextmanager
async def one_connection_to_each(gateway: Process) -> AsyncIterator[dict[int, Client]]:
    async with AsyncExitStack() as stack:
        found: dict[int, Client] = {}
        for _ in range(500):
            client = await stack.enter_async_context(connected(gateway.port))
            await client.send(request("GET", "/healthz"))
            await client.reply()
            if (pid := accepted_by(gateway, client)) is not None:
                found.setdefault(pid, client)
            if len(found) == WORKERS:
                break
        assert len(found) == WORKERS, "not every worker took a connection"
        yield found


async def status(client: Client, secret: str) -> int:
    """401, or 400 for who gets in: the body is none, so that no upstream is asked, and nothing looks at the token file."""
    await client.send(post(body=b"{", headers=[("api-key", secret)]))
    return (await client.reply()).status


async def seconds_until_refused(client: Client, secret: str) -> float:
    began = time.monotonic()
    while await status(client, secret) != 401:
        assert time.monotonic() - began < 10, "this worker goes on taking a revoked token"
        await asyncio.sleep(LOOK_SECONDS)
    return time.monotonic() - began


async def keep_busy(gateway: Process, secret: str, answered: list[int]) -> None:
    """Requests in flight, one behind the other, until cancelled."""
    async with connected(gateway.port) as client:
        while True:
            answered.append(await status(client, secret))


async def stream_end(client: Client) -> float:
    """When a stream ended; it must not look whole."""
    rest = b""
    while (piece := await client.piece(20)) is not None:
        assert piece, "the stream came to a proper end"
        rest += piece
    assert b'"code":"invalid_api_key"' in rest
    assert b"[DONE]" not in rest
    return time.monotonic()


class Hands:
    """The three ways to revoke."""

    def __init__(self, folder: Path, port: int) -> None:
        self.log = AuditLog(folder / "data" / "audit.jsonl", SteadyClock())
        self.service = TokenService(TokenFile(folder / "api_tokens.json"), self.log, SteadyClock())
        self._port = port

    async def by_hand(self, made: NewToken) -> None:
        await asyncio.to_thread(self.service.revoke, BY, made.record.id)

    async def by_api(self, made: NewToken) -> None:
        reply = await talk(self._port, request("POST", f"/api/tokens/{made.record.id}/revoke", [BEARER]))
        assert (reply.status, reply.json()["status"]) == (200, "revoked")

    async def by_secret(self, made: NewToken) -> None:
        body = b'{"token":"%s"}' % made.secret.encode()
        assert (await talk(self._port, post("/api/tokens/revoke", body, ()))).status == 200


async def start_stream(stack: AsyncExitStack, gateway: Process, secret: str) -> Client:
    client = await stack.enter_async_context(connected(gateway.port))
    await client.send(post(body=STREAM, headers=[("api-key", secret)]))
    assert (await client.head()).status == 200
    assert await client.piece()
    return client


async def revoked_once(
    gateway: Process, clients: dict[int, Client], hands: Hands, revoke: Callable[[NewToken], object]
) -> tuple[float, float]:
    """Seconds from the acknowledged revocation to the last worker's 401, and to the last stream's end."""
    made = await asyncio.to_thread(hands.service.create, BY, TokenWish(name="dying"))
    for client in clients.values():
        assert await status(client, made.secret) == 400, "a new token is known to every worker at once"
    async with AsyncExitStack() as stack:
        streams = [await start_stream(stack, gateway, made.secret) for _ in range(WORKERS * 2)]
        ends = [asyncio.create_task(stream_end(client)) for client in streams]
        await revoke(made)  # type: ignore[misc]
        began = time.monotonic()
        waits = await asyncio.gather(*(seconds_until_refused(client, made.secret) for client in clients.values()))
        return max(waits), max(await asyncio.gather(*ends)) - began


async def test_every_worker_refuses_a_revoked_token_within_a_second(tmp_path: Path) -> None:
    with (
        slow_upstream() as upstream,
        gateway_process(
            tmp_path, FREEGPT_API_KEY=KEY, GATEWAY_WORKERS=str(WORKERS), GATEWAY_UPSTREAM_URL=upstream.url,

        ) as gateway,
    ):  # fmt: skip
        hands = Hands(tmp_path, gateway.port)
        living = hands.service.create(BY, TokenWish(name="living"))
        answered: list[int] = []
        async with one_connection_to_each(gateway) as clients, asyncio.TaskGroup() as group:
            busy = [group.create_task(keep_busy(gateway, living.secret, answered)) for _ in range(WORKERS)]
            ways = [hands.by_hand, hands.by_api, hands.by_secret]
            found = [await revoked_once(gateway, clients, hands, ways[n % 3]) for n in range(REVOCATIONS)]
            for task in busy:
                task.cancel()
    refused, cut = zip(*found, strict=True)
    told = ", ".join(
        f"{name}: median {median(values) * 1000:.0f} ms, max {max(values) * 1000:.0f} ms"
        for name, values in (("401 on every worker", refused), ("streams ended", cut))
    )
    print(f"\n{REVOCATIONS} revocations on {WORKERS} workers, {len(answered)} requests in between; {told}")
    assert set(answered) == {400}
    assert max(refused) <= BOUND
    assert max(cut) <= STREAM_BOUND
    verdict = verify(hands.log.lines())
    assert (verdict.end.number, verdict.broken) == (1 + 2 * REVOCATIONS, None)
