"""A revoked token is refused by every worker within a second, and its streams end within two, while requests are in flight.

Full length: GATEWAY_TEST_CAMPAIGN=full, 100 revocations.
"""

import asyncio
import os
import random
import re
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from statistics import median

import pytest

from gateway.audit import hash_chain as chain
from gateway.audit.hash_chain import verify
from gateway.audit.log import AuditLog
from gateway.core.clock import SteadyClock
from gateway.tokens.changes import CreatedToken, TokenSpec
from tests.campaigns import life
from tests.support.gateway import BEARER, KEY, ROOT, STREAM, Process, gateway_process, pause, running_gateway
from tests.support.server import slow_upstream
from tests.support.tokens import BY, NOW, Clock, TokenEditor
from tests.support.wire import Client, connected, post, request, talk

FULL = os.environ.get("GATEWAY_TEST_CAMPAIGN") == "full"
REVOCATIONS = 100 if FULL else 6
WORKERS = 4
BOUND, STREAM_BOUND = 1.0, 2.0
LOOK_SECONDS = 0.005
CALLS = 25
"""More than a change asks of the disk."""

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


class Revoker:
    """The three ways to revoke."""

    def __init__(self, folder: Path, port: int) -> None:
        self.log = AuditLog(folder / "data" / "audit.jsonl", SteadyClock())
        self.service = TokenEditor(folder / "api_tokens.json", SteadyClock(), self.log)
        self._port = port

    async def by_hand(self, made: CreatedToken) -> None:
        await asyncio.to_thread(self.service.revoke, BY, made.record.id)

    async def by_api(self, made: CreatedToken) -> None:
        reply = await talk(self._port, request("POST", f"/api/tokens/{made.record.id}/revoke", [BEARER]))
        assert (reply.status, reply.json()["status"]) == (200, "revoked")

    async def by_secret(self, made: CreatedToken) -> None:
        body = b'{"token":"%s"}' % made.secret.encode()
        assert (await talk(self._port, post("/api/tokens/revoke", body, ()))).status == 200


async def start_stream(client: Client, secret: str) -> None:
    await client.send(post(body=STREAM, headers=[("api-key", secret)]))
    assert (await client.head()).status == 200
    assert await client.piece()


async def revoked_once(
    gateway: Process, clients: dict[int, Client], revoker: Revoker, revoke: Callable[[CreatedToken], object]
) -> tuple[float, float]:
    """Seconds from the acknowledged revocation to the last worker's 401, and to the last stream's end."""
    made = await asyncio.to_thread(revoker.service.create, BY, TokenSpec(name="to be revoked"))
    for client in clients.values():
        assert await status(client, made.secret) == 400, "a new token is known to every worker at once"
    async with one_connection_to_each(gateway) as streams:
        for client in streams.values():
            await start_stream(client, made.secret)
        ends = [asyncio.create_task(stream_end(client)) for client in streams.values()]
        await revoke(made)  # type: ignore[misc]
        began = time.monotonic()
        waits = await asyncio.gather(*(seconds_until_refused(client, made.secret) for client in clients.values()))
        return max(waits), max(await asyncio.gather(*ends)) - began


def spread(values: Sequence[float]) -> str:
    """In milliseconds."""
    first, *_, last = ordered = sorted(round(value * 1000) for value in values)
    return f"min {first}, median {median(ordered):.0f}, p99 {ordered[(len(ordered) - 1) * 99 // 100]}, max {last} ms"


async def test_every_worker_refuses_a_revoked_token_within_a_second(tmp_path: Path) -> None:
    with (
        slow_upstream() as upstream,
        gateway_process(
            tmp_path, FREEGPT_API_KEY=KEY, GATEWAY_WORKERS=str(WORKERS), GATEWAY_UPSTREAM_URL=upstream.url,

        ) as gateway,
    ):  # fmt: skip
        revoker = Revoker(tmp_path, gateway.port)
        living = revoker.service.create(BY, TokenSpec(name="living"))
        answered: list[int] = []
        async with one_connection_to_each(gateway) as clients, asyncio.TaskGroup() as group:
            busy = [group.create_task(keep_busy(gateway, living.secret, answered)) for _ in range(WORKERS)]
            ways = [revoker.by_hand, revoker.by_api, revoker.by_secret]
            found = [await revoked_once(gateway, clients, revoker, ways[n % 3]) for n in range(REVOCATIONS)]
            for task in busy:
                task.cancel()
    refused, cut = zip(*found, strict=True)
    told = f"401 on every worker: {spread(refused)}; streams on every worker ended: {spread(cut)}"
    print(f"\n{REVOCATIONS} revocations on {WORKERS} workers, {len(answered)} requests in between; {told}")
    assert set(answered) == {400}
    assert max(refused) <= BOUND
    assert max(cut) <= STREAM_BOUND
    verdict = verify(revoker.log.lines())
    assert (verdict.end.number, verdict.broken) == (1 + 2 * REVOCATIONS, None)


EDGE = ((-1.0, 400), (-0.001, 400), (-1e-6, 400), (0.0, 401), (1e-6, 401), (1.0, 401))


async def test_an_end_is_exact_at_its_second(tmp_path: Path) -> None:
    """A token's own, its parent's, that of a secret which has been replaced; and no clock that goes back undoes it."""
    wall = Clock()
    service = TokenEditor(tmp_path / "api_tokens.json", wall)
    own = service.create(BY, TokenSpec(name="own", expires_at=NOW + 10))
    parent = service.create(BY, TokenSpec(name="parent", expires_at=NOW + 20))
    child = service.create(BY, TokenSpec(name="child", parent_id=parent.record.id))
    rotated = service.create(BY, TokenSpec(name="rotated"))
    new = service.rotate(BY, rotated.record.id, 30)
    ends = [(own.secret, 10), (parent.secret, 20), (child.secret, 20), (rotated.secret, 30)]
    async with (
        running_gateway(tmp_path, app_options={"clock": SteadyClock(wall)}) as gateway,
        connected(gateway.port) as client,
    ):
        for secret, end in ends:
            for offset, answer in EDGE:
                wall.now = max(wall.now, NOW + end + offset)
                if wall.now == NOW + end + offset:
                    assert await status(client, secret) == answer, (end, offset)
        for wall.now in (NOW, 0.0, -1e9):
            assert {await status(client, secret) for secret, _ in ends} == {401}
            assert await status(client, new.secret) == 400


# The wall clock of a process, moved by a number in a file beside it.
MOVED_CLOCK = """
import pathlib, time
real, moved = time.time, pathlib.Path(__file__).with_name("moved")
time.time = lambda: real() + float(moved.read_text())
"""


async def test_a_clock_set_back_revives_nothing_even_in_a_new_worker(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(MOVED_CLOCK)
    moved = tmp_path / "moved"
    moved.write_text("0")
    service = TokenEditor(tmp_path / "api_tokens.json", time.time)
    living = service.create(BY, TokenSpec(name="living"))
    ending = service.create(BY, TokenSpec(name="ending", expires_at=int(time.time()) + 1000))
    with gateway_process(tmp_path, GATEWAY_WORKERS=str(WORKERS), PYTHONPATH=f"{tmp_path}:{ROOT}") as gateway:
        first = set(workers_of(gateway))
        assert await asked_everywhere(gateway, ending.secret) == {400}
        moved.write_text("1001")
        assert await asked_everywhere(gateway, ending.secret) == {401}
        moved.write_text("-1000")
        assert await asked_everywhere(gateway, ending.secret) == {401}
        for worker in first:
            os.kill(worker, signal.SIGKILL)
        until(lambda: len(set(workers_of(gateway)) - first) == WORKERS)
        assert await asked_everywhere(gateway, ending.secret) == {401}
        assert await asked_everywhere(gateway, living.secret) == {400}


async def asked_everywhere(gateway: Process, secret: str) -> set[int]:
    """What the workers say to it."""
    async with one_connection_to_each(gateway) as clients:
        return {await status(client, secret) for client in clients.values()}


def until(holds: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        pause()


def test_no_acknowledged_change_goes_without_its_line(tmp_path: Path) -> None:
    """Two writers killed at once, at any moment; and one killed at each of the calls of a change of four lines."""
    moments, chance, told = (100 if FULL else 3), random.Random(7), Counter[str]()
    for number in range(moments):
        folder = tmp_path / f"{number // 10}"  # a file that grows makes every write slower
        folder.mkdir(exist_ok=True)
        told += check_lines(folder, killed_at_any_moment(folder, chance.random() * 0.05))
    for acknowledged in killed_at_each_call(tmp_path / "calls"):
        told += check_lines(tmp_path / "calls", acknowledged)
        told["deaths at a call"] += 1
    print(
        f"\ncampaign audit log: {moments} times two writers killed, then {dict(told)}; 0 lines missing, 0 chains broken"
    )


def check_lines(folder: Path, acknowledged: list[tuple[str, str]]) -> Counter[str]:
    """After one change more the chain is whole, and has them all."""
    is_torn = not life.audit_path(folder).read_bytes().endswith(b"\n")
    runner = life.CommandRunner(folder, time.time)
    runner.execute({"verb": "create", "spec": {"name": "afterwards"}})
    log = AuditLog(life.audit_path(folder), time.time)
    lines = list(log.lines())
    assert verify(lines).broken is None
    there = Counter((entry["action"], entry["token_id"]) for entry in map(chain.read, lines))
    assert not Counter(acknowledged) - there
    return Counter({"changes acknowledged": len(acknowledged), "torn ends": is_torn})


def killed_at_any_moment(folder: Path, seconds: float) -> list[tuple[str, str]]:
    writers = [life.process("changes", str(folder)) for _ in range(2)]
    said = b"".join(writer.stdout.readline() for writer in writers)
    pause(seconds)
    for writer in writers:
        writer.kill()
    said += b"".join(writer.stdout.read() for writer in writers)
    for writer in writers:
        life.end(writer)
    return [(action, token_id) for action, token_id in (line.split() for line in said.decode().splitlines())]


def killed_at_each_call(folder: Path) -> Iterator[list[tuple[str, str]]]:
    """The end of a parent and three children, each time by a process that dies at another call."""
    folder.mkdir()
    runner, second_process = life.CommandRunner(folder, time.time), life.SecondProcess()
    second_process.use_folder(folder)
    try:
        for at in range(1, CALLS):
            parent = runner.execute({"verb": "create", "spec": {"name": "parent"}})["id"]
            below = {"name": "child", "parent_id": parent}
            family = [parent, *(runner.execute({"verb": "create", "spec": below})["id"] for _ in range(3))]
            second_process.send({"verb": "revoke", "reference": parent}, time.time(), at)
            is_done = "killed" not in second_process.answer()
            ended = {token.id for token in runner.tokens() if token.revoked_at is not None}
            # What stands in the file without having been acknowledged has its lines, too.
            yield [("token.revoke", one) for one in family if is_done or one in ended]
    finally:
        second_process.close()
