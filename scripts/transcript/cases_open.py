"""Open mode, with the echo for a model: what is public, and every inference endpoint."""

from collections.abc import Mapping
from typing import Any

from scripts.transcript import artefacts
from scripts.transcript.session import Section, Session

CHAT = "POST /v1/chat/completions"
HELLO: dict[str, Any] = {"model": "echo", "messages": [{"role": "user", "content": "Hello there, world! How are you?"}]}
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "FETCH")
PATHS = (
    "/healthz", "/readyz", "/metrics", "/openapi.json", "/docs", "/api/tokens/validate", "/api/tokens/revoke",
    "/api/tokens", "/api/tokens/tok_x", "/api/tokens/tok_x/revoke", "/api/tokens/tok_x/rotate", "/api/tokens/tok_x/usage",
    "/api/me", "/api/check", "/api/usage", "/api/user/key", "/api/user/key/a@b.example", "/api/user/usage/a@b.example",
    "/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses", "/v1/models", "/v1/models/echo",
    "/v1/engines/echo/completions", "/engines/echo/completions", "/openai/deployments/echo/completions", "/v1/files",
    "/", "/nothing",
)  # fmt: skip
_CHAT_FIELDS: Mapping[str, dict[str, Any]] = {
    "n": {"n": 2},
    "stop": {"stop": "world"},
    "stops": {"stop": ["How", "there"]},
    "max_tokens": {"max_tokens": 2},
    "max_completion_tokens": {"max_completion_tokens": 0},
    "stream": {"stream": True},
    "stream, n": {"stream": True, "n": 2, "max_tokens": 2},
    "stream, stop": {"stream": True, "stop": "world"},
    "stream with usage": {"stream": True, "stream_options": {"include_usage": True}},
    "stream without usage": {"stream": True, "stream_options": {"include_usage": False}},
    "stream null": {"stream": None},
    "n of 0": {"n": 0},
    "n of 129": {"n": 129},
    "n as text": {"n": "2"},
    "stop as number": {"stop": 5},
    "max_tokens below 0": {"max_tokens": -1},
    "stream as text": {"stream": "yes"},
    "an unknown model": {"model": "other"},
    "no model": {"model": None},
    "an empty model": {"model": ""},
    "model as number": {"model": 5},
    "a long model": {"model": "m" * 257},
    "no messages": {"messages": None},
    "messages as text": {"messages": "Hello"},
    "empty messages": {"messages": []},
    "key in capitals": {"Model": "echo"},
}
_CHAT_BODIES: Mapping[str, str] = {
    "no JSON": "nothing",
    "empty": "",
    "a list": "[]",
    "cut short": '{"model": "echo"',
    "a key twice": '{"model":"echo","model":"other","messages":[]}',
    "half a surrogate": '{"model":"\\ud800","messages":[{"role":"user","content":"x"}]}',
    "deep": '{"model":"echo","x":' + "[" * 2000 + "]" * 2000 + "}",
    "constant": '{"model":"echo","n":NaN}',
}
_COMPLETIONS: Mapping[str, dict[str, Any]] = {
    "text": {"prompt": "One two three"},
    "list": {"prompt": ["One", "two three"], "n": 2},
    "stream": {"prompt": "One two three", "stream": True, "stream_options": {"include_usage": True}},
    "cut": {"prompt": "One two three", "max_tokens": 1, "stream": True},
    "number": {"prompt": 5},
    "none": {},
}
_EMBEDDINGS: Mapping[str, dict[str, Any]] = {
    "text": {"input": "One two"},
    "list": {"input": ["One", "two"], "dimensions": 4},
    "base64": {"input": "One", "encoding_format": "base64", "dimensions": 4},
    "stream is ignored": {"input": "One", "stream": True, "dimensions": 2},
    "tokens": {"input": [1, 2], "dimensions": 2},
    "number": {"input": 5},
    "none": {},
    "wrong dimensions": {"input": "One", "dimensions": 0},
    "wrong format": {"input": "One", "encoding_format": "hex"},
}
_RESPONSES: Mapping[str, dict[str, Any]] = {
    "text": {"input": "One two three"},
    "messages": {"input": [{"role": "user", "content": "One two"}]},
    "cut": {"input": "One two three", "max_output_tokens": 1},
    "stream": {"input": "One two three", "stream": True},
    "stream, cut": {"input": "One two three", "stream": True, "max_output_tokens": 1},
    "number": {"input": 5},
    "none": {},
}


def record(section: Section) -> None:
    with section.serving("open mode", {}) as session:
        _public(session)
        _methods(session)
        _chat(session)
        _other_endpoints(session)
        _models_and_paths(session)
        _management(session)
    artefacts.record(section)


def _public(session: Session) -> None:
    session.ask("metrics from loopback", "GET /metrics")
    session.ask("metrics from a page of elsewhere", "GET /metrics", None, "Origin: https://elsewhere.example")
    session.ask("metrics with an unknown key", "GET /metrics", key="sk-unknown-unknown-unknown")
    session.ask("a page of elsewhere", CHAT, HELLO, "Origin: https://elsewhere.example")
    session.ask("a page of this machine", CHAT, HELLO, "Origin: http://localhost:3000")
    session.ask("a name that is not local", "GET /v1/models", None, "Host: gateway.example")
    session.ask("an address as the name", "GET /v1/models", None, "Host: 127.0.0.1")
    session.ask("forwarded from elsewhere", "GET /v1/models", None, "X-Forwarded-For: 203.0.113.7")
    session.ask("forwarded, the standard header", "GET /v1/models", None, "Forwarded: for=203.0.113.7")
    session.ask("any key will do", "GET /v1/models", key="not-needed-yet")
    session.ask("two different keys", "GET /v1/models", None, "X-API-Key: one", key="another")


def _methods(session: Session) -> None:
    for path in PATHS:
        for method in _METHODS:
            session.ask(f"{method} {path} without a body", f"{method} {path}")


def _chat(session: Session) -> None:
    session.ask("chat", CHAT, HELLO)
    session.ask("chat, spelt out", CHAT, '{ "model" : "echo",\n "messages": [{"role":"user","content":"Grüße 👋"}] }')
    session.ask(
        "chat of parts",
        CHAT,
        {"model": "echo", "messages": [{"role": "user", "content": [{"type": "text", "text": "a b"}]}]},
    )
    session.ask("chat with a query", f"{CHAT}?api-version=1&token=left-out", HELLO)
    for name, fields in _CHAT_FIELDS.items():
        session.ask(f"chat: {name}", CHAT, {**HELLO, **fields})
    for name, body in _CHAT_BODIES.items():
        session.ask(f"chat body: {name}", CHAT, body)
    session.ask("chat body: not UTF-8", CHAT, b'{"model":"echo","messages":"\xff"}')
    session.ask(
        "chat as plain text",
        CHAT,
        '{"model":"echo","messages":[{"role":"user","content":"x"}]}',
        "Content-Type: text/plain",
    )
    session.ask("chat: the id of the client", CHAT, HELLO, "X-Client-Request-Id: mine-1")


def _other_endpoints(session: Session) -> None:
    for name, fields in _COMPLETIONS.items():
        session.ask(f"completions: {name}", "POST /v1/completions", {"model": "echo", **fields})
    for name, fields in _EMBEDDINGS.items():
        session.ask(f"embeddings: {name}", "POST /v1/embeddings", {"model": "echo", **fields})
    for name, fields in _RESPONSES.items():
        session.ask(f"responses: {name}", "POST /v1/responses", {"model": "echo", **fields})


def _models_and_paths(session: Session) -> None:
    session.ask("models", "GET /v1/models")
    session.ask("models, head", "HEAD /v1/models")
    session.ask("model", "GET /v1/models/echo")
    session.ask("model, unknown", "GET /v1/models/some/other%2Fmodel")
    for path in ("/v1/engines/echo", "/engines/echo", "/openai/deployments/echo"):
        session.ask(
            f"model in the path {path}",
            f"POST {path}/chat/completions?api-version=2024-06-01",
            {"messages": HELLO["messages"]},
        )
    session.ask("two models", "POST /v1/engines/echo/chat/completions", {**HELLO, "model": "other"})
    session.ask("engine, other endpoint", "POST /v1/engines/echo/images", {})
    session.ask("pass-through to the echo", "POST /v1/audio/speech", {"model": "echo", "input": "x"})
    session.ask("web socket", "GET /v1/realtime", None, "Upgrade: websocket", "Connection: Upgrade")
    for path in (
        "//v1/models", "/v1//models", "/v1/models/", "/v1/../api/tokens", "/v1/./models", "/v1/%6dodels", "/v1/models%2fecho",
        "/v1/models;x=1", "/v1/mod%zzels", "/v1/%00", "/v1/%ff", "/v1/mod\\els", "/V1/models", "/v1", "/api/tokens/%2e%2e",
        "/v1/models/%C3%BC", "http://localhost/v1/models", "*", "/" + "x" * 300,
    ):  # fmt: skip
        session.ask(f"path {path[:40]}", f"GET {path}")


def _management(session: Session) -> None:
    session.ask("me", "GET /api/me")
    session.ask("me with a query", "GET /api/me?a=b")
    session.ask("no tokens", "GET /api/tokens")
    session.ask("check", "POST /api/check", {"model": "echo"})
    session.ask("usage", "GET /api/usage?group_by=model&from=2020-01-01&to=2020-01-02")
    session.ask(
        "create from a page of elsewhere", "POST /api/tokens", {"name": "x"}, "Origin: https://elsewhere.example"
    )
    made = session.ask("create the first token", "POST /api/tokens", {"name": "first", "role": "admin"}).json()
    session.ask("open no longer", "GET /v1/models")
    session.ask("health afterwards", "GET /healthz")
    session.ask("delete the only token", f"DELETE /api/tokens/{made['id']}", key=made["token"])
    session.ask("never open again", "GET /v1/models")
    session.ask("metrics at the end", "GET /metrics")
