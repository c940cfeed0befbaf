"""The composition root: what is invalid is found before a gateway starts, and its parts belong together."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.app import App, WorkerShared
from gateway.auth.principal import Mode
from gateway.providers.registry import UnknownProvider
from gateway.tokens.stores.json_format import TokensDamaged
from tests.support.gateway import KEY, StartGateway, load_settings
from tests.support.tokens import content, entry


async def test_an_unknown_provider_is_found_at_once(tmp_path: Path) -> None:
    with pytest.raises(UnknownProvider, match="nowhere"):
        App(load_settings(tmp_path, GATEWAY_BACKEND="nowhere"))


async def test_invalid_prices_are_found_at_once(tmp_path: Path) -> None:
    config = tmp_path / "gateway.toml"
    config.write_text('[prices."m"]\ninput = 1\n')
    with pytest.raises(ValueError, match=r"prices\.m\.output"):
        App(load_settings(tmp_path, GATEWAY_CONFIG=str(config)))


async def test_a_damaged_token_file_is_found_at_once(tmp_path: Path) -> None:
    (tmp_path / "api_tokens.json").write_bytes(b"{")
    with pytest.raises(TokensDamaged):
        await App(load_settings(tmp_path)).start()


@asynccontextmanager
async def started(folder: Path, shared: WorkerShared | None = None, **values: str) -> AsyncIterator[App]:
    app = App(load_settings(folder, **values), shared=shared)
    await app.start()
    try:
        yield app
    finally:
        await app.stop()


@pytest.mark.parametrize(
    ("values", "tokens", "mode"),
    [
        ({}, [], Mode.OPEN),
        ({"FREEGPT_API_KEY": KEY}, [], Mode.ENVIRONMENT),
        ({}, [entry()], Mode.FILE),
        ({"FREEGPT_API_KEY": KEY}, [entry()], Mode.ENVIRONMENT_AND_FILE),
    ],
)
async def test_the_mode(tmp_path: Path, values: dict[str, str], tokens: list[dict[str, str]], mode: Mode) -> None:
    (tmp_path / "api_tokens.json").write_bytes(content(*tokens))
    async with started(tmp_path, **values) as app:
        assert (app.mode, app.backend_name) == (mode, "echo")


async def test_enforcement_is_shared_by_workers(tmp_path: Path) -> None:
    shared = WorkerShared.new(2)
    (tmp_path / "api_tokens.json").write_bytes(content(entry()))
    async with started(tmp_path, shared) as app:
        assert app.mode is Mode.FILE
    (tmp_path / "api_tokens.json").unlink()
    async with started(tmp_path, shared._replace(worker=1)) as app:
        assert app.mode is not Mode.OPEN


async def test_a_stopped_gateway_has_written_what_waited(tmp_path: Path, start_gateway: StartGateway) -> None:
    gateway = await start_gateway(FREEGPT_API_KEY=KEY)
    assert (await gateway.post()).status == 200
    await gateway.client.close()
    again = await start_gateway(FREEGPT_API_KEY=KEY)
    usage = await again.request("GET", "/api/usage", [("api-key", KEY)])
    assert usage.json()["total"]["requests"] == 1
