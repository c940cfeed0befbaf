"""With an upstream: its answers passed on, its errors told, its broken streams broken off, aliases renamed."""

from typing import Any

from scripts.transcript import artefacts, fixtures
from scripts.transcript.cases_open import CHAT, HELLO
from scripts.transcript.cases_pass_through import SHAPED, record_models, record_pass_through
from scripts.transcript.fixtures import ADMIN
from scripts.transcript.session import Section, Session
from scripts.transcript.upstream import DONE, Script, Upstream, answer, chunk, events, json_answer

_ONE, _TWO, _END = chunk("one"), chunk("two"), chunk("", "stop")
_USAGE = chunk(None, usage={"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5})
_WHOLE = {
    "id": "chatcmpl-1", "object": "chat.completion", "created": 1700000000, "model": "real-model", "own": [1, 2.50],
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
}  # fmt: skip
_ASK: dict[str, Any] = {**HELLO, "model": "nice"}
_STREAM = {**_ASK, "stream": True}


def record(section: Section) -> None:
    (section.folder / "api_tokens.json").write_bytes(fixtures.token_file())
    with Upstream() as upstream:
        section.normaliser.add_literal(f"127.0.0.1:{upstream.port}", "127.0.0.1:<upstream port>")
        settings = {
            "GATEWAY_UPSTREAM_URL": f"http://127.0.0.1:{upstream.port}/v1/",
            "GATEWAY_UPSTREAM_API_KEY": fixtures.UPSTREAM,
            "GATEWAY_MODEL_ALIASES": "nice=real-model, gone=not-there",
            "GATEWAY_FIRST_BYTE_TIMEOUT": "0.5",
            "GATEWAY_CHUNK_TIMEOUT": "0.5",
        }
        with section.serving("upstream", settings, upstream) as session:
            _answers(session)
            _errors(session)
            _streams(session)
            _broken(session)
            record_pass_through(session)
            record_models(session)
            session.ask("metrics", "GET /metrics", key=ADMIN)
        with section.serving(
            "upstream, usage of streams off", {**settings, "GATEWAY_STREAM_USAGE": "off"}, upstream
        ) as session:
            session.behind("stream without a wish for usage", events(_ONE, _END, DONE), CHAT, _STREAM, key=ADMIN)
            session.ask("usage", "GET /api/usage?group_by=model", key=ADMIN)
    artefacts.record(section)


def record_unreachable(section: Section) -> None:
    """Nobody listens at the upstream's address."""
    with Upstream() as upstream:
        port = upstream.port
    section.normaliser.add_literal(f"127.0.0.1:{port}", "127.0.0.1:<upstream port>")
    with section.serving("unreachable", {"GATEWAY_UPSTREAM_URL": f"http://127.0.0.1:{port}/v1"}) as session:
        session.ask("chat", CHAT, _ASK)
        session.ask("chat, stream", CHAT, _STREAM)
        session.ask("models", "GET /v1/models")
        session.ask("model", "GET /v1/models/nice")
        session.ask("files", "POST /v1/files", "abc", "Content-Type: text/plain")
        session.ask("ready all the same", "GET /readyz")


def _answers(session: Session) -> None:
    kept = (
        "x-request-id: req-of-the-upstream", "Retry-After: 7", "X-Own: not passed on", "Set-Cookie: a=b", "ETag: \"v1\"",
        "x-ratelimit-remaining-requests: 9",
    )  # fmt: skip
    session.behind("chat, alias", json_answer(_WHOLE, headers=kept), CHAT, _ASK, key=ADMIN)
    session.behind("chat, real name", json_answer(_WHOLE), CHAT, {**_ASK, "model": "real-model"}, key=ADMIN)
    session.behind(
        "chat, spelt out", json_answer(_WHOLE), CHAT, '{ "model" : "nice",\n "messages": [], "n": 1.0 }', key=ADMIN
    )
    session.behind(
        "headers that go on", json_answer(_WHOLE), CHAT, _ASK,
        "User-Agent: mine/1", "OpenAI-Beta: x=1", "Idempotency-Key: k", "X-Stainless-Lang: python", "Anthropic-Version: 1",
        "Cookie: a=b", "X-Own: stays", "X-Forwarded-For: 203.0.113.7", "Accept-Encoding: gzip", "Accept: application/json",
        "OpenAI-Organization: org", "traceparent: 00-1-2-01", "X-Client-Request-Id: mine", key=ADMIN,
    )  # fmt: skip
    session.behind("test tokens stay here", json_answer(_WHOLE), CHAT, _ASK, key=fixtures.TEST)
    _other_endpoints(session)


def _other_endpoints(session: Session) -> None:
    session.behind(
        "completions", json_answer(_WHOLE), "POST /v1/completions?a=b", {"model": "nice", "prompt": "x"}, key=ADMIN
    )
    session.behind(
        "embeddings",
        json_answer(
            {"object": "list", "data": [], "model": "real-model", "usage": {"prompt_tokens": 3, "total_tokens": 3}}
        ),
        "POST /v1/embeddings",
        {"model": "nice", "input": "x", "stream": True},
        key=ADMIN,
    )
    session.behind(
        "responses",
        json_answer(
            {
                "id": "resp_1",
                "object": "response",
                "model": "real-model",
                "error": None,
                "usage": {"input_tokens": 3, "output_tokens": 2},
            }
        ),
        "POST /v1/responses",
        {"model": "nice", "input": "x"},
        key=ADMIN,
    )
    session.behind(
        "engine",
        json_answer(_WHOLE),
        "POST /openai/deployments/nice/chat/completions?api-version=1",
        {"messages": []},
        key=ADMIN,
    )
    session.behind(
        "without a length",
        Script([b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n{"model":"real-model"}']),
        CHAT,
        _ASK,
        key=ADMIN,
    )
    session.behind("201", json_answer(_WHOLE, "201 Created"), CHAT, _ASK, key=ADMIN)
    session.behind(
        "interim answer first",
        Script([b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + json_answer(_WHOLE).pieces[0]]),
        CHAT,
        _ASK,
        key=ADMIN,
    )


def _errors(session: Session) -> None:
    waits = ("Retry-After: 7", "retry-after-ms: 7000", "x-should-retry: true", "x-request-id: req-up")
    quoting = {"error": {"message": f"Bad key {fixtures.UPSTREAM}", "type": "t", "param": None, "code": "c"}}
    for name, script in {
        "shaped 400": json_answer(SHAPED, "400 Bad Request"),
        "shaped 429": json_answer(SHAPED, "429 Too Many Requests", waits),
        "shaped 500": json_answer(SHAPED, "500 Internal Server Error"),
        "own status 418": json_answer(SHAPED, "418 Teapot"),
        "quotes the key": json_answer(quoting, "401 Unauthorized"),
        "error as text": json_answer({"error": "no model"}, "404 Not Found"),
        "message": json_answer({"message": "no model"}, "404 Not Found"),
        "detail": json_answer({"detail": [{"loc": ["body"], "msg": "missing"}]}, "422 Unprocessable Entity"),
        "part of the shape": json_answer({"error": {"message": "half", "code": 5}}, "400 Bad Request"),
        "page": answer(
            "503 Service Unavailable", ["Content-Type: text/html"], b"<html><h1>Sorry</h1>\n<p>down</p></html>"
        ),
        "empty": answer("502 Bad Gateway", [], b""),
        "long": answer("500 Oops", ["Content-Type: text/plain"], b"long " * 200),
        "error in a 200": json_answer(SHAPED),
        "error in a 200 with a status": json_answer({"error": {"message": "slow down", "code": 429}}),
        "error text in a 200": json_answer({"error": "out of memory"}),
        "no JSON": answer("200 OK", ["Content-Type: text/plain"], b"Hello"),
        "a list": json_answer([1, 2]),
        "cut short": Script([b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"]),
        "no HTTP": Script([b"nonsense\r\n\r\n"]),
        "closes at once": Script([]),
        "resets at once": Script([], is_reset=True),
        "redirect": answer("307 Temporary Redirect", ["Location: http://elsewhere.example/"], b""),
        "no content": Script([b"HTTP/1.1 204 No Content\r\n\r\n"]),
        "too slow": Script([], waits_for=1),
    }.items():
        session.behind(f"upstream: {name}", script, CHAT, _ASK, key=ADMIN)
        if name in ("shaped 429", "page", "error in a 200", "no JSON", "redirect"):
            session.behind(f"upstream, stream: {name}", script, CHAT, _STREAM, key=ADMIN)


def _streams(session: Session) -> None:
    options = {"include_usage": True}
    for name, script in {
        "whole": events(_ONE, _TWO, _END, _USAGE, DONE, headers=["x-request-id: req-up"]),
        "at once": events(_ONE + _TWO + _END + _USAGE + DONE),
        "without a last mark": events(_ONE, _END),
        "cut anywhere": events(_ONE + _TWO[:30], _TWO[30:] + _END + DONE),
        "carriage returns": events(*(one.replace("\n", "\r\n") for one in (_ONE, _END, DONE))),
        "comments and names": events(": ping\n\n" + _ONE, "event: x\nid: 5\n" + _END, DONE),
        "more behind the mark": events(_ONE + _END + DONE + _TWO),
    }.items():
        session.behind(f"stream: {name}", script, CHAT, _STREAM, key=ADMIN)
        session.behind(f"stream with usage: {name}", script, CHAT, {**_STREAM, "stream_options": options}, key=ADMIN)
    session.behind(
        "stream of an unnamed model", events(_ONE, _END, DONE), CHAT, {**_STREAM, "model": "real-model"}, key=ADMIN
    )
    session.behind(
        "stream of completions",
        events(_ONE, _END, DONE),
        "POST /v1/completions",
        {"model": "nice", "prompt": "x", "stream": True},
        key=ADMIN,
    )
    created, completed = (
        f'event: response.{state}\ndata: {{"type":"response.{state}","response":{{"model":"real-model","usage":{usage}}}}}\n\n'
        for state, usage in (("created", "null"), ("completed", '{"input_tokens":3,"output_tokens":2}'))
    )
    ask = {"model": "nice", "input": "x", "stream": True}
    session.behind("stream of responses", events(created, completed), "POST /v1/responses", ask, key=ADMIN)
    session.behind("stream of responses, cut", events(created), "POST /v1/responses", ask, key=ADMIN)


def _broken(session: Session) -> None:
    error = 'data: {"error":{"message":"Overloaded","type":"server_error","param":null,"code":null}}\n\n'
    for name, script in {
        "ends before it begins": events(),
        "ends after the first": events(_ONE),
        "ends within an event": events(_ONE, _TWO[:20]),
        "connection lost after the first": events(_ONE, is_whole=False),
        "connection lost later": events(_ONE, _TWO, is_whole=False),
        "reset later": events(_ONE, _TWO, is_whole=False, is_reset=True),
        "error first": events(error),
        "error later": events(_ONE, error),
        "error behind an event": events(_ONE + error),
        "error quotes the key": events(_ONE, error.replace("Overloaded", fixtures.UPSTREAM)),
        "no stream": json_answer(_WHOLE),
        "stands still": Script(events(_ONE, is_whole=False).pieces, waits_for=2),
    }.items():
        session.behind(f"broken stream: {name}", script, CHAT, _STREAM, key=ADMIN)
    body = b'{"model":"nice","messages":[],"stream":true}'
    head = f"POST /v1/chat/completions HTTP/1.0\r\nAuthorization: Bearer {ADMIN}\r\nContent-Length: {len(body)}\r\n\r\n"
    if session.upstream is not None:
        session.upstream.prepare(events(_ONE, _TWO, is_whole=False))
    session.raw("broken stream to HTTP/1.0", head.encode() + body)
    session.record_received()
