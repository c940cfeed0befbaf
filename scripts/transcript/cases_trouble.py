"""When things go wrong around the gateway: it is told to end while requests run, its token file is damaged or gone."""

import time
from collections.abc import Callable

from scripts.transcript import fixtures, wire
from scripts.transcript.cases_open import CHAT, HELLO
from scripts.transcript.fixtures import ADMIN
from scripts.transcript.session import UNRECORDED, Section
from scripts.transcript.upstream import Script, Upstream, chunk, events
from scripts.transcript.wire import Connection

_POLL_SECONDS = 0.02
_LONGEST_WAIT_SECONDS = 15.0


def record(section: Section) -> None:
    _damage(section)
    _ending(section)


def _damage(section: Section) -> None:
    tokens = section.folder / "api_tokens.json"
    with section.serving("a damaged token file appears", {}) as session:
        tokens.write_bytes(b"nonsense")
        _wait(lambda: session.unrecorded("GET /v1/models").status == 503)
        session.ask("nobody knows who may enter", "GET /v1/models")
        session.ask("not ready", "GET /readyz")
        session.ask("alive", "GET /healthz")
        session.ask("no change can be made", "POST /api/tokens", {"name": "x"})
        session.ask("metrics", "GET /metrics")
    tokens.write_bytes(fixtures.token_file())
    with section.serving("the token file is damaged, then gone", {}) as session:
        tokens.write_bytes(b"nonsense")
        _wait(lambda: session.unrecorded("GET /readyz").status == 503)
        session.ask("whom it knows still enters", CHAT, HELLO, key=ADMIN)
        session.ask("no change can be made, file mode", "POST /api/tokens", {"name": "x"}, key=ADMIN)
        _wait(lambda: b"gateway_token_use_write_failures_total 0.0" not in session.unrecorded("GET /metrics").raw)
        tokens.unlink()
        _wait(lambda: session.unrecorded("GET /v1/models", key=ADMIN).status == 401)
        session.ask("nobody enters without the file", "GET /v1/models", key=ADMIN)
        session.ask("ready without the file", "GET /readyz")


def _ending(section: Section) -> None:
    tokens = section.folder / "api_tokens.json"
    tokens.write_bytes(fixtures.token_file())
    with Upstream() as upstream:
        section.normaliser.add_literal(f"127.0.0.1:{upstream.port}", "127.0.0.1:<upstream port>")
        url = f"http://127.0.0.1:{upstream.port}/v1"
        settings = {"GATEWAY_UPSTREAM_URL": url, "GATEWAY_DRAIN_SECONDS": "1"}
        with section.serving("told to end", settings, upstream) as session, session.connect() as running:
            upstream.prepare(Script(events(chunk("one"), is_whole=False).pieces, waits_for=2))
            asked = wire.request("POST", "/v1/chat/completions", [], {**HELLO, "stream": True}, key=ADMIN)
            running.send(asked)
            running.read_until(b"data: ")
            with session.connect() as kept:
                health = wire.request("GET", "/healthz")
                kept.send(health)
                section.exchange("before the end", health, kept.read_reply("GET"))
                section.tell_to_end()
                _wait(lambda: _status(kept, wire.request("GET", "/readyz", [UNRECORDED])) == 503)
                for line in ("GET /readyz", "GET /v1/models"):
                    method, _, target = line.partition(" ")
                    late = wire.request(method, target, key=ADMIN)
                    kept.send(late)
                    section.exchange(f"while it ends: {line}", late, kept.read_reply(method))
            section.exchange("the stream that does not end in time", asked, running.read_reply("POST"))
            upstream.release()


def _status(kept: Connection, asked: bytes) -> int:
    kept.send(asked)
    return kept.read_reply("GET").status


def _wait(is_so: Callable[[], bool]) -> None:
    """Until it is so. Raises RuntimeError where that takes too long."""
    deadline = time.monotonic() + _LONGEST_WAIT_SECONDS
    while not is_so():
        if time.monotonic() > deadline:
            raise RuntimeError("what the case waits for does not happen")
        time.sleep(_POLL_SECONDS)
