"""The four guides that this gateway grew from: what they show is typed in here as they show it, and works.

A guide's address and placeholders are replaced, and nothing else. A test with ``differs`` in its name holds a difference on
purpose. What an answer must have is what the guide shows: every field, with a value of the same kind.
"""

import asyncio
import json
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.core.clock import to_iso
from tests.support.gateway import (
    BEARER,
    CHAT,
    JSON,
    KEY,
    ROOT,
    Running,
    environment,
    gateway_process,
    running_gateway,
    token_manager,
)
from tests.support.reply import check_error
from tests.support.tokens import NOW, Clock, content, entry
from tests.support.wire import post, talk

EMAIL = "user@example.com"
_ADDRESSES = re.compile(r"http://localhost:[58]000|https://your-speakr-instance\.com")
_SECRETS = re.compile(r"your-token-here|YOUR_TOKEN_HERE|sk-a1b2c3d4e5f6\.\.\.")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ?")


def lacks(answer: Any, shown: Any, place: str = "") -> list[str]:
    """Where an answer is not as the guide shows it."""
    if isinstance(shown, dict) and isinstance(answer, dict):
        return [
            problem
            for name, value in shown.items()
            for problem in (lacks(answer[name], value, f"{place}.{name}") if name in answer else [f"{place}.{name}"])
        ]
    if isinstance(shown, list) and isinstance(answer, list):
        return [problem for one in answer for problem in lacks(one, shown[0], f"{place}[]")]
    if isinstance(shown, str) and isinstance(answer, str):
        return [place] if bool(_TIME.fullmatch(shown)) != bool(_TIME.fullmatch(answer)) else []
    return [] if type(answer) is type(shown) else [place]


class Scene:
    """A gateway in a folder of its own, where commands and programs are run against it."""

    def __init__(self, folder: Path, gateway: Running, clock: Clock) -> None:
        self.folder = folder
        self.gateway = gateway
        self.clock = clock

    async def run(self, *command: str) -> str:
        """What it prints. It must succeed."""
        kept = environment(self.folder)
        process = await asyncio.create_subprocess_exec(
            *command, cwd=self.folder, env=kept, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        async with asyncio.timeout(60):
            out, err = await process.communicate()
        assert process.returncode == 0, err.decode()
        return out.decode()

    def at_home(self, text: str, held: str) -> str:
        """What a guide shows, with this gateway's address, and a secret where it has a place for one."""
        text = text.replace("python token_manager.py", f"{sys.executable} {ROOT}/token_manager.py")
        return _SECRETS.sub(held, _ADDRESSES.sub(self.gateway.url, text))

    async def shell(self, command: str, held: str = "") -> str:
        printed = await self.run("bash", "-euo", "pipefail", "-c", self.at_home(command, held))
        await self.gateway.refresh_tokens()
        return printed

    async def curl(self, command: str, held: str = "") -> Any:
        return json.loads(await self.shell(command, held))

    async def python(self, program: str, held: str = "") -> str:
        return await self.run(sys.executable, "-c", self.at_home(program, held))

    async def ask(self, method: str, path: str, held: str | None = None, body: Any = None) -> Any:
        headers = [JSON, ("X-API-Key", held)] if held else [JSON]
        data = None if body is None else json.dumps(body).encode()
        reply = await self.gateway.request(method, path, headers, data)
        assert reply.status in (200, 201), reply
        return reply.json()

    async def uses_are_written(self) -> None:
        await self.gateway.flush_last_used()
        await self.gateway.refresh_tokens()


@asynccontextmanager
async def scene(folder: Path, **values: str) -> AsyncIterator[Scene]:
    clock = Clock()
    values = {"GATEWAY_DATA_DIR": str(folder / "data"), **values}
    async with running_gateway(folder, app_options={"clock": clock}, **values) as gateway:
        yield Scene(folder, gateway, clock)


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[Scene]:
    """Nothing is configured yet."""
    async with scene(tmp_path) as found:
        yield found


@pytest.fixture
async def guarded(tmp_path: Path) -> AsyncIterator[Scene]:
    """There is an environment key."""
    async with scene(tmp_path, FREEGPT_API_KEY=KEY) as found:
        yield found


# The voice API: POST /api/tokens, validate, list

VOICE_CREATE = """curl -X POST http://localhost:5000/api/tokens \\
  -H "Content-Type: application/json" \\
  -d '{"name": "my-mobile-app"}'"""
VOICE_VALIDATE = """curl -X POST http://localhost:5000/api/tokens/validate \\
  -H "Content-Type: application/json" \\
  -d '{"token": "your-token-here"}'"""
VOICE_LIST = """curl -X GET http://localhost:5000/api/tokens \\
  -H "Authorization: Bearer your-token-here\""""
VOICE_PYTHON = """
import requests

response = requests.post('http://localhost:5000/api/tokens',
                        json={'name': 'my-app'})
token = response.json()['token']

headers = {'Authorization': f'Bearer {token}'}
response = requests.get('http://localhost:5000/api/tokens',
                       headers=headers)
print(response.json()['tokens'][0]['name'])
"""
VOICE_CREATED = {"token": "eyJhbGciOiJIUzI1NiIs", "name": "my-app-token", "created_at": "2024-01-15T10:30:00"}
VOICE_USED = {
    "name": "my-app-token",
    "created_at": "2024-01-15T10:30:00",
    "last_used": "2024-01-15T14:45:00",
    "usage_count": 5,
}


async def test_voice_from_the_first_token_to_the_list(opened: Scene) -> None:
    created = await opened.curl(VOICE_CREATE)
    assert not lacks(created, VOICE_CREATED)
    assert created["name"] == "my-mobile-app"
    for _ in range(5):
        opened.clock.now += 60
        await opened.ask("GET", "/v1/models", created["token"])
    await opened.uses_are_written()
    valid = await opened.curl(VOICE_VALIDATE, created["token"])
    assert not lacks(valid, {"valid": True, **VOICE_USED})
    assert (valid["valid"], valid["usage_count"], valid["last_used"]) == (True, 5, to_iso(NOW + 300))
    listed = await opened.curl(VOICE_LIST, created["token"])
    assert not lacks(listed, {"tokens": [VOICE_USED]})
    assert len(listed["tokens"]) == 1


async def test_voice_in_python(opened: Scene) -> None:
    assert await opened.python(VOICE_PYTHON) == "my-app\n"


async def test_voice_what_is_no_token(opened: Scene) -> None:
    assert (await opened.curl(VOICE_VALIDATE, "invalid-token"))["valid"] is False
    assert (await opened.ask("GET", "/healthz"))["status"] == "ok"


async def test_voice_only_hashes_are_kept(opened: Scene) -> None:
    created = await opened.curl(VOICE_CREATE)
    (stored,) = json.loads((opened.folder / "api_tokens.json").read_bytes())["tokens"]
    assert re.fullmatch("[0-9a-f]{64}", stored["hash"])
    assert created["token"] not in json.dumps(stored)


async def test_voice_differs_once_there_is_a_token_not_anybody_makes_another(opened: Scene) -> None:
    """There, whoever reached the port made tokens; here, only while there is none, and then only on this machine."""
    await opened.curl(VOICE_CREATE)
    refused = await opened.curl(VOICE_CREATE)
    assert refused["error"]["type"] == "invalid_request_error"
    away = await opened.gateway.post("/api/tokens", b'{"name":"x"}', [("X-Forwarded-For", "203.0.113.9")])
    check_error(away, 401, "invalid_request_error", None)


async def test_voice_differs_times_say_that_they_are_utc(opened: Scene) -> None:
    assert (await opened.curl(VOICE_CREATE))["created_at"] == to_iso(NOW) == "2027-01-15T08:00:00Z"


# The API store: a key for each user

STORE_STATUS = {
    "hasKey": True, "generatedAt": "2023-05-15T14:30:00Z", "lastUsed": "2023-05-16T09:12:43Z", "usageCount": 127,
    "keyName": "Production Key", "keyPrefix": "sk_abc123", "balance": 0,
}  # fmt: skip
STORE_KEY = {
    "success": True,
    "message": "API key generated successfully",
    "key": "sk_live_abcdef123",
    "keyPrefix": "sk_abc123",
}
STORE_REQUEST = {"email": "user@example.com", "key_name": "Production Key"}
STORE_REVOKED = {"success": True, "message": "API key revoked successfully"}


async def test_store_a_key_from_its_making_to_its_end(guarded: Scene) -> None:
    made = await guarded.ask("POST", "/api/user/key", KEY, STORE_REQUEST)
    assert set(made) == set(STORE_KEY)
    assert (made["success"], made["message"]) == (True, STORE_KEY["message"])
    assert made["key"].startswith(made["keyPrefix"])
    assert made["key"].startswith("sk_live_")
    guarded.clock.now += 60
    await guarded.ask("GET", "/v1/models", made["key"])
    await guarded.uses_are_written()
    for path, name in ((f"/api/user/key/{EMAIL}", "keyPreference"), (f"/api/user/usage/{EMAIL}", "usage")):
        for held in (KEY, made["key"]):
            answer = await guarded.ask("GET", path, held)
            assert set(answer) == {"success", name}
            assert set(answer[name]) == set(STORE_STATUS)
            assert not lacks(answer, {"success": True, name: STORE_STATUS})
    status = (await guarded.ask("GET", f"/api/user/key/{EMAIL}", KEY))["keyPreference"]
    assert (status["hasKey"], status["keyName"], status["usageCount"] >= 1) == (True, "Production Key", True)
    assert (status["generatedAt"], status["lastUsed"]) == (to_iso(NOW), to_iso(NOW + 60))
    assert await guarded.ask("DELETE", f"/api/user/key/{EMAIL}", made["key"]) == STORE_REVOKED
    reply = await guarded.gateway.request("GET", "/v1/models", [("X-API-Key", made["key"])])
    check_error(reply, 401, "invalid_request_error", "invalid_api_key")


async def test_store_without_a_key(guarded: Scene) -> None:
    for path, name in (("key", "keyPreference"), ("usage", "usage")):
        answer = await guarded.ask("GET", f"/api/user/{path}/{EMAIL}", KEY)
        assert answer == {"success": True, name: {
            "hasKey": False, "generatedAt": None, "lastUsed": None, "usageCount": 0, "keyName": None, "keyPrefix": None,
            "balance": 0,
        }}  # fmt: skip
    reply = await guarded.gateway.request("DELETE", f"/api/user/key/{EMAIL}", [BEARER])
    check_error(reply, 404, "invalid_request_error", "key_not_found")


async def test_store_a_new_key_replaces_the_old_one(guarded: Scene) -> None:
    first = await guarded.ask("POST", "/api/user/key", KEY, STORE_REQUEST)
    second = await guarded.ask("POST", "/api/user/key", first["key"], {**STORE_REQUEST, "key_name": "Next"})
    reply = await guarded.gateway.request("GET", "/v1/models", [("X-API-Key", first["key"])])
    check_error(reply, 401, "invalid_request_error", "invalid_api_key")
    await guarded.ask("GET", "/v1/models", second["key"])
    status = (await guarded.ask("GET", f"/api/user/key/{EMAIL}", second["key"]))["keyPreference"]
    assert (status["keyName"], status["keyPrefix"]) == ("Next", second["keyPrefix"])


async def test_store_an_address_may_be_escaped(guarded: Scene) -> None:
    for email, path in (("a+b@example.com", "a+b@example.com"), ("user@example.com", "user%40example.com")):
        await guarded.ask("POST", "/api/user/key", KEY, {"email": email})
        assert (await guarded.ask("GET", f"/api/user/key/{path}", KEY))["keyPreference"]["hasKey"] is True


async def test_store_every_route_takes_the_header(guarded: Scene) -> None:
    made = await guarded.ask("POST", "/api/user/key", KEY, STORE_REQUEST)
    for path in ("/v1/models", "/api/me", "/api/tokens", f"/api/user/key/{EMAIL}", f"/api/user/usage/{EMAIL}"):
        await guarded.ask("GET", path, made["key"])


async def test_store_differs_the_prefix_is_as_long_as_everywhere(guarded: Scene) -> None:
    """There ``sk_abc123``, which is no beginning of the key; here the first 14 characters."""
    made = await guarded.ask("POST", "/api/user/key", KEY, STORE_REQUEST)
    assert made["keyPrefix"] == made["key"][:14]


@pytest.mark.parametrize("method", ["GET", "DELETE", "POST"])
async def test_store_differs_keys_are_for_their_owner(guarded: Scene, method: str) -> None:
    """There, knowing an e-mail address was enough."""
    other = await guarded.ask("POST", "/api/user/key", KEY, {"email": "other@example.com"})
    await guarded.ask("POST", "/api/user/key", KEY, STORE_REQUEST)
    path = "/api/user/key" if method == "POST" else f"/api/user/key/{EMAIL}"
    body = json.dumps(STORE_REQUEST).encode() if method == "POST" else None
    for headers, status in (([], 401), ([("X-API-Key", other["key"])], 403 if method == "POST" else 404)):
        assert (await guarded.gateway.request(method, path, [JSON, *headers], body)).status == status


# FreeGPT: token_manager.py, .env, three modes

FREEGPT_LISTED = """\
Found 2 token(s):

1. sk-a1b2c3d4e5f...
   Name: my-application
   Status: ✓ Active
   Created: 2025-11-26T10:30:00
   Last used: 2025-11-26T11:45:23

2. sk-x9y8z7w6v5u...
   Name: mobile-app
   Status: ✓ Active
   Created: 2025-11-25T15:20:00
   Last used: Never
"""
FREEGPT_FILE = content(
    entry("sk-a1b2c3d4e5f6-and-so-on-to-its-end", name="my-application", last_used="2025-11-26T11:45:23Z"),
    entry("sk-x9y8z7w6v5u4-and-so-on-to-its-end", name="mobile-app", created_at="2025-11-25T15:20:00Z"),
)
FREEGPT_CURL = """curl -X POST http://localhost:8000/v1/chat/completions \\
  -H "Content-Type: application/json" \\
  -H "Authorization: Bearer sk-a1b2c3d4e5f6..." \\
  -d '{
    "model": "freegpt-4",
    "messages": [{"role": "user", "content": "Hello!"}]
  }'"""
FREEGPT_NAMES = """\
python token_manager.py create "production-web-app"
python token_manager.py create "staging-mobile-app"
python token_manager.py create "john-dev-testing"
python token_manager.py create "webapp-production"
python token_manager.py create "mobile-ios"
python token_manager.py create "dev-testing"
python token_manager.py create "github-actions"
python token_manager.py create test
python token_manager.py list"""


def test_freegpt_the_list_is_printed_as_shown(tmp_path: Path) -> None:
    (tmp_path / "api_tokens.json").write_bytes(FREEGPT_FILE)
    assert token_manager(tmp_path, "list").stdout.decode() == FREEGPT_LISTED


def test_freegpt_revoke_and_delete_by_the_printed_beginning(tmp_path: Path) -> None:
    (tmp_path / "api_tokens.json").write_bytes(FREEGPT_FILE)
    assert token_manager(tmp_path, "revoke", "sk-a1b2c3d4e5f").returncode == 0
    revoked = FREEGPT_LISTED.replace("✓ Active", "✗ Revoked", 1)
    assert token_manager(tmp_path, "list").stdout.decode() == revoked
    assert token_manager(tmp_path, "delete", "sk-a1b2c3d4e5f").returncode == 0
    assert "my-application" not in token_manager(tmp_path, "list").stdout.decode()
    assert token_manager(tmp_path, "revoke", "sk-a1b2c3d4e5f").returncode == 1


@pytest.mark.parametrize("command", ["revoke", "delete"])
def test_freegpt_a_longer_beginning_will_do(tmp_path: Path, command: str) -> None:
    (tmp_path / "api_tokens.json").write_bytes(content(entry("sk-compromised-token-prefix-and-the-rest")))
    assert token_manager(tmp_path, command, "sk-compromised-token-prefix").returncode == 0
    assert "✓ Active" not in token_manager(tmp_path, "list").stdout.decode()


async def test_freegpt_tokens_for_every_client(opened: Scene) -> None:
    printed = await opened.shell(FREEGPT_NAMES)
    assert printed.count("Created token") == 8
    assert "Found 8 token(s):" in printed
    assert printed.count("Last used: Never") == 8


async def test_freegpt_a_created_token_answers_and_its_use_is_listed(opened: Scene) -> None:
    made = await opened.shell("python token_manager.py create my-application")
    held = re.findall(r"sk-[0-9A-Za-z]{49}", made)[0]
    answer = await opened.curl(FREEGPT_CURL, held)
    assert answer["choices"][0]["message"] == {"role": "assistant", "content": "Hello!", "refusal": None}
    await opened.uses_are_written()
    listed = (await opened.shell("python token_manager.py list")).splitlines()
    assert listed[:5] == [
        "Found 1 token(s):",
        "",
        f"1. {held[:14]}...",
        "   Name: my-application",
        "   Status: ✓ Active",
    ]
    assert listed[6] == f"   Last used: {(to_iso(NOW) or '').removesuffix('Z')}"


async def test_freegpt_the_old_python_client(opened: Scene) -> None:
    """What ``openai.ChatCompletion.create`` of version 0.28 sends to ``openai.api_base``."""
    made = await opened.shell("python token_manager.py create my-application")
    held = re.findall(r"sk-[0-9A-Za-z]{49}", made)[0]
    headers = [("User-Agent", "OpenAI/v1 PythonBindings/0.28.1"), ("X-OpenAI-Client-User-Agent", '{"lang": "python"}')]
    body = b'{"model": "freegpt-4", "messages": [{"role": "user", "content": "Hello!"}]}'
    bearer = ("Authorization", f"Bearer {held}")
    reply = await opened.gateway.post("/v1/chat/completions", body, [bearer, *headers])
    assert reply.json()["choices"][0]["message"]["content"] == "Hello!"


async def enters(port: int, held: str | None) -> bool:
    headers = [] if held is None else [("Authorization", f"Bearer {held}")]
    reply = await talk(port, post(body=CHAT, headers=headers))
    if reply.status != 200:
        error = check_error(reply, 401, "invalid_request_error", "invalid_api_key" if held else None)
        assert held is None or error["message"].startswith("Invalid API key provided")
    return reply.status == 200


@pytest.mark.parametrize("name", ["FREEGPT_API_KEY", "OPENAI_API_KEY"])
async def test_freegpt_three_modes_of_which_the_last_is_off_after_a_restart(tmp_path: Path, name: str) -> None:
    """No key and no token; the key of the ``.env``; that and a token of the file; and back, as the guide does it."""
    with gateway_process(tmp_path) as gateway:
        assert await enters(gateway.port, None)
    (tmp_path / ".env").write_text(f"{name}=sk-a1b2c3d4e5f6-of-the-environment\n")
    key = "sk-a1b2c3d4e5f6-of-the-environment"
    with gateway_process(tmp_path) as gateway:
        found = [await enters(gateway.port, held) for held in (None, key, "sk-another-key")]
        assert found == [False, True, False]
        made = await asyncio.to_thread(token_manager, tmp_path, "create", "my-application", "--json")
        held = json.loads(made.stdout)["token"]
        async with asyncio.timeout(5):
            while not await enters(gateway.port, held):
                await asyncio.sleep(0.02)
        assert [await enters(gateway.port, one) for one in (None, key)] == [False, True]
    (tmp_path / ".env").unlink()
    with gateway_process(tmp_path) as gateway:
        assert [await enters(gateway.port, one) for one in (None, key, held)] == [False, False, True]
    (tmp_path / "api_tokens.json").rename(tmp_path / "api_tokens.json.backup")
    with gateway_process(tmp_path) as gateway:
        assert await enters(gateway.port, None)


def test_freegpt_secrets_stay_out_of_git() -> None:
    ignored = (ROOT / ".gitignore").read_text().split()
    assert {"api_tokens.json", ".env"} <= set(ignored)


# Speakr: headers, pages, ends

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
async def speakr(tmp_path: Path) -> AsyncIterator[tuple[Scene, str]]:
    """Somebody with 42 tokens. Recordings are what is listed there; what is listed here are tokens."""
    of_many = [entry(f"sk-number-{number}-of-many", name=f"token {number}", owner=EMAIL) for number in range(42)]
    (tmp_path / "api_tokens.json").write_bytes(content(*of_many))
    async with scene(tmp_path) as found:
        yield found, "sk-number-0-of-many"


@pytest.mark.parametrize("command", SPEAKR_HEADERS)
async def test_speakr_four_ways_to_send_it(speakr: tuple[Scene, str], command: str) -> None:
    here, held = speakr
    assert (await here.curl(command, held))["pagination"]["total"] == 42


async def test_speakr_pages(speakr: tuple[Scene, str]) -> None:
    here, held = speakr
    answer = await here.curl(SPEAKR_PAGE, held)
    assert answer["pagination"] == SPEAKR_PAGINATION
    assert len(answer["tokens"]) == 25


async def test_speakr_in_python_and_in_a_shell(speakr: tuple[Scene, str]) -> None:
    here, held = speakr
    printed = await here.python(SPEAKR_PYTHON, held)
    assert len(re.findall(r"^tok_\w+: token \d+$", printed, re.MULTILINE)) == 42
    assert (await here.shell(SPEAKR_SHELL, held)).startswith('"name":"token 0"\n"name":"token 1"\n')


@pytest.mark.parametrize(("choice", "days"), [("never", None), ("30d", 30), ("90d", 90), ("1y", 365)])
async def test_speakr_when_it_ends_by_itself(guarded: Scene, choice: str, days: int | None) -> None:
    due = None if days is None else to_iso(NOW + days * 86_400)
    made = await guarded.ask("POST", "/api/tokens", KEY, {"name": "n8n automation", "expires_in": choice})
    assert made["expires_at"] == due
    listed = (await guarded.ask("GET", "/api/tokens", KEY))["tokens"][0]
    shown = {"name": "CLI access", "status": "active", "created_at": "2025-11-27T14:30:00Z"}
    assert not lacks(listed, shown)
    assert (listed["last_used"], listed["expires_at"]) == (None, due)
    if days is not None:
        guarded.clock.now += days * 86_400
        assert not await enters(guarded.gateway.port, made["token"])
        assert (await guarded.ask("GET", f"/api/tokens/{made['id']}", KEY))["status"] == "expired"


@pytest.mark.parametrize("choice", ["never", "30d", "90d", "1y"])
def test_speakr_the_same_on_the_command_line(tmp_path: Path, choice: str) -> None:
    made = json.loads(token_manager(tmp_path, "create", "n8n automation", "--expires", choice, "--json").stdout)
    assert (made["expires_at"] is None) == (choice == "never")


async def test_speakr_revoked_tokens_stop_at_once_and_for_ever(guarded: Scene) -> None:
    made = await guarded.ask("POST", "/api/tokens", KEY, {"name": "n8n automation"})
    await guarded.ask("POST", f"/api/tokens/{made['id']}/revoke", KEY)
    assert not await enters(guarded.gateway.port, made["token"])
    for body in (b'{"status": "active"}', b'{"revoked_at": null}'):
        reply = await guarded.gateway.request("PATCH", f"/api/tokens/{made['id']}", [JSON, BEARER], body)
        check_error(reply, 400, "invalid_request_error", "unknown_parameter")
    assert (await guarded.ask("GET", f"/api/tokens/{made['id']}", KEY))["status"] == "revoked"


async def test_speakr_what_goes_wrong(guarded: Scene) -> None:
    """The prefix requires a space, and a half-copied token is none."""
    made = await guarded.ask("POST", "/api/tokens", KEY, {"name": "CLI access"})
    for value in (f"Bearer{made['token']}", f"Bearer {made['token'][:-1]}", f"Token {made['token']}"):
        reply = await guarded.gateway.request("GET", "/api/tokens", [("Authorization", value)])
        check_error(reply, 401, "invalid_request_error", "invalid_api_key")
    member = await guarded.gateway.request("GET", "/api/tokens", [("API-Token", made["token"])])
    assert [token["id"] for token in member.json()["tokens"]] == [made["id"]]


async def test_speakr_differs_what_is_somebody_elses_does_not_exist(guarded: Scene) -> None:
    """There 403, which tells that it exists; here 404."""
    mine, other = [await guarded.ask("POST", "/api/tokens", KEY, {"name": name}) for name in ("mine", "other")]
    reply = await guarded.gateway.request("GET", f"/api/tokens/{other['id']}", [("api-key", mine["token"])])
    check_error(reply, 404, "invalid_request_error", "token_not_found")
