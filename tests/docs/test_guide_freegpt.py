"""The guide of FreeGPT: token_manager.py, .env, three modes of authentication.

What the guide shows is typed in as it shows it, and works. A test with ``differs`` in its name shows a deliberate difference.
"""

import asyncio
import json
import re
from pathlib import Path

import pytest

from gateway.core.clock import to_iso
from tests.docs.guides import GuideGateway, is_accepted
from tests.support.gateway import (
    ROOT,
    gateway_process,
    token_manager,
)
from tests.support.tokens import NOW, content, entry

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


async def test_freegpt_tokens_for_every_client(empty: GuideGateway) -> None:
    printed = await empty.shell(FREEGPT_NAMES)
    assert printed.count("Created token") == 8
    assert "Found 8 token(s):" in printed
    assert printed.count("Last used: Never") == 8


async def test_freegpt_a_created_token_answers_and_its_use_is_listed(empty: GuideGateway) -> None:
    made = await empty.shell("python token_manager.py create my-application")
    secret = re.findall(r"sk-[0-9A-Za-z]{49}", made)[0]
    answer = await empty.curl(FREEGPT_CURL, secret)
    assert answer["choices"][0]["message"] == {"role": "assistant", "content": "Hello!", "refusal": None}
    await empty.flush_last_used()
    listed = (await empty.shell("python token_manager.py list")).splitlines()
    assert listed[:5] == [
        "Found 1 token(s):",
        "",
        f"1. {secret[:14]}...",
        "   Name: my-application",
        "   Status: ✓ Active",
    ]
    assert listed[6] == f"   Last used: {(to_iso(NOW) or '').removesuffix('Z')}"


async def test_freegpt_the_old_python_client(empty: GuideGateway) -> None:
    """What ``openai.ChatCompletion.create`` of version 0.28 sends to ``openai.api_base``."""
    made = await empty.shell("python token_manager.py create my-application")
    secret = re.findall(r"sk-[0-9A-Za-z]{49}", made)[0]
    headers = [("User-Agent", "OpenAI/v1 PythonBindings/0.28.1"), ("X-OpenAI-Client-User-Agent", '{"lang": "python"}')]
    body = b'{"model": "freegpt-4", "messages": [{"role": "user", "content": "Hello!"}]}'
    bearer = ("Authorization", f"Bearer {secret}")
    reply = await empty.gateway.post("/v1/chat/completions", body, [bearer, *headers])
    assert reply.json()["choices"][0]["message"]["content"] == "Hello!"


@pytest.mark.parametrize("name", ["FREEGPT_API_KEY", "OPENAI_API_KEY"])
async def test_freegpt_three_modes_of_which_the_last_is_off_after_a_restart(tmp_path: Path, name: str) -> None:
    """No key and no token; the key of the ``.env``; that and a token of the file; and back, as the guide does it."""
    with gateway_process(tmp_path) as gateway:
        assert await is_accepted(gateway.port, None)
    (tmp_path / ".env").write_text(f"{name}=sk-a1b2c3d4e5f6-of-the-environment\n")
    key = "sk-a1b2c3d4e5f6-of-the-environment"
    with gateway_process(tmp_path) as gateway:
        found = [await is_accepted(gateway.port, secret) for secret in (None, key, "sk-another-key")]
        assert found == [False, True, False]
        made = await asyncio.to_thread(token_manager, tmp_path, "create", "my-application", "--json")
        secret = json.loads(made.stdout)["token"]
        async with asyncio.timeout(5):
            while not await is_accepted(gateway.port, secret):
                await asyncio.sleep(0.02)
        assert [await is_accepted(gateway.port, one) for one in (None, key)] == [False, True]
    (tmp_path / ".env").unlink()
    with gateway_process(tmp_path) as gateway:
        assert [await is_accepted(gateway.port, one) for one in (None, key, secret)] == [False, False, True]
    (tmp_path / "api_tokens.json").rename(tmp_path / "api_tokens.json.backup")
    with gateway_process(tmp_path) as gateway:
        assert await is_accepted(gateway.port, None)


def test_freegpt_secrets_stay_out_of_git() -> None:
    ignored = (ROOT / ".gitignore").read_text().split()
    assert {"api_tokens.json", ".env"} <= set(ignored)
