"""The environment key, origins of browsers, trusted proxies, no token in the query; two workers; open mode for everybody."""

from scripts.transcript import artefacts, fixtures
from scripts.transcript.cases_open import CHAT, HELLO
from scripts.transcript.fixtures import ENVIRONMENT
from scripts.transcript.session import Section, Session

_APP = "Origin: https://app.example.com"
_PREFLIGHT = ("Access-Control-Request-Method: POST", "Access-Control-Request-Headers: authorization,content-type,x-own")


def record(section: Section) -> None:
    settings = {
        "FREEGPT_API_KEY": ENVIRONMENT,
        "OPENAI_API_KEY": "sk-second-and-not-used",
        "GATEWAY_CORS_ORIGINS": "https://app.example.com,http://localhost:3000",
        "GATEWAY_QUERY_TOKEN": "off",
        "GATEWAY_TRUSTED_PROXIES": "127.0.0.0/8",
    }
    with section.serving("environment key", settings) as session:
        _credentials(session)
        _origins(session)
        _management(session)
    artefacts.record(section)
    workers = {**settings, "GATEWAY_WORKERS": "2", "GATEWAY_DATA_DIR": "data2"}
    with section.serving("two workers", workers) as session:
        session.ask("health", "GET /healthz")
        session.ask("ready", "GET /readyz")
        session.ask("chat", CHAT, HELLO, key=ENVIRONMENT)
        session.ask("create", "POST /api/tokens", {"name": "of-one-worker", "limits": {"rpm": 5}}, key=ENVIRONMENT)


def record_allow_open(section: Section) -> None:
    """Open mode for everybody: what is refused without the setting."""
    with section.serving(
        "open for all, log for people", {"GATEWAY_ALLOW_OPEN": "on", "GATEWAY_LOG_FORMAT": "console"}
    ) as session:
        session.ask("a page of elsewhere", CHAT, HELLO, "Origin: https://elsewhere.example")
        session.ask("a name that is not local", "GET /v1/models", None, "Host: gateway.example")
        session.ask("metrics from elsewhere", "GET /metrics", None, "X-Forwarded-For: 203.0.113.7")
        session.ask("a model", "GET /v1/models/other")


def _credentials(session: Session) -> None:
    session.ask("no credential", "GET /v1/models")
    session.ask("the key", "GET /v1/models", key=ENVIRONMENT)
    session.ask("the second key", "GET /v1/models", key="sk-second-and-not-used")
    session.ask("a short wrong key", "GET /v1/models", key="wrong")
    session.ask("mistyped", "GET /v1/models", key="sk-" + "a" * 49)
    session.ask("basic", "GET /v1/models", None, "Authorization: Basic dXNlcjpwYXNzd29yZA==")
    session.ask("bearer in capitals", "GET /v1/models", None, f"AUTHORIZATION: BEARER {ENVIRONMENT}")
    session.ask("empty bearer", "GET /v1/models", None, "Authorization: Bearer ")
    session.ask("a key with a space", "GET /v1/models", None, "Authorization: Bearer one two")
    for header in ("X-API-Key", "X-API-Token", "API-Token", "api-key", "x-goog-api-key"):
        session.ask(f"in {header}", "GET /v1/models", None, f"{header}: {ENVIRONMENT}")
    session.ask(
        "in the protocol of a web socket",
        "GET /v1/models",
        None,
        f"Sec-WebSocket-Protocol: realtime, openai-insecure-api-key.{ENVIRONMENT}",
    )
    session.ask("the same key twice", "GET /v1/models", None, f"X-API-Key: {ENVIRONMENT}", key=ENVIRONMENT)
    session.ask(
        "the same header twice", "GET /v1/models", None, f"Authorization: Bearer {ENVIRONMENT}", key=ENVIRONMENT
    )
    session.ask("two keys", "GET /v1/models", None, "X-API-Key: other", key=ENVIRONMENT)
    session.ask("in the query", f"GET /v1/models?token={ENVIRONMENT}")
    session.ask("metrics", "GET /metrics", key=ENVIRONMENT)
    session.ask("metrics, forwarded", "GET /metrics", None, "X-Forwarded-For: 203.0.113.7")
    session.ask("unknown path without a key", "GET /nothing")
    session.ask("unknown path", "GET /nothing", key=ENVIRONMENT)
    session.ask("wrong method without a key", "DELETE /v1/models")
    session.ask("wrong method", "DELETE /v1/chat/completions", key=ENVIRONMENT)


def _origins(session: Session) -> None:
    session.ask("preflight", "OPTIONS /v1/chat/completions", None, _APP, *_PREFLIGHT)
    session.ask("preflight without headers", "OPTIONS /v1/models", None, _APP, "Access-Control-Request-Method: GET")
    session.ask(
        "preflight of elsewhere", "OPTIONS /v1/chat/completions", None, "Origin: https://elsewhere.example", *_PREFLIGHT
    )
    session.ask("no preflight", "OPTIONS /v1/chat/completions", None, _APP)
    session.ask("a page", CHAT, HELLO, _APP, key=ENVIRONMENT)
    session.ask("a page, stream", CHAT, {**HELLO, "stream": True, "max_tokens": 1}, _APP, key=ENVIRONMENT)
    session.ask("a page without a key", CHAT, HELLO, _APP)
    session.ask("another page", CHAT, HELLO, "Origin: https://elsewhere.example", key=ENVIRONMENT)
    session.ask("an origin in capitals", "GET /healthz", None, "Origin: HTTPS://APP.example.com")


def _management(session: Session) -> None:
    session.ask("me", "GET /api/me", key=ENVIRONMENT)
    session.ask("validate the key", "POST /api/tokens/validate", {"token": ENVIRONMENT})
    session.ask("revoke the key", "POST /api/tokens/revoke", {"token": ENVIRONMENT})
    session.ask("the key still works", "GET /v1/models", key=ENVIRONMENT)
    session.ask(
        "check", "POST /api/check", {"model": "echo", "endpoint": "/v1/embeddings", "tokens": 5}, key=ENVIRONMENT
    )
    made = session.ask(
        "create", "POST /api/tokens", {"name": "made", "owner": "ann@example.com"}, key=ENVIRONMENT
    ).json()
    session.ask("health afterwards", "GET /healthz")
    session.ask("its token", "GET /v1/models", key=made["token"])
    session.ask(
        "usage of the key", "GET /api/usage?token_id=environment&from=2020-01-01&to=2020-01-02", key=ENVIRONMENT
    )
    session.ask("a user's key", "POST /api/user/key", {"email": "ann@example.com"}, key=ENVIRONMENT)
    while session.unrecorded("POST /api/tokens/validate", {"token": "x"}).status != 429:
        pass
    session.ask("too many public calls", "POST /api/tokens/validate", {"token": "x"})
    session.ask("too many public calls, revoke", "POST /api/tokens/revoke", {"token": "x"})
    session.ask("from another address", "POST /api/tokens/validate", {"token": "x"}, "X-Forwarded-For: 203.0.113.7")
    session.section.note("the token of the fixtures, for comparison", f"{fixtures.sha256(ENVIRONMENT)}\n")
