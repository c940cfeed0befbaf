"""Requests with secrets in every form, each of which fails in its own way."""

import base64
import json
import os
import random
from collections.abc import Iterator, Sequence
from itertools import count
from typing import NamedTuple
from urllib.parse import quote

from tests.support.gateway import CHAT, STREAM
from tests.support.wire import request

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


class FailingRequest(NamedTuple):
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
FAILING_REQUESTS = [
    FailingRequest("GET", "/healthz"),
    FailingRequest("GET", "/v1/models"),
    FailingRequest("GET", "/v1/models/nowhere"),
    FailingRequest("GET", "/nowhere"),
    FailingRequest("GET", "/v1/../api"),
    FailingRequest("DELETE", "/v1/models"),
    FailingRequest("OPTIONS", COMPLETIONS),
    FailingRequest("GET", "/metrics", None, [("X-Forwarded-For", "203.0.113.9")]),
    *(FailingRequest("POST", COMPLETIONS, body) for body in (b"{", b'{"model":"a","model":"b"}', b"{}", b"x" * 1_200_000)),
    FailingRequest("POST", COMPLETIONS, b"\x1f\x8b", [("Content-Encoding", "gzip")]),
    FailingRequest("POST", COMPLETIONS, CHAT, [("Expect", "something")]),
    *(
        FailingRequest("POST", COMPLETIONS, CHAT, [(FAIL, how)])
        for how in ("not", "echo", "wrapped", "in disguise", "html", "close", "nonsense", "stall")
    ),
    *(FailingRequest("POST", COMPLETIONS, STREAM, [(FAIL, how)]) for how in ("echo", "cut", "hold", "told")),
    FailingRequest("POST", "/v1/files", b"a file", [("Content-Type", "text/plain"), (FAIL, "echo")]),
    FailingRequest("GET", "/v1/realtime?model=x", None, [("Upgrade", "websocket"), ("Connection", "upgrade")]),
    FailingRequest("GET", "/api/tokens"),
    FailingRequest("GET", "/api/tokens?unknown=1"),
    FailingRequest("GET", "/api/tokens/tok_nowhere"),
    FailingRequest("POST", "/api/tokens", b'{"name":"x","role":"root"}'),
    FailingRequest("POST", "/api/tokens", b'{"name":"x","role":"admin","expires_in":"0"}'),
    FailingRequest("PATCH", "/api/tokens/tok_nowhere", b'{"hash":"x"}'),
    FailingRequest("GET", "/api/user/key/nobody@example.com"),
    FailingRequest("GET", "/api/me"),
    FailingRequest("POST", "/api/check", CHECK),
    FailingRequest("POST", "/api/check", b'{"model":"m","tokens":"all"}'),
    FailingRequest("GET", "/api/usage?group_by=token&format=csv"),
]  # fmt: skip


def all_requests(secrets: Secrets) -> Iterator[bytes]:
    """Each form on each path; in short every path for the first secret, and of the rest one in so many."""
    numbers = count()
    for which, text in enumerate(secrets.values()):
        for how, form in enumerate(forms(text)):
            is_first = which == how == 0
            yield from (
                failing.with_form(form) for failing in FAILING_REQUESTS if next(numbers) % SHARE == 0 or is_first
            )


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
        yield FailingRequest("POST", "/api/tokens/validate", body).with_form(Form([]))
    for body in bodies[1:]:
        yield FailingRequest("POST", "/api/tokens/revoke", body).with_form(Form([]))
    yield FailingRequest("POST", "/api/tokens/revoke", b"{}").with_form(Form([], f"token={quote(text, safe='')}"))


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
        yield FailingRequest("GET", path.format(quoted), None, [silent]).with_form(admin)
    for length in range(150, 200, 5):
        yield FailingRequest("GET", "/v1/models/" + "p" * length + quoted, None, [silent]).with_form(admin)
        yield FailingRequest("GET", "/api/me", None, [("X-Client-Request-Id", "i" * length + text)]).with_form(admin)
        body = json.dumps({"model": "m" * length + text}).encode()
        yield FailingRequest("POST", COMPLETIONS, body, [silent]).with_form(admin)
    yield FailingRequest("GET", "/api/me", None, [("User-Agent", text), ("X-Forwarded-For", text)]).with_form(admin)
    fields = (b"{%s:1}", b'{"name":"x","role":%s}', b'{"name":"x","expires_in":%s}', b'{"name":"x","parent_id":%s}')
    fields += (b'{"name":"x","prefix":%s}', b'{"name":"x","owner":%s}', b'{"name":"x","limits":{%s:1}}')
    for field in fields:
        yield FailingRequest("POST", "/api/tokens", field % said).with_form(admin)
    for field in (b'{"model":%s}', b'{"model":"m",%s:1}', b'{"model":"m","endpoint":%s}', b'{"model":"m","tokens":%s}'):
        yield FailingRequest("POST", "/api/check", field % said).with_form(admin)
