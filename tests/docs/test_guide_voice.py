"""The guide of the voice API: create a token, validate it, list tokens.

What the guide shows is typed in as it shows it, and works. A test with ``differs`` in its name shows a deliberate difference.
"""

import json
import re

from gateway.core.clock import to_iso
from tests.docs.guides import GuideGateway, missing_fields
from tests.support.reply import check_error
from tests.support.tokens import NOW

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


async def test_voice_from_the_first_token_to_the_list(empty: GuideGateway) -> None:
    created = await empty.curl(VOICE_CREATE)
    assert not missing_fields(created, VOICE_CREATED)
    assert created["name"] == "my-mobile-app"
    for _ in range(5):
        empty.clock.now += 60
        await empty.ask("GET", "/v1/models", created["token"])
    await empty.flush_last_used()
    valid = await empty.curl(VOICE_VALIDATE, created["token"])
    assert not missing_fields(valid, {"valid": True, **VOICE_USED})
    assert (valid["valid"], valid["usage_count"], valid["last_used"]) == (True, 5, to_iso(NOW + 300))
    listed = await empty.curl(VOICE_LIST, created["token"])
    assert not missing_fields(listed, {"tokens": [VOICE_USED]})
    assert len(listed["tokens"]) == 1


async def test_voice_in_python(empty: GuideGateway) -> None:
    assert await empty.python(VOICE_PYTHON) == "my-app\n"


async def test_voice_what_is_no_token(empty: GuideGateway) -> None:
    assert (await empty.curl(VOICE_VALIDATE, "invalid-token"))["valid"] is False
    assert (await empty.ask("GET", "/healthz"))["status"] == "ok"


async def test_voice_only_hashes_are_kept(empty: GuideGateway) -> None:
    created = await empty.curl(VOICE_CREATE)
    (stored,) = json.loads((empty.folder / "api_tokens.json").read_bytes())["tokens"]
    assert re.fullmatch("[0-9a-f]{64}", stored["hash"])
    assert created["token"] not in json.dumps(stored)


async def test_voice_differs_once_there_is_a_token_not_anybody_makes_another(empty: GuideGateway) -> None:
    """There, whoever reached the port made tokens; here, only while there is none, and then only on this machine."""
    await empty.curl(VOICE_CREATE)
    refused = await empty.curl(VOICE_CREATE)
    assert refused["error"]["type"] == "invalid_request_error"
    away = await empty.gateway.post("/api/tokens", b'{"name":"x"}', [("X-Forwarded-For", "203.0.113.9")])
    check_error(away, 401, "invalid_request_error", None)


async def test_voice_differs_times_say_that_they_are_utc(empty: GuideGateway) -> None:
    assert (await empty.curl(VOICE_CREATE))["created_at"] == to_iso(NOW) == "2027-01-15T08:00:00Z"
