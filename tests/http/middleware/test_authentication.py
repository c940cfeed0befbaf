"""Every form of a credential is accepted; none of them is passed on or logged."""

from pathlib import Path

import pytest

from tests.support.gateway import BEARER, CHAT, JSON, KEY, STREAM, StartGateway, gateway_process, running_gateway
from tests.support.reply import Headers, check_error
from tests.support.upstream import Connection, Received, always, answer, running_upstream
from tests.support.wire import connected, gateway_before, post, request, talk

CANARY = KEY
OTHER = "sk-another-made-up-key-000000"
FORMS: list[tuple[str, Headers, str]] = [
    ("bearer", [("Authorization", f"Bearer {KEY}")], ""),
    ("small letters", [("authorization", f"bearer {KEY}")], ""),
    ("capitals", [("AUTHORIZATION", f"BEARER {KEY}")], ""),
    ("spaces", [("Authorization", f"Bearer   {KEY}  ")], ""),
    ("X-API-Key", [("X-API-Key", KEY)], ""),
    ("X-API-Token", [("X-API-Token", KEY)], ""),
    ("API-Token", [("api-TOKEN", KEY)], ""),
    ("api-key", [("api-key", KEY)], ""),
    ("x-goog-api-key", [("x-goog-api-key", KEY)], ""),
    ("subprotocol", [("Sec-WebSocket-Protocol", f"realtime, openai-insecure-api-key.{KEY}")], ""),
    ("query", [], f"?token={KEY}"),
    ("query among others", [], f"?a=1&token={KEY}&b=%20"),
    ("escaped query", [], f"?%74oken={KEY.replace('-', '%2D')}"),
    ("the same twice", [("Authorization", f"Bearer {KEY}"), ("api-key", KEY)], f"?token={KEY}"),
]
GOOD = answer(b'{"id":"1","choices":[],"data":[]}')


@pytest.mark.parametrize(("headers", "query"), [form[1:] for form in FORMS], ids=[form[0] for form in FORMS])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/rerank"])
async def test_forms(tmp_path: Path, headers: Headers, query: str, path: str) -> None:
    async with gateway_before(always(GOOD), tmp_path, GATEWAY_UPSTREAM_API_KEY="sk-up") as (upstream, gateway):
        reply = await gateway.request("POST", path + query, [JSON, *headers], CHAT)
        assert reply.status == 200, reply
    (received,) = upstream.requests
    seen = received.raw_head + received.body
    assert CANARY.encode() not in seen
    assert CANARY.replace("-", "%2D").encode() not in seen
    assert b"oken" not in seen.split(b"\r\n")[0]
    assert received.header("Authorization") == "Bearer sk-up"
    assert received.target == path


async def test_unheard_of_headers_stay_here(tmp_path: Path) -> None:
    """Of another gateway's secret, sent by mistake, nobody can know the name."""
    strange = [("X-Proxy-Secret", CANARY), ("Cookie", f"session={CANARY}"), ("Proxy-Authorization", CANARY)]
    async with gateway_before(always(GOOD), tmp_path) as (upstream, gateway):
        headers = [BEARER, *strange, ("Referer", f"http://x/?token={CANARY}")]
        assert (await gateway.post(headers=headers)).status == 200
        assert (await gateway.request("GET", "/v1/files", headers)).status == 200
    for received in upstream.requests:
        assert CANARY.encode() not in received.raw_head


AMBIGUOUS: list[tuple[Headers, str]] = [
    ([BEARER, BEARER], ""),
    ([("api-key", KEY), ("API-KEY", KEY)], ""),
    ([BEARER, ("X-API-Key", OTHER)], ""),
    ([("X-API-Key", OTHER), ("X-API-Token", KEY)], ""),
    ([BEARER], f"?token={OTHER}"),
    ([], f"?token={KEY}&token={OTHER}"),
    ([BEARER, ("Sec-WebSocket-Protocol", f"openai-insecure-api-key.{OTHER}")], ""),
    ([("Sec-WebSocket-Protocol", f"openai-insecure-api-key.{KEY}, openai-insecure-api-key.{OTHER}")], ""),
    ([BEARER, ("X-API-Key", "sk-\xe9")], ""),
]


@pytest.mark.parametrize(("headers", "query"), AMBIGUOUS)
async def test_ambiguity(tmp_path: Path, headers: Headers, query: str) -> None:
    async with gateway_before(always(GOOD), tmp_path) as (upstream, gateway):
        reply = await talk(gateway.port, request("POST", "/v1/chat/completions" + query, [JSON, *headers], CHAT))
        error = check_error(reply, 400, "invalid_request_error", "ambiguous_credentials")
        assert KEY not in error["message"]
        assert OTHER not in error["message"]
        assert not upstream.requests


async def test_query_only_where_it_counts(tmp_path: Path) -> None:
    async with running_gateway(tmp_path, FREEGPT_API_KEY=KEY) as gateway:
        for path in ("/metrics", "/engines/m/chat/completions", "/nowhere"):
            method = "POST" if "engines" in path else "GET"
            data = request(method, f"{path}?token={KEY}", [("X-Forwarded-For", "192.0.2.1")], CHAT)
            check_error(await talk(gateway.port, data), 401, "invalid_request_error", None)
    async with running_gateway(tmp_path, FREEGPT_API_KEY=KEY, GATEWAY_QUERY_TOKEN="off") as gateway:
        data = request("GET", f"/v1/models?token={KEY}")
        check_error(await talk(gateway.port, data), 401, "invalid_request_error", None)


@pytest.mark.parametrize(
    "value",
    ["Bearer", "Bearer sk a", "Basic " + KEY, KEY, "Bearer\t" + KEY, "Token " + KEY, "Bearer " + "x" * 513,
     "Bearer \xa0" + KEY, "Bearer " + KEY + "\xad", "Bearer " + KEY + ",", "Bearer Bearer " + KEY],
)  # fmt: skip
async def test_malformed(start_gateway: StartGateway, value: str) -> None:
    gateway = await start_gateway(FREEGPT_API_KEY=KEY)
    reply = await gateway.post(headers=[("Authorization", value)])
    assert reply.status == 401
    assert KEY not in reply.json()["error"]["message"]


async def quotes_everything(received: Received, connection: Connection) -> None:
    """An upstream's error page with all that it was shown."""
    await connection.send(answer(received.raw_head + received.body, "400 Bad", "text/plain"))


async def test_an_upstream_that_quotes_its_request(tmp_path: Path) -> None:
    async with gateway_before(quotes_everything, tmp_path, GATEWAY_UPSTREAM_API_KEY="sk-upstream-secret") as (
        _,
        gateway,
    ):
        reply = await gateway.post(body=STREAM)
    assert (reply.status, reply.whole) == (400, True)
    assert b"sk-upstream-secret" not in reply.body
    assert CANARY.encode() not in reply.body


async def test_nothing_is_logged(tmp_path: Path) -> None:
    """In every form, accepted and refused, on paths that exist and not, with the fullest log."""
    async with running_upstream(always(GOOD)) as upstream:
        values = {"FREEGPT_API_KEY": KEY, "GATEWAY_UPSTREAM_URL": upstream.url, "GATEWAY_LOG_LEVEL": "debug"}
        with gateway_process(tmp_path, **values) as gateway:
            for _, headers, query in FORMS:
                for path in ("/v1/chat/completions", "/nowhere", f"/v1/files/{CANARY}x%00", f"/x/{CANARY}"):
                    odd = [("X-Client-Request-Id", f"id-{CANARY}")]
                    await talk(gateway.port, request("POST", path + query, [JSON, *headers, *odd], CHAT))
            await talk(gateway.port, post(headers=[BEARER, ("X-API-Key", OTHER)]))
            await talk(gateway.port, post(headers=[("X-API-Key", OTHER)]))
            async with connected(gateway.port) as client:
                await client.send(
                    b"GET /v1/models HTTP/1.1\r\nAuthorization: Bearer " + CANARY.encode() + b"\r\n\x00\r\n\r\n"
                )
                await client.reply()
            gateway.stop()
            log = gateway.log.read_text()
    assert log.count('"logger":"access"') >= 4 * len(FORMS)
    assert CANARY not in log
    assert CANARY.replace("-", "%2D") not in log
    assert OTHER not in log
