"""SIGHUP: all settings are read again, all or nothing, in every worker."""

import asyncio
import http.client
import json
import signal
from pathlib import Path
from typing import Any

import pytest

from gateway.app import App
from gateway.cli.reload import Reloader
from gateway.config.settings import ConfigurationError, Problem, Settings
from gateway.providers.echo import provider as echo
from gateway.providers.openai import provider as openai
from tests.server.test_worker import AUTH, connect, get, get_once, streaming, until
from tests.support.gateway import KEY, Process, gateway_process, load_settings


def lines(gateway: Process, text: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in gateway.log.read_text().splitlines() if line.startswith("{")]
    return [line for line in found if text in line.get("message", "")]


def reload(gateway: Process, text: str, count: int = 1) -> dict[str, Any]:
    """Sends SIGHUP and returns the line of the log that says what came of it."""
    before = len(lines(gateway, text))
    gateway.popen.send_signal(signal.SIGHUP)
    until(lambda: len(lines(gateway, text)) >= before + count)
    return lines(gateway, text)[-1]


@pytest.mark.parametrize("workers", [1, 2])
def test_new_settings_are_used_by_every_worker_and_the_difference_is_logged(tmp_path: Path, workers: int) -> None:
    env = tmp_path / ".env"
    env.write_text(
        f"FREEGPT_API_KEY={KEY}\nGATEWAY_QUERY_TOKEN=on\nGATEWAY_WORKERS={workers}\nGATEWAY_COUNTERS=sqlite\n"
    )
    with gateway_process(tmp_path) as gateway:
        assert get_once(gateway, f"/v1/models?token={KEY}")[0] == 200
        env.write_text(f"FREEGPT_API_KEY={KEY}\nGATEWAY_QUERY_TOKEN=off\nGATEWAY_WORKERS=7\nGATEWAY_COUNTERS=sqlite\n")
        told = reload(gateway, "the settings are reloaded", 1 if workers == 1 else workers + 1)
        assert told["changes"] == ["GATEWAY_QUERY_TOKEN: True -> False"]
        until(lambda: lines(gateway, "at the next start only"))
        assert lines(gateway, "at the next start only")[-1]["changes"][-1] == f"GATEWAY_WORKERS: {workers} -> 7"
        until(lambda: all(get_once(gateway, f"/v1/models?token={KEY}")[0] == 401 for _ in range(8)))
        assert get_once(gateway, "/healthz")[0] == 200


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_bad_file_changes_nothing_and_is_told(tmp_path: Path, workers: str) -> None:
    env = tmp_path / ".env"
    env.write_text(f"FREEGPT_API_KEY={KEY}\n")
    with gateway_process(tmp_path, GATEWAY_WORKERS=workers) as gateway:
        env.write_text("FREEGPT_API_KEY=another-key\nGATEWAY_QUERY_TOKEN=perhaps\n")
        told = reload(gateway, "not reloaded")
        assert "GATEWAY_QUERY_TOKEN" in told["problems"][0]
        with connect(gateway) as connection:
            assert get(connection, "/v1/models", AUTH)[0] == 200


def test_a_running_stream_goes_on(tmp_path: Path) -> None:
    env = tmp_path / ".env"
    with streaming(tmp_path) as (gateway, upstream, response):
        env.write_text("GATEWAY_QUERY_TOKEN=off\n")
        reload(gateway, "the settings are reloaded")
        upstream.finish()
        assert response.read().endswith(b"data: [DONE]\n\n")


class Reloads:
    """Settings that are loaded one after the other; an error is raised."""

    def __init__(self, *found: Settings | ConfigurationError) -> None:
        self.left = list(found)

    def load(self) -> Settings:
        one = self.left.pop(0)
        if isinstance(one, ConfigurationError):
            raise one
        return one


async def test_settings_that_an_application_cannot_use_change_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = load_settings(tmp_path)
    app = App(settings)
    await app.start()
    try:
        (tmp_path / "prices.toml").write_text('[prices."m"]\ninput = 1\n')
        values = {"GATEWAY_CONFIG": str(tmp_path / "prices.toml"), "FREEGPT_API_KEY": KEY}
        broken = load_settings(tmp_path, **values, GATEWAY_UPSTREAM_URL="http://127.0.0.1:1/v1")
        reloader = Reloader(settings, Reloads(broken, ConfigurationError([Problem("A", "is wrong")])).load)
        pipeline, provider = app.pipeline, app.provider
        await reloader.reload_app(app)
        assert "m.output" in str(caplog.records[-1].__dict__["problems"])
        assert "the settings are reloaded" not in caplog.text
        await reloader.reload_app(app)
        assert (app.pipeline, app.provider, reloader.settings) == (pipeline, provider, settings)
        assert app.mode.value == "open", "a key that is not in force must not end open mode, which is for good"
    finally:
        await app.stop()


async def test_a_provider_is_replaced_only_where_its_settings_change(tmp_path: Path) -> None:
    app = App(load_settings(tmp_path))
    await app.start()
    try:
        provider, pipeline = app.provider, app.pipeline
        app.reload(load_settings(tmp_path, GATEWAY_QUERY_TOKEN="off"), echo.create)
        assert app.provider is provider
        assert app.pipeline is not pipeline
        app.reload(load_settings(tmp_path, GATEWAY_UPSTREAM_URL="http://127.0.0.1:1/v1"), openai.create)
        assert app.backend_name == "openai"
        app.reload(load_settings(tmp_path, FREEGPT_API_KEY=KEY), echo.create)
        assert app.mode.value == "environment"
        app.reload(load_settings(tmp_path), echo.create)
        assert app.mode.value == "file", "a gateway that runs never becomes open"
        await asyncio.sleep(0)  # the tasks that close the unused providers begin
    finally:
        await app.stop()


async def test_an_application_that_fails_otherwise_has_the_settings_from_before(tmp_path: Path) -> None:
    class Broken:
        def reload(self, settings: Settings, create: object) -> None:
            raise OSError("no more files")

    settings = load_settings(tmp_path)
    reloader = Reloader(settings, Reloads(load_settings(tmp_path, FREEGPT_API_KEY=KEY)).load)
    with pytest.raises(OSError, match="no more files"):
        await reloader.reload_app(Broken())
    assert reloader.settings is settings


async def test_reloads_leave_nothing_behind(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What is told of the tokens is told to one authentication, however often settings were reloaded."""
    app = App(load_settings(tmp_path))
    await app.start()
    try:
        for number in range(3):
            app.reload(load_settings(tmp_path, GATEWAY_ALLOW_OPEN="on" if number % 2 else "off"), echo.create)
        app.reload(load_settings(tmp_path, FREEGPT_API_KEY=KEY), echo.create)
        told = [one.getMessage() for one in caplog.records if "every client needs a key" in one.getMessage()]
        assert told == ["there is an environment key now: from here on every client needs a key"]
    finally:
        await app.stop()


def test_a_stream_of_an_environment_key_that_was_replaced_is_ended(tmp_path: Path) -> None:
    env = tmp_path / ".env"
    env.write_text(f"FREEGPT_API_KEY={KEY}\n")
    with streaming(tmp_path, key=None) as (gateway, _, response):
        env.write_text("FREEGPT_API_KEY=another-key-of-some-length\n")
        reload(gateway, "the settings are reloaded")
        with pytest.raises(http.client.IncompleteRead) as caught:
            response.read()
        assert b'"code":"invalid_api_key"' in caught.value.partial
        with connect(gateway) as connection:
            assert get(connection, "/v1/models", AUTH)[0] == 401
