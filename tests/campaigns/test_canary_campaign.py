"""Secrets that are watched: sent in every form, into every kind of failure, at the most talkative log level, and then looked
for wherever the gateway writes anything. What is shown by design is a secret's first 14 characters, and mask's few.

Full length: GATEWAY_TEST_CAMPAIGN=full, every form on every path; else every form on some, every path by some.
"""

import asyncio
import base64
import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Coroutine, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack
from itertools import count
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import pytest

from gateway.core.clock import SteadyClock
from gateway.tokens import secret
from gateway.tokens.changes import TokenSpec
from gateway.tokens.models import Role
from gateway.tokens.service import TokenService
from gateway.tokens.stores.json_file import JsonTokenFile
from tests.campaigns.life import TOKENS, AuditLog, Needles, audit_path
from tests.support.gateway import CHAT, ROOT, STREAM, Process, gateway_process, token_manager
from tests.support.tokens import BY, freegpt
from tests.support.upstream import Connection, Received, Upstream, answer, running_upstream
from tests.support.wire import connected, request

FULL = os.environ.get("GATEWAY_TEST_CAMPAIGN") == "full"
SHARE = 1 if FULL else 41
"""Not near a multiple of the number of ways: else each form takes the same few."""
AT_A_TIME = 16
ENVIRONMENT = "sk-" + "".join(random.Random(3).choices("abcdefghijkmnpqrstuvwxyz0123456789", k=45))
UPSTREAM = "sk-" + "".join(random.Random(4).choices("abcdefghijkmnpqrstuvwxyz0123456789", k=45))
FOREIGN = "".join(random.Random(2).choices("!#$*()[]{}<>|^~ab12-_.:/@+=", k=60))
IMPORTED = "".join(random.Random(5).choices("!#$*()[]{}<>|^~ab12-_.:/@+=", k=60))
ODD_KEYS = (r'env"Key\with+odd/chars=%41&~0123456789abcdefghij', r'up"Key\of+the/upstream=%41&~9876543210jihgfedcba')
PLAIN_KEYS = ("environmentKeyGhT5wq8ZxN2vR7mLk4PsD9jC", "upstreamKeyVb3nY6tUe1oWi0aXf8Qz5rMh2")
RUNS = [("openai", "json"), ("bug", "console"), ("openai", "console"), ("bug", "json")]
ALL_STATUSES = {"200", "400", "401", "403", "404", "405", "413", "415", "429", "500", "502", "503"}

pytestmark = [pytest.mark.campaign, pytest.mark.timeout(1800)]

Headers = Sequence[tuple[str, str]]
Secrets = dict[str, str]
"""By a name to report."""

JSON = ("Content-Type", "application/json")
CLOSE = ("Connection", "close")
FAIL = "X-Stainless-Fail"
"""It goes upstream, and tells it how to misbehave."""


class Form(NamedTuple):
    """How a secret is sent: headers, and what is put behind the target."""

    headers: Headers
    query: str = ""


def basic(text: str) -> str:
    return "Basic " + base64.b64encode(text.encode()).decode()


def forms(text: str) -> list[Form]:
    encoded = "".join(f"%{ord(char):02X}" for char in text)
    quoted = quote(text, safe="")
    bearer = ("Authorization", f"Bearer {text}")
    names = ("X-API-Key", "X-API-Token", "API-Token", "api-key", "x-goog-api-key")
    return [
        Form([bearer]),
        Form([("authorization", f"bEARER   {text}")]),
        *(Form([(name, text)]) for name in names),
        Form([], f"token={quoted}"),
        Form([], f"a=b&%74oken={encoded}&c=d"),
        Form([], f"Token={encoded};x=y"),
        Form([], f"token={quoted}&token={quoted}"),
        Form([("Sec-WebSocket-Protocol", f"realtime, openai-insecure-api-key.{text}")]),
        Form([bearer, bearer]),
        Form([bearer, ("X-API-Key", "sk-another-made-up-key")]),
        Form([("X-API-Key", text)], f"token={quote(text[::-1], safe='')}"),
        *(Form([("Authorization", basic(f"{user}{text}"))]) for user in ("", ":", "u:", "us:")),
        Form([("Authorization", text)]),
        Form([("Authorization", f"Token {text}")]),
        Form([("Authorization", f"Bearer {text} {text}")]),
        Form([("Authorization", f"Bearer {text}\xff")]),
        Form([("X-API-Key", text * 12)]),
        Form([("Cookie", f"session={text}; token={text}"), bearer]),
        Form([("Referer", f"http://localhost/?token={text}"), ("X-API-Key", text)]),
        Form([("Proxy-Authorization", f"Bearer {text}"), ("X-API-Key", text)]),
    ]


class Way(NamedTuple):
    """A request that fails in its own way."""

    method: str
    target: str
    body: bytes | None = None
    headers: Headers = ()

    def with_form(self, form: Form) -> bytes:
        mark = "&" if "?" in self.target else "?"
        target = self.target + (mark + form.query if form.query else "")
        kind = [JSON] if self.body is not None else []
        return request(self.method, target, [*form.headers, *self.headers, *kind, CLOSE], self.body)


COMPLETIONS = "/v1/chat/completions"
CHECK = b'{"model":"m"}'
WAYS = [
    Way("GET", "/healthz"),
    Way("GET", "/v1/models"),
    Way("GET", "/v1/models/nowhere"),
    Way("GET", "/nowhere"),
    Way("GET", "/v1/../api"),
    Way("DELETE", "/v1/models"),
    Way("OPTIONS", COMPLETIONS),
    Way("GET", "/metrics", None, [("X-Forwarded-For", "203.0.113.9")]),
    *(Way("POST", COMPLETIONS, body) for body in (b"{", b'{"model":"a","model":"b"}', b"{}", b"x" * 1_200_000)),
    Way("POST", COMPLETIONS, b"\x1f\x8b", [("Content-Encoding", "gzip")]),
    Way("POST", COMPLETIONS, CHAT, [("Expect", "something")]),
    *(
        Way("POST", COMPLETIONS, CHAT, [(FAIL, how)])
        for how in ("not", "echo", "wrapped", "in disguise", "html", "close", "nonsense", "stall")
    ),
    *(Way("POST", COMPLETIONS, STREAM, [(FAIL, how)]) for how in ("echo", "cut", "hold", "told")),
    Way("POST", "/v1/files", b"a file", [("Content-Type", "text/plain"), (FAIL, "echo")]),
    Way("GET", "/v1/realtime?model=x", None, [("Upgrade", "websocket"), ("Connection", "upgrade")]),
    Way("GET", "/api/tokens"),
    Way("GET", "/api/tokens?unknown=1"),
    Way("GET", "/api/tokens/tok_nowhere"),
    Way("POST", "/api/tokens", b'{"name":"x","role":"root"}'),
    Way("POST", "/api/tokens", b'{"name":"x","role":"admin","expires_in":"0"}'),
    Way("PATCH", "/api/tokens/tok_nowhere", b'{"hash":"x"}'),
    Way("GET", "/api/user/key/nobody@example.com"),
    Way("GET", "/api/me"),
    Way("POST", "/api/check", CHECK),
    Way("POST", "/api/check", b'{"model":"m","tokens":"all"}'),
    Way("GET", "/api/usage?group_by=token&format=csv"),
]  # fmt: skip


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


class Haul:
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
        needles = Needles(secrets)
        found = [
            f"{name} in {place}" for place, data in self.places.items() for name in sorted(needles.found(bytes(data)))
        ]
        hits = [one for one in found if one not in but]
        assert not hits, f"{len(hits)} hits:\n" + "\n".join(hits)


class Asker:
    """Sends requests, each on a connection of its own, and keeps the answers."""

    def __init__(self, gateway: Process, haul: Haul) -> None:
        self.gateway = gateway
        self.haul = haul
        self._free = asyncio.Semaphore(AT_A_TIME)

    async def send(self, data: bytes, place: str = "answers") -> bytes:
        """The whole answer. The client stays until then: whoever has gone is not answered any more."""
        async with self._free, connected(self.gateway.port) as client, asyncio.timeout(30):
            await client.send(data)
            said = await client.until_closed()
        self.haul.statuses[said[9:12].decode("latin-1") or "none"] += 1
        self.haul.add(place, said)
        return said

    async def send_all(self, requests: Iterable[bytes]) -> None:
        waiting: list[Coroutine[object, object, bytes]] = [self.send(data) for data in requests]
        await asyncio.gather(*waiting)

    async def made(self, key: str, target: str, body: bytes) -> dict[str, str]:
        """The answer that shows a secret: the only one in which it may stand."""
        said = await self.send(Way("POST", target, body).with_form(Form([("X-API-Key", key)])), "shown")
        self.haul.places.pop("shown")
        return dict(json.loads(said.partition(b"\r\n\r\n")[2]))


def all_requests(secrets: Secrets) -> Iterator[bytes]:
    """Each form on each path; in short every path for the first secret, and of the rest one in so many."""
    numbers = count()
    for which, text in enumerate(secrets.values()):
        for how, form in enumerate(forms(text)):
            is_first = which == how == 0
            yield from (way.with_form(form) for way in WAYS if next(numbers) % SHARE == 0 or is_first)


def bad_http(text: str) -> Iterator[bytes]:
    """What no parser takes for a request."""
    start = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    raw = text.encode()
    yield start + b"X-API-Key: %s\r\nbroken line\r\n\r\n" % raw
    yield start + b"X-API-Key: %s\x00\r\n\r\n" % raw
    yield start + b"X-API-Key : %s\r\n\r\n" % raw
    yield start + b"Authorization: Bearer\r\n %s\r\n\r\n" % raw
    yield start + b"%s\r\n\r\n" % raw
    yield b"GET /?token=%s HTTP/9.9\r\n\r\n" % raw
    yield b"%s / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % raw
    yield b"%s\r\n\r\n" % raw


def public_bodies(text: str) -> Iterator[bytes]:
    """Where a secret is what is asked about. The good requests do nothing to it."""
    said = json.dumps(text).encode()
    bodies = [b'{"token":%s}' % said, b'{"token":[%s]}' % said, b'{"token":%s,"token":%s}' % (said, said)]
    bodies += [b'{"token":%s' % said, b"token=%s" % quote(text).encode(), b'{"token":%s,"x":1}' % said]
    for body in bodies:
        yield Way("POST", "/api/tokens/validate", body).with_form(Form([]))
    for body in bodies[1:]:
        yield Way("POST", "/api/tokens/revoke", body).with_form(Form([]))
    yield Way("POST", "/api/tokens/revoke", b"{}").with_form(Form([], f"token={quote(text, safe='')}"))


def own_text(text: str, key: str) -> Iterator[bytes]:
    """A secret where a client's own text belongs, also where a log cuts long texts off. Only what looks like a secret, or was
    configured, can be known for one there. The upstream is not asked to repeat it."""
    quoted, said = quote(text, safe=""), json.dumps(text).encode()
    admin = Form([("Authorization", f"Bearer {key}")])
    paths = [
        "/{}",
        "/v1/models/{}",
        "/v1/files/{}",
        "/v1/engines/{}/x",
        "/engines/{}/chat/completions",
        "/api/tokens/{}",
    ]
    paths += ["/api/user/key/{}", "/api/tokens?{}=1", "/api/tokens?status={}", "/api/tokens?name={}", "/v1/x?key={}"]
    paths += ["/api/usage?{}=1", "/api/usage?from={}", "/api/usage?group_by={}"]
    silent = (FAIL, "close")
    for path in paths:
        yield Way("GET", path.format(quoted), None, [silent]).with_form(admin)
    for length in range(150, 200, 5):
        yield Way("GET", "/v1/models/" + "p" * length + quoted, None, [silent]).with_form(admin)
        yield Way("GET", "/api/me", None, [("X-Client-Request-Id", "i" * length + text)]).with_form(admin)
        body = json.dumps({"model": "m" * length + text}).encode()
        yield Way("POST", COMPLETIONS, body, [silent]).with_form(admin)
    yield Way("GET", "/api/me", None, [("User-Agent", text), ("X-Forwarded-For", text)]).with_form(admin)
    fields = (b"{%s:1}", b'{"name":"x","role":%s}', b'{"name":"x","expires_in":%s}', b'{"name":"x","parent_id":%s}')
    fields += (b'{"name":"x","prefix":%s}', b'{"name":"x","owner":%s}', b'{"name":"x","limits":{%s:1}}')
    for field in fields:
        yield Way("POST", "/api/tokens", field % said).with_form(admin)
    for field in (b'{"model":%s}', b'{"model":"m",%s:1}', b'{"model":"m","endpoint":%s}', b'{"model":"m","tokens":%s}'):
        yield Way("POST", "/api/check", field % said).with_form(admin)


def service_at(folder: Path) -> TokenService:
    clock = SteadyClock()
    return TokenService(JsonTokenFile(folder / TOKENS), AuditLog(audit_path(folder), clock), clock)


def make_secrets(folder: Path) -> Secrets:
    service = service_at(folder)
    wishes = {"living": {}, "revoked": {}, "test": {"prefix": "sk_test_"}, "service": {"role": Role.SERVICE}}
    wishes |= {"limited": {"models": ("none",)}, "expired": {"expires_at": int(time.time()) - 5}}
    found = {name: service.create(BY, TokenSpec(name=name, **spec)).secret for name, spec in wishes.items()}
    service.revoke(BY, found["revoked"])
    found["replaced"] = service.create(BY, TokenSpec(name="rotated", owner="ann@example.com")).secret
    found["new"] = service.rotate(BY, found["replaced"], 3600).secret
    service.import_file(BY, json.dumps(freegpt(IMPORTED)).encode())
    mistyped = secret.generate()
    found["mistyped"] = mistyped[:-1] + ("a" if mistyped[-1] != "a" else "b")
    return found | {"unknown": secret.generate()}


# A backend whose every request is a bug that quotes what it got; and bodies that stand still are not waited for as long.
BUG = """
from gateway.http import request_body

request_body.STALL_SECONDS = 0.3

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
    (info / "entry_points.txt").write_text("[gateway.providers]\nbug = bug_backend:create\n")


def settings_for(folder: Path, upstream: Upstream, environment: str, key: str) -> dict[str, str]:
    return {
        "FREEGPT_API_KEY": environment, "GATEWAY_UPSTREAM_API_KEY": key, "GATEWAY_UPSTREAM_URL": upstream.url,
        "GATEWAY_LOG_LEVEL": "debug", "GATEWAY_MAX_BODY_MB": "1", "GATEWAY_FIRST_BYTE_TIMEOUT": "0.2",
        "GATEWAY_CHUNK_TIMEOUT": "0.2", "GATEWAY_DRAIN_SECONDS": "1", "PYTHONPATH": f"{ROOT}:{folder}",
    }  # fmt: skip


async def break_the_store(asker: Asker, secrets: Secrets, folder: Path) -> None:
    """An audit log that cannot be written; then a token file that cannot be read."""
    create = Way("POST", "/api/tokens", b'{"name":"x"}')
    log, tokens = audit_path(folder), folder / TOKENS
    kept, good = log.rename(folder / "kept"), tokens.read_bytes()
    log.mkdir()
    for text in secrets.values():
        await asker.send(create.with_form(Form([("Authorization", f"Bearer {text}")])))
    log.rmdir()
    kept.rename(log)
    tokens.write_bytes(b"{" + good)
    await until_logged(asker.gateway, "token file unusable")
    for text in secrets.values():
        await asker.send(create.with_form(Form([("Authorization", f"Bearer {text}")])))
    tokens.write_bytes(good)


async def until_logged(gateway: Process, text: str, seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        while text not in gateway.log.read_text():
            await asyncio.sleep(0.02)


async def ask_while_draining(asker: Asker, secrets: Secrets) -> None:
    """On kept connections, while an upload that stands still holds the gateway up."""
    async with AsyncExitStack() as stack:
        kept = [await stack.enter_async_context(connected(asker.gateway.port)) for _ in secrets]
        for client in kept:
            await client.send(request("GET", "/healthz"))
            await client.reply()
        upload = await stack.enter_async_context(connected(asker.gateway.port))
        held = request("POST", COMPLETIONS, [("Authorization", f"Bearer {ENVIRONMENT}"), JSON, ("Content-Length", "9")])
        await upload.send(held)
        asker.gateway.popen.send_signal(signal.SIGTERM)
        await until_logged(asker.gateway, "draining")
        for client, text in zip(kept, secrets.values(), strict=True):
            await client.send(request("GET", "/v1/models", [("Authorization", f"Bearer {text}")]))
            asker.haul.add("answers", (await client.reply()).body)


def take_files(haul: Haul, folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            haul.add(f"file {path.relative_to(folder)}", path.read_bytes())


def take_command_lines(haul: Haul) -> None:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            haul.add("command lines", path.read_bytes())
        except OSError:
            continue  # it has ended


def take_upstream(haul: Haul, requests: list[Received]) -> None:
    for received in requests:
        haul.add("upstream", received.raw_head + received.body)


async def provoke(asker: Asker, secrets: Secrets, folder: Path) -> None:
    """All of it but clients' own text. ``secrets`` gets those that are made on the way."""
    created = await asker.made(ENVIRONMENT, "/api/tokens", b'{"name":"by HTTP"}')
    rotated = await asker.made(ENVIRONMENT, f"/api/tokens/{created['id']}/rotate", b'{"grace":"1h"}')
    user_key = await asker.made(ENVIRONMENT, "/api/user/key", b'{"email":"ann@example.com"}')
    secrets |= {"created": created["token"], "rotated": rotated["token"], "user key": user_key["key"]}
    await asker.send_all(all_requests(secrets))
    take_command_lines(asker.haul)
    for text in secrets.values():
        await asker.send_all(bad_http(text))
        await asker.send_all(public_bodies(text))
    await break_the_store(asker, secrets, folder)


@pytest.mark.parametrize(("backend", "log_format"), RUNS if FULL else RUNS[:2])
async def test_no_secret_is_found_anywhere(tmp_path: Path, backend: str, log_format: str) -> None:
    secrets, haul = make_secrets(tmp_path), Haul()
    maskable = dict(secrets) | {"environment": ENVIRONMENT, "upstream key": UPSTREAM}
    secrets = {"environment": ENVIRONMENT, **secrets, "foreign": FOREIGN, "imported": IMPORTED}
    plant_bug(tmp_path)
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(running_upstream(misbehave))
        values = {**settings_for(tmp_path, upstream, ENVIRONMENT, UPSTREAM), "GATEWAY_BACKEND": backend}
        with gateway_process(tmp_path, log_format=log_format, **values) as gateway:
            asker = Asker(gateway, haul)
            await provoke(asker, secrets, tmp_path)
            take_upstream(haul, upstream.requests)
            for text in list(maskable.values())[:: 1 if FULL else 4]:
                await asker.send_all(own_text(text, ENVIRONMENT))
            metrics = Way("GET", "/metrics").with_form(Form([("api-key", ENVIRONMENT)]))
            haul.add("metrics", await asker.send(metrics))
            await stack.aclose()  # from now on the upstream cannot be reached
            await asker.send_all(WAYS[14].with_form(Form([("api-key", text)])) for text in secrets.values())
            await ask_while_draining(asker, secrets)
            gateway.stop()
    take_files(haul, tmp_path)
    secrets["upstream key"] = UPSTREAM
    told = ", ".join(f"{number} × {status}" for status, number in sorted(haul.statuses.items()))
    print(f"\ncampaign canaries, {log_format}, {backend}: {len(secrets)} secrets, {haul.statuses.total()} requests ({told}), "
          f"{len(upstream.requests)} of them upstream, {haul.size} bytes searched in {len(haul.places)} places")  # fmt: skip
    check_that_it_happened(haul, backend)
    haul.check(secrets, but=["upstream key, plain in upstream"])


def check_that_it_happened(haul: Haul, backend: str) -> None:
    """A campaign whose requests nobody answers finds nothing, either."""
    more = {"504"} if backend == "openai" else set()
    less = {"502"} if backend == "bug" else set()
    assert (ALL_STATUSES | more) - less <= haul.statuses.keys()
    assert "none" not in haul.statuses
    assert len(haul.places["file gateway.log"]) > 60 * haul.statuses.total(), "each request has its line"
    assert backend == "bug" or len(haul.places["upstream"]) > 10_000


async def test_bodies_that_stand_still_tell_no_secret(tmp_path: Path) -> None:
    secrets, haul = make_secrets(tmp_path), Haul()
    plant_bug(tmp_path)
    values = {"GATEWAY_BACKEND": "bug", "GATEWAY_LOG_LEVEL": "debug", "PYTHONPATH": f"{ROOT}:{tmp_path}"}
    with gateway_process(tmp_path, **values) as gateway:
        asker = Asker(gateway, haul)
        length = ("Content-Length", "500")
        await asker.send_all(
            request("POST", COMPLETIONS, [("api-key", text), JSON, length]) + b'{"model":"%s' % text.encode()
            for text in secrets.values()
        )
        gateway.stop()
    take_files(haul, tmp_path)
    assert haul.statuses["408"] >= 4
    haul.check(secrets)


@pytest.mark.parametrize("keys", [PLAIN_KEYS, ODD_KEYS], ids=["plain", "odd"])
@pytest.mark.parametrize("log_format", ["json", "console"] if FULL else ["json"])
async def test_configured_secrets_are_masked_however_they_are_spelt(
    tmp_path: Path, log_format: str, keys: tuple[str, str]
) -> None:
    """Of no known form, perhaps with quotes, backslashes and what has to be percent-encoded; cut off by the log in the middle;
    quoted by the upstream that it was shown to."""
    environment, key = keys
    secrets, haul = {"environment": environment, "upstream key": key}, Haul()
    async with running_upstream(misbehave) as upstream:
        values = settings_for(tmp_path, upstream, environment, key)
        with gateway_process(tmp_path, log_format=log_format, **values) as gateway:
            asker = Asker(gateway, haul)
            await asker.send_all(way.with_form(form) for form in forms(environment) for way in WAYS)
            haul.places["answers to credentials"] = haul.places.pop("answers")
            for text in secrets.values():
                await asker.send_all(own_text(text, environment))
            gateway.stop()
    take_files(haul, tmp_path)
    haul.check(secrets)


@pytest.mark.parametrize("log_format", ["json", "console"])
async def test_a_secret_for_a_name_is_masked_in_the_log(tmp_path: Path, log_format: str) -> None:
    """A name is its giver's own text: it stands in the file and in lists as it was given. A log goes to other people."""
    service, haul = service_at(tmp_path), Haul()
    pasted = service.create(BY, TokenSpec(name="living")).secret
    named = service.create(BY, TokenSpec(name=pasted)).secret
    with gateway_process(tmp_path, log_format=log_format, GATEWAY_LOG_LEVEL="debug") as gateway:
        for target in ("/api/me", "/nowhere", "/v1/models"):
            await Asker(gateway, Haul()).send(Way("GET", target).with_form(Form([("api-key", named)])))
        gateway.stop()
    haul.add("log", gateway.log.read_bytes())
    haul.check({"as a name": pasted, "named": named})


DAMAGES = (
    '{%(text)s:%(item)s,%(text)s:%(item)s}', '{%(text)s:{"name":"x","active":1}}', '{%(text)s:', '[%(text)s]',
    '{%(text)s:{"name":"","created_at":"x","last_used":null,"active":true}}', '{"version":%(text)s,"tokens":[]}',
    '{"version":1,"tokens":[{"id":%(text)s}]}', '{"version":1,"tokens":[{%(text)s:1}]}',
)  # fmt: skip


async def test_a_damaged_file_tells_no_secret(tmp_path: Path) -> None:
    """FreeGPT's files hold secrets in clear, also short ones of people's own: whoever mends one by hand makes mistakes."""
    secrets, haul = {"long": "d" + secret.generate()[4:], "short": "dshortsecret18abcd"}, Haul()
    with gateway_process(tmp_path, FREEGPT_API_KEY=ENVIRONMENT, GATEWAY_LOG_LEVEL="debug") as gateway:
        asker = Asker(gateway, haul)
        for number, text in enumerate(secrets.values()):
            for damage in DAMAGES:
                item = json.dumps(next(iter(freegpt(text).values())))
                (tmp_path / TOKENS).write_text(damage % {"text": json.dumps(text), "item": item})
                create = Way("POST", "/api/tokens", b'{"name":"x"}').with_form(Form([("api-key", ENVIRONMENT)]))
                assert (await asker.send(create))[9:12] == b"503", (number, damage)
                await asker.send(Way("GET", "/readyz").with_form(Form([])))
                said = token_manager(tmp_path, "list")
                haul.add("command line", said.stdout + said.stderr)
        gateway.stop()
    haul.add("log", gateway.log.read_bytes())
    haul.check(secrets)


def test_the_command_line_shows_a_secret_once(tmp_path: Path) -> None:
    haul, secrets = Haul(), {}
    for name, command in {"created": ["create", "by hand"], "rotated": ["rotate", "by hand", "--grace", "1h"]}.items():
        said = token_manager(tmp_path, *command, "--json")
        secrets[name] = json.loads(said.stdout)["token"]
        assert said.stdout.count(secrets[name].encode()) == 1
        haul.add("complaints", said.stderr)
    foreign = token_manager(tmp_path, "import", "-", stdin=json.dumps(freegpt(FOREIGN)).encode())
    haul.add("import", foreign.stdout + foreign.stderr)
    secrets["imported"] = FOREIGN
    for command in ("list", "list --json", "show tok_none", "usage", "audit", "audit --json", "audit --verify"):
        said = token_manager(tmp_path, *command.split())
        haul.add(command, said.stdout + said.stderr)
    for text in secrets.values():
        said = token_manager(tmp_path, "verify", "--json", stdin=text.encode())
        assert said.returncode == 0
        haul.add("verify", said.stdout + said.stderr)
    take_files(haul, tmp_path)
    haul.check(secrets)
