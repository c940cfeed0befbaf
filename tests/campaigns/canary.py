"""Gateways whose secrets are watched: an upstream that misbehaves, and all that is said or written, collected."""

import asyncio
import json
import signal
import time
from collections import Counter
from collections.abc import Coroutine, Iterable
from contextlib import AsyncExitStack
from pathlib import Path

from gateway.core.clock import SteadyClock
from gateway.tokens import secret
from gateway.tokens.changes import TokenSpec
from gateway.tokens.models import Role
from tests.campaigns.canary_requests import (
    AT_A_TIME,
    COMPLETIONS,
    ENVIRONMENT,
    FAIL,
    IMPORTED,
    JSON,
    FailingRequest,
    Form,
    Secrets,
)
from tests.campaigns.life import TOKENS, AuditLog, audit_path
from tests.campaigns.secret_search import SecretSearch
from tests.support.gateway import ROOT, Process
from tests.support.tokens import BY, TokenEditor, freegpt
from tests.support.upstream import Connection, Received, Upstream, answer
from tests.support.wire import connected, request


async def misbehave(received: Received, connection: Connection) -> None:
    """An upstream that gives back all that it was sent, breaks off, or says nothing."""
    how = received.header(FAIL) or "echo"
    said = json.dumps(received.raw_head.decode("latin-1")).encode()
    shown = (received.header("Authorization") or "").encode()
    headers = b"retry-after: %s\r\nx-request-id: %s\r\n" % (shown, shown)
    bodies = {
        "not": (b'{"id":"x","choices":[]}', "200 OK"),
        "echo": (b'{"error":{"message":%s,"type":"x","param":null,"code":null}}' % said, "400 Bad Request"),
        "wrapped": (b'{"detail":%s}' % said, "422 Unprocessable"),
        "in disguise": (
            b'{"error":{"message":%s}}' % json.dumps("x" * 270 + shown.decode().removeprefix("Bearer ")).encode(),
            "200 OK",
        ),
        "html": (b"<html>" + received.raw_head + received.body, "500 Oops"),
    }
    if how in bodies:
        await connection.send(answer(*bodies[how], "text/html" if how == "html" else "application/json", headers))
    elif how == "nonsense":
        await connection.send(b"nonsense " + received.raw_head)
    elif how == "stall":
        await connection.wait_closed()
    elif how in ("cut", "told", "hold"):
        await begin_to_stream(how, said, connection)
    else:
        connection.reset()


async def begin_to_stream(how: str, said: bytes, connection: Connection) -> None:
    await connection.start_stream()
    await connection.chunk(b'data: {"choices":[{"index":0,"delta":{"content":"Hi"},"finish_reason":null}]}\n\n')
    if how == "told":
        await connection.chunk(b'data: {"error":{"message":%s}}\n\n' % said)
    if how == "hold":
        await connection.wait_closed()
    connection.reset()


class Collected:
    """Everything that was said or written, by the place where it was."""

    def __init__(self) -> None:
        self.places: dict[str, bytearray] = {}
        self.statuses: Counter[str] = Counter()

    def add(self, place: str, data: bytes) -> None:
        self.places.setdefault(place, bytearray()).extend(data + b"\n")

    @property
    def size(self) -> int:
        return sum(map(len, self.places.values()))

    def check(self, secrets: Secrets, but: Iterable[str] = ()) -> None:
        """That none of them is anywhere, ``but`` where it is meant to be."""
        needles = SecretSearch(secrets)
        found = [
            f"{name} in {place}" for place, data in self.places.items() for name in sorted(needles.found(bytes(data)))
        ]
        hits = [one for one in found if one not in but]
        assert not hits, f"{len(hits)} hits:\n" + "\n".join(hits)


class Sender:
    """Sends requests, each on a connection of its own, and keeps the answers."""

    def __init__(self, gateway: Process, collected: Collected) -> None:
        self.gateway = gateway
        self.collected = collected
        self._free = asyncio.Semaphore(AT_A_TIME)

    async def send(self, data: bytes, place: str = "answers") -> bytes:
        """The whole answer. The client stays until then: whoever has gone is not answered any more."""
        async with self._free, connected(self.gateway.port) as client, asyncio.timeout(30):
            await client.send(data)
            said = await client.until_closed()
        self.collected.statuses[said[9:12].decode("latin-1") or "none"] += 1
        self.collected.add(place, said)
        return said

    async def send_all(self, requests: Iterable[bytes]) -> None:
        waiting: list[Coroutine[object, object, bytes]] = [self.send(data) for data in requests]
        await asyncio.gather(*waiting)

    async def create(self, key: str, target: str, body: bytes) -> dict[str, str]:
        """The answer that shows a secret: the only one in which it may stand."""
        said = await self.send(FailingRequest("POST", target, body).with_form(Form([("X-API-Key", key)])), "shown")
        self.collected.places.pop("shown")
        return dict(json.loads(said.partition(b"\r\n\r\n")[2]))


def editor_at(folder: Path) -> TokenEditor:
    clock = SteadyClock()
    return TokenEditor(folder / TOKENS, clock, AuditLog(audit_path(folder), clock))


def make_secrets(folder: Path) -> Secrets:
    service = editor_at(folder)
    specs = {"living": {}, "revoked": {}, "test": {"prefix": "sk_test_"}, "service": {"role": Role.SERVICE}}
    specs |= {"limited": {"models": ("none",)}, "expired": {"expires_at": int(time.time()) - 5}}
    found = {name: service.create(BY, TokenSpec(name=name, **spec)).secret for name, spec in specs.items()}
    service.revoke(BY, found["revoked"])
    found["replaced"] = service.create(BY, TokenSpec(name="rotated", owner="ann@example.com")).secret
    found["new"] = service.rotate(BY, found["replaced"], 3600).secret
    service.import_file(BY, json.dumps(freegpt(IMPORTED)).encode())
    mistyped = secret.generate()
    found["mistyped"] = mistyped[:-1] + ("a" if mistyped[-1] != "a" else "b")
    return found | {"unknown": secret.generate()}


# A provider whose every request raises an error that quotes what it got; and bodies that stand still are not waited for as long.
BUG = """
from gateway.http import request as http_request

http_request.STALL_SECONDS = 0.3

def create(config):
    return BrokenProvider()

class BrokenProvider:
    name = "bug"
    async def send(self, request):
        raise RuntimeError(f"{request!r} {request.headers!r}")
    async def models(self):
        raise RuntimeError("models")
    async def aclose(self):
        pass
"""


def plant_bug(folder: Path) -> None:
    (folder / "bug_backend.py").write_text(BUG)
    info = folder / "bug-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: bug\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[gateway.providers]\nbug = bug_backend:create\n")


def settings_for(folder: Path, upstream: Upstream, environment: str, key: str) -> dict[str, str]:
    return {
        "FREEGPT_API_KEY": environment, "GATEWAY_UPSTREAM_API_KEY": key, "GATEWAY_UPSTREAM_URL": upstream.url,
        "GATEWAY_LOG_LEVEL": "debug", "GATEWAY_MAX_BODY_MB": "1", "GATEWAY_FIRST_BYTE_TIMEOUT": "0.2",
        "GATEWAY_CHUNK_TIMEOUT": "0.2", "GATEWAY_DRAIN_SECONDS": "1", "PYTHONPATH": f"{ROOT}:{folder}",
    }  # fmt: skip


async def break_the_store(sender: Sender, secrets: Secrets, folder: Path) -> None:
    """An audit log that cannot be written; then a token file that cannot be read."""
    create = FailingRequest("POST", "/api/tokens", b'{"name":"x"}')
    log, tokens = audit_path(folder), folder / TOKENS
    kept, good = log.rename(folder / "kept"), tokens.read_bytes()
    log.mkdir()
    for text in secrets.values():
        await sender.send(create.with_form(Form([("Authorization", f"Bearer {text}")])))
    log.rmdir()
    kept.rename(log)
    tokens.write_bytes(b"{" + good)
    await until_logged(sender.gateway, "token file unusable")
    for text in secrets.values():
        await sender.send(create.with_form(Form([("Authorization", f"Bearer {text}")])))
    tokens.write_bytes(good)


async def until_logged(gateway: Process, text: str, seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        while text not in gateway.log.read_text():
            await asyncio.sleep(0.02)


async def ask_while_draining(sender: Sender, secrets: Secrets) -> None:
    """On kept connections, while an upload that stands still holds the gateway up."""
    async with AsyncExitStack() as stack:
        kept = [await stack.enter_async_context(connected(sender.gateway.port)) for _ in secrets]
        for client in kept:
            await client.send(request("GET", "/healthz"))
            await client.reply()
        upload = await stack.enter_async_context(connected(sender.gateway.port))
        head = request("POST", COMPLETIONS, [("Authorization", f"Bearer {ENVIRONMENT}"), JSON, ("Content-Length", "9")])
        await upload.send(head)
        sender.gateway.popen.send_signal(signal.SIGTERM)
        await until_logged(sender.gateway, "draining")
        for client, text in zip(kept, secrets.values(), strict=True):
            await client.send(request("GET", "/v1/models", [("Authorization", f"Bearer {text}")]))
            sender.collected.add("answers", (await client.reply()).body)


def take_files(collected: Collected, folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            collected.add(f"file {path.relative_to(folder)}", path.read_bytes())


def take_command_lines(collected: Collected) -> None:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            collected.add("command lines", path.read_bytes())
        except OSError:
            continue  # it has ended


def take_upstream(collected: Collected, requests: list[Received]) -> None:
    for received in requests:
        collected.add("upstream", received.raw_head + received.body)
