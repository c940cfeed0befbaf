"""Secrets that are watched: sent in every form, into every kind of failure, at the most talkative log level, and then looked
for wherever the gateway writes anything. What is shown by design is a secret's first 14 characters, and mask's few.

Full length: GATEWAY_TEST_CAMPAIGN=full, every form on every path; else every form on some, every path by some.
"""

import asyncio
import base64
import os
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import pytest

from gateway.audit.journal import AuditLog
from gateway.clock import SteadyClock
from gateway.tokens import secret
from gateway.tokens.changes import TokenWish
from gateway.tokens.service import TokenService
from gateway.tokens.token_file import TokenFile
from tests.support.gateway import ROOT, Process, gateway_process, token_manager
from tests.support.tokens import BY
from tests.support.upstream import Connection, Received, Upstream, answer, running_upstream
from tests.support.wire import CHAT, STREAM, connected, request

FULL = os.environ.get("GATEWAY_TEST_CAMPAIGN") == "full"
SHARE = 1 if FULL else 7
PIECE = 12
SHOWN = secret.DISPLAY_LENGTH

pytestmark = [pytest.mark.campaign, pytest.mark.timeout(900)]

Headers = Sequence[tuple[str, str]]


class Form(NamedTuple):
    """How a secret is sent: headers, and what is put behind the target."""

    headers: Headers
    query: str = ""


def forms(text: str) -> list[Form]:
    encoded = "".join(f"%{ord(char):02X}" for char in text)
    basic = base64.b64encode(f":{text}".encode()).decode()
    plain = [
        ("X-API-Key", text),
        ("X-API-Token", text),
        ("API-Token", text),
        ("api-key", text),
        ("x-goog-api-key", text),
    ]
    return [
        Form([("Authorization", f"Bearer {text}")]),
        Form([("authorization", f"bEARER {text}")]),
        *(Form([header]) for header in plain),
        Form([], f"token={quote(text, safe='')}"),
        Form([], f"a=b&token={encoded}&c=d"),
        Form([], f"Token={encoded};x=y"),
        Form([("Sec-WebSocket-Protocol", f"realtime, openai-insecure-api-key.{text}")]),
        Form([("Authorization", f"Bearer {text}"), ("Authorization", f"Bearer {text}")]),
        Form([("Authorization", f"Bearer {text}"), ("X-API-Key", "sk-another-made-up-key")]),
        Form([("X-API-Key", text)], f"token={quote(text[::-1], safe='')}"),
        Form([("Authorization", f"Basic {basic}")]),
        Form([("Authorization", text)]),
        Form([("Authorization", f"Bearer {text}\xff")]),
        Form([("Cookie", f"session={text}"), ("Authorization", f"Bearer {text}")]),
        Form([("Referer", f"http://localhost/?token={text}"), ("X-API-Key", text)]),
        Form([("Proxy-Authorization", f"Bearer {text}"), ("X-API-Key", text)]),
    ]


class Way(NamedTuple):
    """A request that fails in its own way."""

    method: str
    target: str
    body: bytes | None = None
    headers: Headers = ()


JSON = ("Content-Type", "application/json")
WAYS = [
    Way("GET", "/v1/models"),
    Way("GET", "/v1/models/nowhere"),
    Way("GET", "/nowhere"),
    Way("GET", "/v1/../api"),
    Way("DELETE", "/v1/models"),
    Way("GET", "/metrics", None, [("X-Forwarded-For", "203.0.113.9")]),
    Way("POST", "/v1/chat/completions", b"{"),
    Way("POST", "/v1/chat/completions", b'{"model":"a","model":"b"}'),
    Way("POST", "/v1/chat/completions", b"{}"),
    Way("POST", "/v1/chat/completions", b"x" * 1_200_000),
    Way("POST", "/v1/chat/completions", b"\x1f\x8b", [("Content-Encoding", "gzip")]),
    Way("POST", "/v1/chat/completions", CHAT, [("Expect", "something")]),
    *(Way("POST", "/v1/chat/completions", CHAT, [("X-Fail", how)]) for how in ("echo", "html", "close", "nonsense", "stall")),
    *(Way("POST", "/v1/chat/completions", STREAM, [("X-Fail", how)]) for how in ("echo", "cut", "stall", "told")),
    Way("POST", "/v1/files", b"a file", [("Content-Type", "text/plain"), ("X-Fail", "echo")]),
    Way("GET", "/v1/realtime?model=x", None, [("Upgrade", "websocket"), ("Connection", "upgrade")]),
    Way("GET", "/api/tokens"),
    Way("GET", "/api/tokens?unknown=1"),
    Way("GET", "/api/tokens/tok_nowhere"),
    Way("POST", "/api/tokens", b'{"name":"x","role":"root"}'),
    Way("POST", "/api/tokens", b'{"name":"x","role":"admin"}'),
    Way("PATCH", "/api/tokens/tok_nowhere", b'{"hash":"x"}'),
    Way("GET", "/api/user/key/nobody@example.com"),
    Way("GET", "/api/me"),
]  # fmt: skip


async def misbehave(received: Received, connection: Connection) -> None:
    """An upstream that gives back all that it was sent, breaks off, or says nothing."""
    how = received.header("X-Fail") or "echo"
    if how == "close":
        connection.reset()
    elif how == "nonsense":
        await connection.send(b"nonsense " + received.raw_head)
    elif how == "stall":
        await connection.wait_closed()
    elif how == "html":
        await connection.send(answer(b"<html>" + received.raw_head + received.body, "500 Oops", "text/html"))
    elif how in ("cut", "told"):
        await connection.start_stream()
        await connection.chunk(b'data: {"choices":[{"index":0,"delta":{"content":"Hi"},"finish_reason":null}]}\n\n')
        if how == "told":
            await connection.chunk(b'data: {"error":{"message":"%r"}}\n\n' % received.target.encode())
        connection.reset()
    else:
        body = (
            b'{"error":{"message":"%s","type":"x","param":null,"code":null}}'
            % repr(received.headers).replace('"', "").encode()
        )
        await connection.send(answer(body, "400 Bad Request"))


def needles(text: str) -> set[bytes]:
    """A secret in all the forms in which it must not be found."""
    raw = text.encode()
    found = {
        raw,
        quote(text, safe="").encode(),
        *(raw[at : at + PIECE] for at in range(SHOWN - PIECE + 1, len(raw) - PIECE + 1)),
    }
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        for shift in range(3):
            # Without the ends, which depend on what stands beside it; and without what encodes the display prefix.
            found.add(encode(b"\0" * shift + raw)[24 + shift : -4])
    return found


class Haul:
    """Everything that was said or written, by the place where it was."""

    def __init__(self) -> None:
        self.places: dict[str, bytearray] = {}
        self.requests = 0

    def add(self, place: str, data: bytes) -> None:
        self.places.setdefault(place, bytearray()).extend(data + b"\n")

    @property
    def size(self) -> int:
        return sum(map(len, self.places.values()))

    def hits(self, canaries: dict[str, str]) -> list[str]:
        """Each with what stands around it."""
        return [
            f"{name} in {place}: {bytes(data[max(0, at - 80) : at + 80])!r}"
            for name, text in canaries.items()
            for needle in needles(text)
            for place, data in self.places.items()
            if (at := data.find(needle)) >= 0
        ]


async def send(gateway: Process, haul: Haul, data: bytes, place: str = "answers") -> bytes:
    """The whole answer, until the connection ends."""
    async with connected(gateway.port) as client:
        await client.send(data)
        client.writer.write_eof()
        async with asyncio.timeout(20):
            said = await client.until_closed()
    haul.requests += 1
    haul.add(place, said)
    return said


def all_requests(canaries: dict[str, str]) -> Iterator[bytes]:
    chance = random.Random(1)
    for text in canaries.values():
        for form in forms(text):
            for path in WAYS:
                if chance.randrange(SHARE) == 0:
                    mark = "&" if "?" in path.target else "?"
                    target = path.target + (mark + form.query if form.query else "")
                    headers = [*form.headers, *path.headers, *([JSON] if path.body else []), ("Connection", "close")]
                    yield request(path.method, target, headers, path.body)


def of_our_form(canaries: dict[str, str]) -> Iterator[bytes]:
    """Secrets where a client's own text belongs. Only what looks like a secret can be known for one there."""
    for text in canaries.values():
        bearer = [("Authorization", f"Bearer {text}"), ("Connection", "close")]
        yield request("GET", f"/v1/models/{text}", bearer)
        yield request("GET", f"/{text}", bearer)
        yield request("GET", f"/api/tokens/{text}", bearer)
        yield request("GET", f"/api/tokens?{text}=1", bearer)
        yield request("GET", "/api/me", [*bearer, ("X-Client-Request-Id", text)])
        body = b'{"%s":1,"name":"x"}' % text.encode()
        yield request("POST", "/api/tokens", [*bearer, JSON], body)
        yield request(
            "POST", "/v1/chat/completions", [*bearer, JSON, ("X-Fail", "close")], b'{"model":"%s"}' % text.encode()
        )
        for route in ("validate", "revoke"):
            yield request(
                "POST", f"/api/tokens/{route}", [JSON, ("Connection", "close")], b'{"token":"%s","x":1}' % text.encode()
            )
            yield request("POST", f"/api/tokens/{route}?token={text}", [JSON, ("Connection", "close")], b"{}")
            yield request(
                "POST", f"/api/tokens/{route}", [JSON, ("Connection", "close")], b'{"token":["%s"]}' % text.encode()
            )
        yield b"GET / HTTP/1.1\r\nHost: x\r\nX-API-Key: %s\r\nbroken line\r\n\r\n" % text.encode()
        yield b"%s\r\n\r\n" % text.encode()


def take_files(haul: Haul, folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            haul.add(f"file {path.relative_to(folder)}", path.read_bytes())


def take_command_lines(haul: Haul) -> None:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if b"gateway" in (line := path.read_bytes()) or b"token_manager" in line:
                haul.add("command lines", line)
        except OSError:
            continue  # it has ended


def make_canaries(folder: Path) -> dict[str, str]:
    file = TokenFile(folder / "api_tokens.json")
    service = TokenService(file, AuditLog(folder / "data" / "audit.jsonl", SteadyClock()), SteadyClock())
    living = service.create(BY, TokenWish(name="living")).secret
    replaced = service.create(BY, TokenWish(name="rotated", owner="ann@example.com"))
    revoked = service.create(BY, TokenWish(name="revoked")).secret
    service.revoke(BY, revoked)
    mistyped = secret.generate()
    return {
        "living": living,
        "replaced": replaced.secret,
        "new": service.rotate(BY, replaced.secret, 3600).secret,
        "revoked": revoked,
        "test": service.create(BY, TokenWish(name="test", prefix="sk_test_")).secret,
        "unknown": secret.generate(),
        "mistyped": mistyped[:-1] + ("a" if mistyped[-1] != "a" else "b"),
    }


BUG = """
def create(config):
    return Bug()

class Bug:
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
    (info / "entry_points.txt").write_text("[gateway.backends]\nbug = bug_backend:create\n")


async def provoke(gateway: Process, haul: Haul, canaries: dict[str, str], environment: str, folder: Path) -> None:
    """All of it, and at the end a token file that is damaged."""
    foreign = {"foreign": "".join(random.Random(2).choices("!#$*()[]{}<>|^~ab12-_.:/@+=", k=60))}
    for data in all_requests({**canaries, **foreign, "environment": environment}):
        await send(gateway, haul, data)
    for data in of_our_form({**canaries, "environment": environment}):
        await send(gateway, haul, data)
    canaries |= foreign
    bearer = [("Authorization", f"Bearer {environment}"), ("Connection", "close")]
    haul.add("metrics", await send(gateway, haul, request("GET", "/metrics", bearer)))
    (folder / "api_tokens.json").write_bytes(b"{" + (folder / "api_tokens.json").read_bytes())
    await asyncio.sleep(0.6)  # two looks of the gateway
    for text in (*canaries.values(), environment):
        headers = [("Authorization", f"Bearer {text}"), JSON, ("Connection", "close")]
        await send(gateway, haul, request("POST", "/api/tokens", headers, b'{"name":"x"}'))


@pytest.mark.parametrize("log_format", ["json", "console"])
@pytest.mark.parametrize("backend", ["openai", "bug"])
async def test_no_secret_is_found_anywhere(tmp_path: Path, log_format: str, backend: str) -> None:
    canaries = make_canaries(tmp_path)
    environment = "sk-" + "".join(random.Random(3).choices("abcdefghijkmnpqrstuvwxyz0123456789", k=45))
    plant_bug(tmp_path)
    haul = Haul()
    async with running_upstream(misbehave) as upstream:
        values = {
            "FREEGPT_API_KEY_FILE": str(tmp_path / "environment.key"), "GATEWAY_UPSTREAM_URL": upstream.url,
            "GATEWAY_LOG_LEVEL": "debug", "GATEWAY_MAX_BODY_MB": "1", "GATEWAY_FIRST_BYTE_TIMEOUT": "0.2",
            "GATEWAY_CHUNK_TIMEOUT": "0.2", "GATEWAY_BACKEND": backend, "PYTHONPATH": f"{ROOT}:{tmp_path}",
        }  # fmt: skip
        (tmp_path / "environment.key").write_text(environment)
        with gateway_process(tmp_path, log_format=log_format, **values) as gateway:
            made = token_manager(tmp_path, "create", "by hand", "--json")
            assert made.returncode == 0, made.stderr
            haul.add("complaints of the command line", made.stderr)
            await provoke(gateway, haul, canaries, environment, tmp_path)
            take_command_lines(haul)
            gateway.stop()
        take_upstream(haul, upstream)
    (tmp_path / "environment.key").unlink()
    take_files(haul, tmp_path)
    print(f"\n{log_format}, {backend}: {len(canaries) + 1} secrets, {haul.requests} requests, {haul.size} bytes searched in "
          f"{len(haul.places)} places")  # fmt: skip
    assert len(haul.places["file gateway.log"]) > 60 * haul.requests, "each request has its line"
    hits = haul.hits({**canaries, "environment": environment})
    assert not hits, f"{len(hits)} hits, the first of them:\n" + "\n".join(hits[:10])


def take_upstream(haul: Haul, upstream: Upstream) -> None:
    for received in upstream.requests:
        haul.add("upstream", received.raw_head + received.body)
