"""A token that another process has just made works at once, and nobody who guesses makes that dear."""

import asyncio
from pathlib import Path

import pytest

from gateway.core.clock import SteadyClock
from gateway.tokens import cache
from gateway.tokens.changes import TokenSpec
from gateway.tokens.stores.json_file import JsonTokenFile
from tests.support.gateway import KEY, StartGateway
from tests.support.reply import check_error
from tests.support.tokens import BY, STRANGE_KEY, TokenEditor
from tests.support.wire import request, talk


@pytest.mark.parametrize("form", ["header", "query"])
async def test_it_is_known_before_the_next_look_is_due(
    tmp_path: Path, start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    monkeypatch.setattr(cache, "POLL_SECONDS", 3600.0)
    gateway = await start_gateway(FREEGPT_API_KEY=KEY)
    service = TokenEditor(tmp_path / "api_tokens.json", SteadyClock())
    made = await asyncio.to_thread(service.create, BY, TokenSpec(name="new"))
    data = {
        "header": request("GET", "/v1/models", [("api-key", made.secret)]),
        "query": request("GET", f"/v1/models?token={made.secret}"),
    }
    assert (await talk(gateway.port, data[form])).status == 200


async def test_a_mistyped_secret_costs_no_look(start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "POLL_SECONDS", 3600.0)
    gateway = await start_gateway(FREEGPT_API_KEY=KEY)
    reads = []
    read = JsonTokenFile.read
    monkeypatch.setattr(JsonTokenFile, "read", lambda file: reads.append(1) or read(file))
    data = request("GET", "/v1/models", [("api-key", STRANGE_KEY[:-1] + "x")])
    check_error(await talk(gateway.port, data), 401, "invalid_request_error", "invalid_api_key")
    assert not reads


async def test_many_guesses_share_a_look(start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "POLL_SECONDS", 3600.0)
    gateway = await start_gateway(FREEGPT_API_KEY=KEY)
    looked = [0]
    read = JsonTokenFile.read

    def counted(file: JsonTokenFile) -> object:
        looked[0] += 1
        return read(file)

    monkeypatch.setattr(JsonTokenFile, "read", counted)
    await asyncio.gather(*(gateway.refresh_tokens() for _ in range(100)))
    assert 1 <= looked[0] <= 2
    data = request("GET", "/v1/models", [("api-key", STRANGE_KEY)])
    check_error(await talk(gateway.port, data), 401, "invalid_request_error", "invalid_api_key")
