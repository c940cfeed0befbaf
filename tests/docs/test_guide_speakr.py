"""The guide of Speakr: headers, pages, expiry.

What the guide shows is typed in as it shows it, and works. A test with ``differs`` in its name shows a deliberate difference.
"""

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.core.clock import to_iso
from tests.docs.guides import EMAIL, GuideGateway, guide_gateway, is_accepted, missing_fields
from tests.support.gateway import (
    BEARER,
    JSON,
    KEY,
    token_manager,
)
from tests.support.reply import check_error
from tests.support.tokens import NOW, content, entry

SPEAKR_HEADERS = [
    """curl -H "Authorization: Bearer YOUR_TOKEN_HERE" \\
     https://your-speakr-instance.com/api/tokens""",
    """curl -H "X-API-Token: YOUR_TOKEN_HERE" \\
     https://your-speakr-instance.com/api/tokens""",
    """curl -H "API-Token: YOUR_TOKEN_HERE" \\
     https://your-speakr-instance.com/api/tokens""",
    """curl "https://your-speakr-instance.com/api/tokens?token=YOUR_TOKEN_HERE\"""",
]
SPEAKR_PAGE = """curl -H "Authorization: Bearer YOUR_TOKEN_HERE" \\
     "https://your-speakr-instance.com/api/tokens?page=1&per_page=25\""""
SPEAKR_PAGINATION = {
    "page": 1, "per_page": 25, "total": 42, "total_pages": 2, "has_next": True, "has_prev": False,
}  # fmt: skip
SPEAKR_PYTHON = """
import requests

TOKEN = "YOUR_TOKEN_HERE"
BASE_URL = "https://your-speakr-instance.com"

headers = {"Authorization": f"Bearer {TOKEN}"}

response = requests.get(f"{BASE_URL}/api/tokens", headers=headers)
tokens = response.json()["tokens"]

for token in tokens:
    print(f"{token['id']}: {token['name']}")
"""
SPEAKR_SHELL = """
TOKEN="YOUR_TOKEN_HERE"
BASE_URL="https://your-speakr-instance.com"

curl -s -H "Authorization: Bearer $TOKEN" \\
     "$BASE_URL/api/tokens" | grep -o '"name":"[^"]*"'
"""


@pytest.fixture
async def speakr(tmp_path: Path) -> AsyncIterator[tuple[GuideGateway, str]]:
    """Somebody with 42 tokens. Recordings are what is listed there; what is listed here are tokens."""
    of_many = [entry(f"sk-number-{number}-of-many", name=f"token {number}", owner=EMAIL) for number in range(42)]
    (tmp_path / "api_tokens.json").write_bytes(content(*of_many))
    async with guide_gateway(tmp_path) as found:
        yield found, "sk-number-0-of-many"


@pytest.mark.parametrize("command", SPEAKR_HEADERS)
async def test_speakr_four_ways_to_send_it(speakr: tuple[GuideGateway, str], command: str) -> None:
    gateway, secret = speakr
    assert (await gateway.curl(command, secret))["pagination"]["total"] == 42


async def test_speakr_pages(speakr: tuple[GuideGateway, str]) -> None:
    gateway, secret = speakr
    answer = await gateway.curl(SPEAKR_PAGE, secret)
    assert answer["pagination"] == SPEAKR_PAGINATION
    assert len(answer["tokens"]) == 25


async def test_speakr_in_python_and_in_a_shell(speakr: tuple[GuideGateway, str]) -> None:
    gateway, secret = speakr
    printed = await gateway.python(SPEAKR_PYTHON, secret)
    assert len(re.findall(r"^tok_\w+: token \d+$", printed, re.MULTILINE)) == 42
    assert (await gateway.shell(SPEAKR_SHELL, secret)).startswith('"name":"token 0"\n"name":"token 1"\n')


@pytest.mark.parametrize(("choice", "days"), [("never", None), ("30d", 30), ("90d", 90), ("1y", 365)])
async def test_speakr_when_it_ends_by_itself(with_key: GuideGateway, choice: str, days: int | None) -> None:
    due = None if days is None else to_iso(NOW + days * 86_400)
    made = await with_key.ask("POST", "/api/tokens", KEY, {"name": "n8n automation", "expires_in": choice})
    assert made["expires_at"] == due
    listed = (await with_key.ask("GET", "/api/tokens", KEY))["tokens"][0]
    shown = {"name": "CLI access", "status": "active", "created_at": "2025-11-27T14:30:00Z"}
    assert not missing_fields(listed, shown)
    assert (listed["last_used"], listed["expires_at"]) == (None, due)
    if days is not None:
        with_key.clock.now += days * 86_400
        assert not await is_accepted(with_key.gateway.port, made["token"])
        assert (await with_key.ask("GET", f"/api/tokens/{made['id']}", KEY))["status"] == "expired"


@pytest.mark.parametrize("choice", ["never", "30d", "90d", "1y"])
def test_speakr_the_same_on_the_command_line(tmp_path: Path, choice: str) -> None:
    made = json.loads(token_manager(tmp_path, "create", "n8n automation", "--expires", choice, "--json").stdout)
    assert (made["expires_at"] is None) == (choice == "never")


async def test_speakr_revoked_tokens_stop_at_once_and_for_ever(with_key: GuideGateway) -> None:
    made = await with_key.ask("POST", "/api/tokens", KEY, {"name": "n8n automation"})
    await with_key.ask("POST", f"/api/tokens/{made['id']}/revoke", KEY)
    assert not await is_accepted(with_key.gateway.port, made["token"])
    for body in (b'{"status": "active"}', b'{"revoked_at": null}'):
        reply = await with_key.gateway.request("PATCH", f"/api/tokens/{made['id']}", [JSON, BEARER], body)
        check_error(reply, 400, "invalid_request_error", "unknown_parameter")
    assert (await with_key.ask("GET", f"/api/tokens/{made['id']}", KEY))["status"] == "revoked"


async def test_speakr_what_goes_wrong(with_key: GuideGateway) -> None:
    """The prefix requires a space, and a half-copied token is none."""
    made = await with_key.ask("POST", "/api/tokens", KEY, {"name": "CLI access"})
    for value in (f"Bearer{made['token']}", f"Bearer {made['token'][:-1]}", f"Token {made['token']}"):
        reply = await with_key.gateway.request("GET", "/api/tokens", [("Authorization", value)])
        check_error(reply, 401, "invalid_request_error", "invalid_api_key")
    member = await with_key.gateway.request("GET", "/api/tokens", [("API-Token", made["token"])])
    assert [token["id"] for token in member.json()["tokens"]] == [made["id"]]


async def test_speakr_differs_what_is_somebody_elses_does_not_exist(with_key: GuideGateway) -> None:
    """There 403, which tells that it exists; here 404."""
    mine, other = [await with_key.ask("POST", "/api/tokens", KEY, {"name": name}) for name in ("mine", "other")]
    reply = await with_key.gateway.request("GET", f"/api/tokens/{other['id']}", [("api-key", mine["token"])])
    check_error(reply, 404, "invalid_request_error", "token_not_found")


@pytest.mark.parametrize(
    "path",
    ["recordings", "recordings/123", "recordings/123/transcript", "recordings/123/summary", "tags"],
)
async def test_speakr_differs_there_are_no_recordings(with_key: GuideGateway, path: str) -> None:
    """There an application that transcribes; here its way to send tokens, page and expire is what was taken over."""
    reply = await with_key.gateway.get(f"/api/{path}", BEARER)
    check_error(reply, 404, "invalid_request_error", "unknown_url")
