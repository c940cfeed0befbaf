"""Limits that are reached: requests, model tokens, requests at a time, money; for a token and for its parent."""

from scripts.transcript import artefacts, fixtures
from scripts.transcript.cases_open import CHAT, HELLO
from scripts.transcript.fixtures import ADMIN, token_id
from scripts.transcript.session import Section, Session
from scripts.transcript.upstream import DONE, Script, Upstream, chunk, events, json_answer
from scripts.transcript.wire import request

_PRICES = """
queue_seconds = 0.2

[prices."paid*"]
input = 10
output = 20

[prices."free"]
input = 0
output = 0
"""
_PAID = {"model": "paid-model", "messages": HELLO["messages"], "max_tokens": 1}
_USAGE = {"prompt_tokens": 4, "completion_tokens": 2, "total_tokens": 6}


def record(section: Section) -> None:
    (section.folder / "api_tokens.json").write_bytes(fixtures.token_file())
    (section.folder / "gateway.toml").write_text(_PRICES, encoding="utf-8")
    with Upstream() as upstream:
        section.normaliser.add_literal(f"127.0.0.1:{upstream.port}", "127.0.0.1:<upstream port>")
        settings = {"GATEWAY_CONFIG": "gateway.toml", "GATEWAY_UPSTREAM_URL": f"http://127.0.0.1:{upstream.port}/v1"}
        with section.serving("limits", settings, upstream) as session:
            _requests(session)
            _tokens(session)
            _money(session)
            _parallel(session, upstream)
            _revoked_while_it_runs(session, upstream)
            session.ask("metrics", "GET /metrics", key=ADMIN)
        with section.serving("limits, once more", settings, upstream) as session:
            session.ask("money is not refilled", "GET /api/me", key=fixtures.BUDGET)
            session.ask("usage", "GET /api/usage?group_by=token", key=ADMIN)
            session.ask("usage by model", "GET /api/usage?group_by=model&format=csv", key=ADMIN)
    artefacts.record(section)


def _chat(model: str = "free", prompt: int = 4, completion: int = 2) -> dict[str, object]:
    message = {"role": "assistant", "content": "Hi", "refusal": None}
    return {
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1700000000, "model": model,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion},
    }  # fmt: skip


def _requests(session: Session) -> None:
    free = {**_PAID, "model": "free"}
    session.ask("me, a request a minute", "GET /api/me", key=fixtures.RPM)
    session.ask("check, a request a minute", "POST /api/check", {"model": "free"}, key=fixtures.RPM)
    session.behind("the first request", json_answer(_chat()), CHAT, free, key=fixtures.RPM)
    session.behind("one too many", json_answer(_chat()), CHAT, free, key=fixtures.RPM)
    session.ask("the models are no use", "GET /v1/engines", key=fixtures.RPM)
    session.ask("check, one too many", "POST /api/check", {"model": "free"}, key=fixtures.RPM)
    session.behind(
        "the first of a pattern",
        json_answer(_chat("paid-a")),
        CHAT,
        {**_PAID, "model": "paid-a"},
        key=fixtures.MODEL_LIMIT,
    )
    session.behind(
        "one too many of a pattern", json_answer(_chat()), CHAT, {**_PAID, "model": "paid-b"}, key=fixtures.MODEL_LIMIT
    )
    session.behind("another model", json_answer(_chat()), CHAT, free, key=fixtures.MODEL_LIMIT)
    made = session.ask(
        "a child", "POST /api/tokens", {"name": "of-rpm", "parent_id": token_id("rpm")}, key=ADMIN
    ).json()
    session.behind("a child of a used-up parent", json_answer(_chat()), CHAT, free, key=made["token"])


def _tokens(session: Session) -> None:
    free = {**_PAID, "model": "free"}
    session.behind("too large for ever", json_answer(_chat()), CHAT, {**free, "max_tokens": 100}, key=fixtures.TPM)
    session.behind("tokens", json_answer(_chat(prompt=20, completion=9)), CHAT, free, key=fixtures.TPM)
    session.behind("too many tokens", json_answer(_chat()), CHAT, {**free, "max_tokens": 20}, key=fixtures.TPM)
    session.ask("check, too many tokens", "POST /api/check", {"model": "free", "tokens": 29}, key=fixtures.TPM)


def _money(session: Session) -> None:
    key = fixtures.BUDGET
    session.ask("me, with a budget", "GET /api/me", key=key)
    session.behind("no price", json_answer(_chat()), CHAT, {**_PAID, "model": "nobody-knows"}, key=key)
    session.ask("check, no price", "POST /api/check", {"model": "nobody-knows"}, key=key)
    session.ask("check, too dear", "POST /api/check", {"model": "paid-model", "tokens": 100000}, key=key)
    session.behind("too dear", json_answer(_chat()), CHAT, {**_PAID, "max_tokens": 100000}, key=key)
    usage = chunk(None, model="paid-model", usage={"prompt_tokens": 4, "completion_tokens": 50, "total_tokens": 54})
    pieces = [chunk("a", model="paid-model")] * 13
    stream = events(*pieces, chunk("", "stop", "paid-model"), usage, DONE)
    session.behind("a stream beyond the budget", stream, CHAT, {**_PAID, "stream": True}, key=key)
    session.behind("no money left", json_answer(_chat()), CHAT, _PAID, key=key)
    session.ask("me, without money", "GET /api/me", key=key)
    session.ask("me, a budget a month", "GET /api/me", key=fixtures.MODEL_LIMIT)
    made = session.ask(
        "a key with a budget a day",
        "POST /api/tokens",
        {"name": "day", "limits": {"budget": "0.000001/day"}},
        key=ADMIN,
    )
    session.behind("no money today", json_answer(_chat()), CHAT, _PAID, key=made.json()["token"])
    session.ask("me, a budget a day", "GET /api/me", key=made.json()["token"])


def _parallel(session: Session, upstream: Upstream) -> None:
    streaming = request(
        "POST", "/v1/chat/completions", [], {**_PAID, "model": "free", "stream": True}, key=fixtures.PARALLEL
    )
    event = chunk("a", "stop", "free")
    upstream.prepare(events(event, event, DONE))
    with session.connect() as connection:
        connection.send(streaming)
        connection.read_until(b"data: ")
        session.ask("one too many at a time", CHAT, {**_PAID, "model": "free"}, key=fixtures.PARALLEL)
        session.ask("check, one too many at a time", "POST /api/check", {"model": "free"}, key=fixtures.PARALLEL)
        session.ask("me, one running", "GET /api/me", key=fixtures.PARALLEL)
        upstream.release()
        session.section.exchange("the one that was running", streaming, connection.read_reply("POST"))
    session.record_received()


def _revoked_while_it_runs(session: Session, upstream: Upstream) -> None:
    streaming = request(
        "POST", "/v1/chat/completions", [], {**_PAID, "model": "free", "stream": True}, key=fixtures.SHORT_LIVED
    )
    event = chunk("a", model="free")
    upstream.prepare(Script(events(event, is_whole=False).pieces, waits_for=2))
    with session.connect() as connection:
        connection.send(streaming)
        connection.read_until(b"data: ")
        session.ask("revoke it", f"POST /api/tokens/{token_id('shortlived')}/revoke", key=ADMIN)
        session.section.exchange("the stream of a revoked token", streaming, connection.read_reply("POST"))
    upstream.release()
    session.record_received()
