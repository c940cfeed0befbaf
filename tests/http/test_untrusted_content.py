"""What an upstream sends can do nothing in a browser, though it comes from the gateway's origin."""

from pathlib import Path

import pytest

from gateway.http.untrusted_content import SANDBOX, UNKNOWN, response_headers
from tests.support.gateway import BEARER, running_gateway
from tests.support.upstream import Connection, Received
from tests.support.wire import gateway_before, request, talk


@pytest.mark.parametrize("content_type", ["application/json", "text/event-stream"])
def test_json_and_events_are_left_alone(content_type: str) -> None:
    assert response_headers(content_type, {"etag": "1"}) == {"etag": "1", "Content-Type": content_type}


@pytest.mark.parametrize(
    "content_type", ["audio/mpeg", "image/png", "text/plain; charset=utf-8", "text/csv", "video/mp4", UNKNOWN]
)
def test_what_cannot_run_is_shown_in_a_sandbox(content_type: str) -> None:
    assert response_headers(content_type, {}) == {"Content-Type": content_type, "Content-Security-Policy": SANDBOX}


@pytest.mark.parametrize(
    "content_type",
    ["text/html", "TEXT/HTML; charset=utf-7", "application/xhtml+xml", "image/svg+xml", "text/xml", "application/pdf",
     "text/javascript", "multipart/x-mixed-replace; boundary=a", "application/x-made-up", "text/css", "audio/svg+xml"],
)  # fmt: skip
def test_what_a_browser_might_run_is_a_download(content_type: str) -> None:
    headers = response_headers(content_type, {})
    assert headers["Content-Disposition"] == "attachment"
    assert (headers["Content-Security-Policy"], headers["Content-Type"]) == (SANDBOX, content_type)


@pytest.mark.parametrize(
    "content_type",
    ["text/plain, text/html", "text/plain;,text/html", "text", "text/\udcff", "", "a/b\r\nX: 1", "a/b;é"],
)
def test_an_invalid_content_type_is_unknown(content_type: str) -> None:
    assert response_headers(content_type, {})["Content-Type"] == UNKNOWN


@pytest.mark.parametrize(
    ("content_type", "given", "sent"),
    [
        ("text/html", 'inline; filename="a.html"', 'attachment; filename="a.html"'),
        ("text/html", "inline", "attachment"),
        ("text/plain", "inline; filename=a.txt", 'inline; filename="a.txt"'),
        ("text/plain", "attachment; filename=a.txt", 'attachment; filename="a.txt"'),
        ("text/plain", "nonsense", "attachment"),
        ("application/json", 'attachment; filename="out.jsonl"', 'attachment; filename="out.jsonl"'),
        ("audio/mpeg", 'attachment; filename="../../.bash\\\\rc"', 'attachment; filename="_.._.bash__rc"'),
        ("audio/mpeg", 'attachment; filename="a\x1b[31m\x9b.mp3"', 'attachment; filename="a_[31m_.mp3"'),
        ("audio/mpeg", 'attachment; filename="x"; filename*=UTF-8\'\'%E2%80%AEa.mp3', 'attachment; filename="_a.mp3"'),
        ("audio/mpeg", "attachment; filename*=UTF-8''%C3%A9.mp3",
         "attachment; filename=\"_.mp3\"; filename*=UTF-8''%C3%A9.mp3"),
        ("audio/mpeg", 'attachment; filename=".."', "attachment"),
    ],
)  # fmt: skip
def test_a_disposition_never_says_more_than_a_plain_name(content_type: str, given: str, sent: str) -> None:
    assert response_headers(content_type, {"content-disposition": given})["Content-Disposition"] == sent


async def html(_received: Received, connection: Connection) -> None:
    await connection.send(
        b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 25\r\n\r\n<script>alert(1)</script>"
    )


async def test_html_of_an_upstream_is_a_download_in_a_sandbox(tmp_path: Path) -> None:
    async with gateway_before(html, tmp_path) as (_, gateway):
        reply = await talk(gateway.port, request("GET", "/v1/files/f/content", [BEARER]))
    assert reply.body == b"<script>alert(1)</script>"
    assert reply.header("X-Content-Type-Options") == "nosniff"
    assert reply.header("Content-Security-Policy") == SANDBOX
    assert reply.header("Content-Disposition") == "attachment"


@pytest.mark.parametrize(
    "target", ["/docs", "/openapi.json", "/healthz", "/nowhere", "/v1/models", "/api/tokens", "/metrics"]
)
async def test_every_response_says_that_its_type_is_not_to_be_guessed(tmp_path: Path, target: str) -> None:
    async with running_gateway(tmp_path) as gateway:
        for data in (request("GET", target), request("GET", target, [("Origin", "null")]), b"nonsense\r\n\r\n"):
            assert (await talk(gateway.port, data)).header("X-Content-Type-Options") == "nosniff"
