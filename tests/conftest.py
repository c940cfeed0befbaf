"""Fixtures for every test."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from pytest_aiohttp.plugin import AiohttpClient, AiohttpServer

from tests.support.blocking import BlockingCalls, noting_blocking_calls
from tests.support.gateway import GatewayTestServer, Running, StartGateway, new_app
from tests.support.upstream import JsonUpstream, StartUpstream

settings.register_profile(
    "default", deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
settings.load_profile("default")


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The developer's own keys and settings are no part of a test."""
    for name in list(os.environ):
        if name.startswith(("GATEWAY_", "FREEGPT_", "OPENAI_")) and name != "GATEWAY_TEST_CAMPAIGN":
            monkeypatch.delenv(name)
    yield


@pytest.fixture
def start_gateway(aiohttp_client: AiohttpClient, tmp_path: Path) -> StartGateway:
    """Starts gateways that end with the test, by default in the folder of the test."""

    async def start(
        folder: Path | None = None, *, app_options: Mapping[str, Any] | None = None, **values: str
    ) -> Running:
        app = new_app(folder or tmp_path, app_options, **values)
        return Running(await aiohttp_client(GatewayTestServer(app)), app)

    return start


@pytest.fixture
def start_upstream(aiohttp_server: AiohttpServer) -> StartUpstream:
    """Starts upstreams that answer with JSON and end with the test."""

    async def start(body: bytes) -> JsonUpstream:
        upstream = JsonUpstream(body)
        server = await aiohttp_server(upstream.app)
        upstream.url = str(server.make_url("/v1"))
        return upstream

    return start


@pytest.fixture(scope="session")
def blocking_calls() -> Iterator[BlockingCalls]:
    """Under mutmut nothing is noted: it renames functions, so that those that may block are not found."""
    if "MUTANT_UNDER_TEST" in os.environ:
        yield BlockingCalls()
        return
    with noting_blocking_calls() as calls:
        yield calls


@pytest.fixture(autouse=True)
def _the_event_loop_is_not_blocked(blocking_calls: BlockingCalls) -> Iterator[None]:
    """Fails a test in which the package blocks the event loop, however the call ended."""
    blocking_calls.found.clear()
    yield
    assert not blocking_calls.found, "\n".join(blocking_calls.found[:3])
