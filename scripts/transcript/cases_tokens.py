"""Managing tokens over HTTP: every route, every role, every mistake."""

import json

from scripts.transcript import artefacts, fixtures
from scripts.transcript.cases_open import CHAT, HELLO, PATHS
from scripts.transcript.cases_usage import record_usage
from scripts.transcript.fixtures import ADMIN, CHILD, MEMBER, MODELS, SERVICE, STRANGER, token_id
from scripts.transcript.session import Section, Session

_BAD_FIELDS: tuple[tuple[str, object], ...] = (
    ("name", ""), ("name", 5), ("name", "x" * 201), ("name", "a\nb"), ("name", None), ("owner", "nobody"), ("owner", 5),
    ("role", "owner"), ("role", None), ("expires_at", "soon"), ("expires_at", "2020-01-01"), ("expires_at", 5),
    ("expires_in", "soon"), ("expires_in", 5), ("expires_in", "0"), ("models", "echo"), ("models", [5]), ("models", [""]),
    ("limits", "none"), ("limits", {"rpm": 0}), ("limits", {"rpm": "5"}), ("limits", {"rps": 5}), ("limits", {"budget": 5}),
    ("limits", {"budget": "5/year"}), ("limits", {"models": []}), ("limits", {"models": {"": {}}}),
    ("limits", {"models": {"a": {"models": {}}}}), ("limits", {"models": {"a": 5}}), ("metadata", "x"),
    ("metadata", {"x": "y" * 5000}), ("metadata", {"x": 1e400}), ("rpm", 5), ("previous_secrets", []), ("id", "tok_x"),
)  # fmt: skip


def record(section: Section) -> None:
    (section.folder / "api_tokens.json").write_bytes(fixtures.token_file())
    with section.serving("token file", {}) as session:
        _credentials(session)
        _access(session)
        _reading(session)
        _mistakes(session)
        made = _life(session)
        _children(session)
        _secrets(session, made)
        _user_keys(session)
        _uses(session)
    artefacts.record(section)
    with section.serving("token file, once more", {}) as session:
        record_usage(session)
    for name, arguments in {
        "usage": ("usage",), "usage as JSON": ("usage", "--json"), "usage by model": ("usage", "--by", "model", "--csv"),
        "usage of one": ("usage", "member"), "usage by owner": ("usage", "--by", "owner", "--since", "7d"),
        "list afterwards": ("list",), "tree afterwards": ("list", "--tree"), "audit afterwards": ("audit",),
        "audit afterwards, verified": ("audit", "--verify"), "audit as JSON": ("audit", "--json"),
    }.items():  # fmt: skip
        section.command(name, *arguments)


def _credentials(session: Session) -> None:
    for name in (
        "ADMIN", "MEMBER", "SERVICE", "EXPIRED", "REVOKED", "CHILD", "MODELS", "TEST", "ROTATED", "ROTATED_OLD",
        "ROTATED_ENDED", "STRANGER", "ORPHAN",
    ):  # fmt: skip
        secret = getattr(fixtures, name)
        session.ask(f"models of {name.lower()}", "GET /v1/models", key=secret)
        session.ask(f"me as {name.lower()}", "GET /api/me", key=secret)
        session.ask(f"validate {name.lower()}", "POST /api/tokens/validate", {"token": secret})
        session.ask(f"metrics as {name.lower()}", "GET /metrics", None, "X-Forwarded-For: 203.0.113.7", key=secret)
    session.ask("token in the query", f"GET /v1/models?token={MEMBER}&a=b")
    session.ask("token in the query of a change", f"POST /api/tokens?token={MEMBER}", {"name": "x"})
    session.ask("token in the query of a reading", f"GET /api/me?token={MEMBER}")
    session.ask("two tokens in the query", f"GET /v1/models?token={MEMBER}&token={ADMIN}")
    session.ask("a model that is not allowed", CHAT, {**HELLO, "model": "other"}, key=MODELS)
    session.ask("a model in another field", CHAT, {**HELLO, "models": ["other"]}, key=MODELS)
    session.ask("a model in the path", "POST /v1/engines/echo/edits", {}, key=MODELS)
    session.ask("no JSON from a limited token", "POST /v1/files", "x", "Content-Type: text/plain", key=MODELS)
    session.ask("check of a model that is not allowed", "POST /api/check", {"model": "other"}, key=MODELS)


def _access(session: Session) -> None:
    """Every route for nobody, and for the least of the roles."""
    for path in PATHS:
        for method in ("GET", "POST", "PATCH", "DELETE"):
            session.ask(f"{method} {path} as nobody", f"{method} {path}")
            session.ask(f"{method} {path} as service", f"{method} {path}", key=SERVICE)


def _reading(session: Session) -> None:
    for name, key in (("nobody", None), ("admin", ADMIN), ("member", MEMBER), ("service", SERVICE)):
        session.ask(f"list as {name}", "GET /api/tokens", key=key)
        for other in ("member", "child", "stranger"):
            session.ask(f"{other} as {name}", f"GET /api/tokens/{token_id(other)}", key=key)
            session.ask(f"usage of {other} as {name}", f"GET /api/tokens/{token_id(other)}/usage", key=key)
    for query in (
        "page=2&per_page=5", "page=9", "per_page=1&page=16", "page=0", "page=x", "per_page=101", "page=1&page=2", "pages=1",
        "owner=ann@example.com", "status=expired", "status=revoked&per_page=1", "status=dead", "name=m*", "name=member", "a=%ff",
    ):  # fmt: skip
        session.ask(f"list ?{query}", f"GET /api/tokens?{query}", key=ADMIN)
    session.ask("head of a token", f"HEAD /api/tokens/{token_id('member')}", key=ADMIN)
    session.ask("unknown token", "GET /api/tokens/tok_unknown", key=ADMIN)
    session.ask("a token with a query", f"GET /api/tokens/{token_id('member')}?a=b", key=ADMIN)


def _mistakes(session: Session) -> None:
    member = f"/api/tokens/{token_id('member')}"
    for name, value in _BAD_FIELDS:
        shown = f"{name} {str(value)[:30]!r}"
        session.ask(f"create with {shown}", "POST /api/tokens", {"name": "x", name: value}, key=ADMIN)
        session.ask(f"update with {shown}", f"PATCH {member}", {name: value}, key=ADMIN)
    session.ask("create without a name", "POST /api/tokens", {"owner": "ann@example.com"}, key=ADMIN)
    session.ask("create without a body", "POST /api/tokens", key=ADMIN)
    session.ask("create, a list", "POST /api/tokens", "[]", key=ADMIN)
    session.ask("create with a prefix", "POST /api/tokens", {"name": "x", "prefix": "pk-"}, key=ADMIN)
    session.ask("create with a parent", "POST /api/tokens", {"name": "x", "parent_id": "tok_unknown"}, key=ADMIN)
    session.ask(
        "create below a dead one", "POST /api/tokens", {"name": "x", "parent_id": token_id("revoked")}, key=ADMIN
    )
    session.ask(
        "create with both ends", "POST /api/tokens", {"name": "x", "expires_at": None, "expires_in": "1d"}, key=ADMIN
    )
    session.ask("create with a query", "POST /api/tokens?a=b", {"name": "x"}, key=ADMIN)
    session.ask("update with nothing", f"PATCH {member}", {}, key=ADMIN)
    session.ask("update a parent", f"PATCH {member}", {"parent_id": None}, key=ADMIN)
    for name, key in (("nobody", None), ("service", SERVICE), ("stranger", STRANGER)):
        session.ask(f"create as {name}", "POST /api/tokens", {"name": "x", "role": "admin"}, key=key)
        session.ask(f"update as {name}", f"PATCH {member}", {"name": "x"}, key=key)
        for action in ("revoke", "rotate"):
            session.ask(f"{action} as {name}", f"POST {member}/{action}", key=key)
        session.ask(f"delete as {name}", f"DELETE {member}", key=key)
    session.ask("more than the caller has", "POST /api/tokens", {"name": "x", "role": "admin"}, key=MEMBER)
    session.ask("for somebody else", "POST /api/tokens", {"name": "x", "owner": "bob@example.com"}, key=MEMBER)
    session.ask("below somebody else", "POST /api/tokens", {"name": "x", "parent_id": token_id("stranger")}, key=MEMBER)
    session.ask("its own role", f"PATCH {member}", {"role": "admin"}, key=MEMBER)
    session.ask("more models than the parent", "POST /api/tokens", {"name": "x", "models": ["*"]}, key=MODELS)
    session.ask("later than the parent", f"PATCH /api/tokens/{token_id('orphan')}", {"expires_in": "1d"}, key=ADMIN)
    for grace in ("soon", 5, None):
        session.ask(f"grace {grace!r}", f"POST {member}/rotate", {"grace": grace}, key=ADMIN)
    session.ask("revoke with a field", f"POST {member}/revoke", {"now": True}, key=ADMIN)
    session.ask("rotate a dead one", f"POST /api/tokens/{token_id('expired')}/rotate", key=ADMIN)
    session.ask(
        "rotate with the replaced secret", f"POST /api/tokens/{token_id('rotated')}/rotate", key=fixtures.ROTATED_OLD
    )


def _life(session: Session) -> str:
    spec = {
        "name": "everything", "owner": "eve@example.com", "role": "service", "expires_at": fixtures.FAR_AHEAD,
        "models": ["echo", "gpt-*"], "limits": {"rpm": 100, "tpm": 1000, "max_parallel": 3, "budget": "2.50/day",
        "models": {"gpt-*": {"rpm": 5}}}, "metadata": {"team": "a", "n": [1, 2.5, None]}, "prefix": "sk_live_",
    }  # fmt: skip
    made = session.ask("create with everything", "POST /api/tokens", spec, key=ADMIN).json()
    place = f"/api/tokens/{made['id']}"
    session.ask("create with a span", "POST /api/tokens", {"name": "for an hour", "expires_in": "1h"}, key=ADMIN)
    session.ask("read it", f"GET {place}", key=ADMIN)
    session.ask(
        "update", f"PATCH {place}", {"name": "renamed", "limits": None, "metadata": {}, "models": None}, key=ADMIN
    )
    session.ask("update to a span", f"PATCH {place}", {"expires_in": "30d", "owner": None, "role": "member"}, key=ADMIN)
    session.ask("update to no end", f"PATCH {place}", {"expires_in": "never"}, key=ADMIN)
    session.ask("rotate", f"POST {place}/rotate", key=ADMIN)
    session.ask("the replaced secret", "GET /api/me", key=made["token"])
    session.ask("validate the replaced secret", "POST /api/tokens/validate", {"token": made["token"]})
    _end_of_a_life(session)
    other = session.ask("create another", "POST /api/tokens", {"name": "another"}, key=ADMIN).json()
    return str(other["token"])


def _end_of_a_life(session: Session) -> None:
    """Of a token that was never used: what a change takes away depends on whether its last use is written already."""
    made = session.ask("create one to be ended", "POST /api/tokens", {"name": "to be ended"}, key=ADMIN).json()
    place = f"/api/tokens/{made['id']}"
    session.ask("rotate with a span", f"POST {place}/rotate", {"grace": "7d"}, key=ADMIN)
    session.ask("revoke by its replaced secret", "POST /api/tokens/revoke", {"token": made["token"]})
    session.ask("the secret that was revoked", "GET /api/me", key=made["token"])
    rotated = session.ask("rotate, at once", f"POST {place}/rotate", {"grace": "0"}, key=ADMIN).json()
    session.ask("read it with its old secrets", f"GET {place}", key=ADMIN)
    session.ask("validate its newest secret", "POST /api/tokens/validate", {"token": rotated["token"]})
    session.ask("revoke", f"POST {place}/revoke", key=ADMIN)
    session.ask("revoke again", f"POST {place}/revoke", {}, key=ADMIN)
    session.ask("update a revoked one", f"PATCH {place}", {"name": "late"}, key=ADMIN)
    session.ask("delete", f"DELETE {place}", key=ADMIN)
    session.ask("delete again", f"DELETE {place}", key=ADMIN)
    printed = session.section.command("create beside the gateway", "create", "from outside", "--json").stdout
    session.ask("known at once", "GET /api/me", key=json.loads(printed)["token"])


def _children(session: Session) -> None:
    below = session.ask("create below itself", "POST /api/tokens", {"name": "below"}, key=CHILD).json()
    session.ask("me below", "GET /api/me", key=below["token"])
    session.ask("list of the family", "GET /api/tokens?owner=ann@example.com", key=MEMBER)
    session.ask(
        "admin makes a child", "POST /api/tokens", {"name": "given", "parent_id": token_id("models")}, key=ADMIN
    )
    session.ask(
        "child with more",
        "POST /api/tokens",
        {"name": "x", "parent_id": token_id("models"), "models": ["a"]},
        key=ADMIN,
    )
    session.ask("test child", "POST /api/tokens", {"name": "x"}, key=fixtures.TEST)
    session.ask("revoke the child", f"POST /api/tokens/{token_id('child')}/revoke", key=MEMBER)
    session.ask("below, afterwards", "GET /api/me", key=below["token"])


def _secrets(session: Session, secret: str) -> None:
    for route in ("validate", "revoke"):
        for body in (
            {},
            {"token": 5},
            {"token": "x", "a": 1},
            {"token": "unknown"},
            {"token": "sk-" + "a" * 49},
            {"token": ""},
        ):
            session.ask(f"{route} {str(body)[:30]}", f"POST /api/tokens/{route}", body)
    session.ask("validate with white space", "POST /api/tokens/validate", {"token": f" {secret}\n"})
    session.ask("revoke by secret", "POST /api/tokens/revoke", {"token": secret})
    session.ask("validate afterwards", "POST /api/tokens/validate", {"token": secret})


def _user_keys(session: Session) -> None:
    for body in (
        {},
        {"email": 5},
        {"email": "nobody"},
        {"email": None},
        {"email": "a@b.example", "key_name": ""},
        {"mail": "x"},
    ):
        session.ask(f"user key {body}", "POST /api/user/key", body, key=ADMIN)
    for name, key in (("admin", ADMIN), ("ann", MEMBER), ("service", SERVICE), ("bob", STRANGER), ("nobody", None)):
        session.ask(
            f"make ann's key as {name}",
            "POST /api/user/key",
            {"email": "ann@example.com", "key_name": f"by {name}"},
            key=key,
        )
        session.ask(f"ann's key as {name}", "GET /api/user/key/ann@example.com", key=key)
        session.ask(f"ann's usage as {name}", "GET /api/user/usage/ann%40example.com", key=key)
        session.ask(f"end ann's key as {name}", "DELETE /api/user/key/ann@example.com", key=key)
    session.ask("nobody's key", "GET /api/user/key/none@example.com", key=ADMIN)
    session.ask("a key with a query", "GET /api/user/key/none@example.com?a=b", key=ADMIN)
    session.ask("make a key that stays", "POST /api/user/key", {"email": "zoe@example.com"}, key=ADMIN)


def _uses(session: Session) -> None:
    for name, key in (("member", MEMBER), ("models", MODELS), ("test", fixtures.TEST), ("service", SERVICE)):
        session.ask(f"chat as {name}", CHAT, HELLO, key=key)
        session.ask(
            f"embeddings as {name}", "POST /v1/embeddings", {"model": "echo", "input": "a b", "dimensions": 1}, key=key
        )
    session.ask("chat of an unknown model", CHAT, {**HELLO, "model": "other"}, key=MEMBER)
    session.ask("check", "POST /api/check", {"model": "echo"}, key=MEMBER)
    for body in (
        {}, {"model": 5}, {"model": ""}, {"model": "echo", "tokens": -1}, {"model": "echo", "tokens": "5"},
        {"model": "echo", "endpoint": ""}, {"model": "echo", "endpoint": 5}, {"model": "echo", "a": 1},
    ):  # fmt: skip
        session.ask(f"check {body}", "POST /api/check", body, key=MEMBER)
