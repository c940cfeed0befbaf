"""Gateways to test: in this process on a real socket, and as a process of its own."""

import asyncio
import io
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import aiohttp
from aiohttp import web
from aiohttp.test_utils import BaseTestServer, TestClient
from multidict import CIMultiDict
from yarl import URL

from gateway.app import App
from gateway.config import settings
from gateway.server.http1_server import Http1Server
from tests.support.reply import Headers, Reply

ROOT = Path(__file__).parents[2]
KEY = "sk-made-up-environment-key-for-tests"
BEARER = ("Authorization", f"Bearer {KEY}")
JSON = ("Content-Type", "application/json")
CHAT = b'{"model":"m","messages":[{"role":"user","content":"Hello there"}]}'
STREAM = CHAT[:-1] + b',"stream":true}'


class _Runner(web.ServerRunner):
    """Runs an app behind aiohttp's server, with the life of the app around it."""

    def __init__(self, app: App) -> None:
        super().__init__(Http1Server(app.pipeline.handle), shutdown_timeout=1.0)
        self.app = app

    async def setup(self) -> None:
        await self.app.start()
        await super().setup()

    async def shutdown(self) -> None:
        await self.app.drain(0)

    async def cleanup(self) -> None:
        await super().cleanup()
        await self.app.stop()


class GatewayTestServer(BaseTestServer):
    """A gateway on a free port, for ``aiohttp_client`` or aiohttp's ``TestClient``."""

    def __init__(self, app: App) -> None:
        super().__init__()
        self.app = app

    async def _make_runner(self, **kwargs: Any) -> web.BaseRunner:
        return _Runner(self.app)


class Running:
    """A gateway in this process, and a client of it. ``app`` is open to inspection."""

    def __init__(self, client: "TestClient[Any, Any]", app: App) -> None:
        self.client = client
        self.app = app

    @property
    def port(self) -> int:
        assert self.client.port is not None
        return self.client.port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def request(self, method: str, target: str, headers: Headers = (), body: bytes | None = None) -> Reply:
        """Sends a request; ``target`` goes as it is."""
        response = await self.client.request(
            method,
            URL(target, encoded=True),
            headers=CIMultiDict(headers),
            data=None if body is None else io.BytesIO(body),
            skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent"),
            allow_redirects=False,
        )
        parts: list[bytes] = []
        whole = True
        try:
            async for part in response.content.iter_any():
                parts.append(part)
        except aiohttp.ClientPayloadError:
            whole = False
        return Reply(response.status, list(response.headers.items()), b"".join(parts), whole)

    async def get(self, target: str, *headers: tuple[str, str]) -> Reply:
        return await self.request("GET", target, headers)

    async def post(
        self, target: str = "/v1/chat/completions", body: bytes = CHAT, headers: Headers = (BEARER,)
    ) -> Reply:
        return await self.request("POST", target, [JSON, *headers], body)

    async def metrics(self) -> str:
        """Returns the text of ``/metrics``."""
        return (await self.get("/metrics")).body.decode()

    async def refresh_tokens(self) -> None:
        """Reads the token file now."""
        await self.app.token_cache.refresh()

    async def flush_last_used(self) -> None:
        """Writes the last-used times that wait into the token file."""
        await self.app.last_used.flush()

    async def flush_usage(self) -> None:
        """Writes the ledger entries that wait into the database."""
        await self.app.ledger.flush()

    async def wait_started(self, seconds: float = 10) -> None:
        """Waits until a request is in flight. Raises TimeoutError."""
        async with asyncio.timeout(seconds):
            while not len(self.app.in_flight):
                await asyncio.sleep(0.001)

    async def wait_idle(self, seconds: float = 10) -> None:
        """Waits until no request is in flight."""
        assert await self.app.in_flight.wait_idle(seconds), "a request is still in flight"

    async def wait_queued(self, count: int, seconds: float = 10) -> None:
        """Waits until so many requests wait for their turn. Raises TimeoutError."""
        wanted = f"\ngateway_requests_queued {count}.0\n"
        async with asyncio.timeout(seconds):
            while wanted not in await self.metrics():
                await asyncio.sleep(0.001)


class StartGateway(Protocol):
    """Starts a gateway in ``folder``. ``app_options`` goes to ``App``; ``values`` are settings."""

    async def __call__(
        self, folder: Path | None = None, *, app_options: Mapping[str, Any] | None = None, **values: str
    ) -> Running: ...


def new_app(folder: Path, app_options: Mapping[str, Any] | None = None, **values: str) -> App:
    return App(load_settings(folder, **values), **(app_options or {}))


def load_settings(folder: Path, **values: str) -> settings.Settings:
    """Settings from these values alone; the token file lies in ``folder``."""
    places = {"GATEWAY_TOKENS_FILE": str(folder / "api_tokens.json"), "GATEWAY_DATA_DIR": str(folder / "data")}
    environ = {**places, "GATEWAY_LOG_LEVEL": "warning", **values}
    empty = folder / "empty.env"
    empty.touch()
    return settings.load(environ, env_file=empty)


@asynccontextmanager
async def running_gateway(
    folder: Path, *, app_options: Mapping[str, Any] | None = None, **values: str
) -> AsyncIterator[Running]:
    """Runs a gateway. ``app_options`` goes to ``App``; ``values`` are settings."""
    app = new_app(folder, app_options, **values)
    async with TestClient(GatewayTestServer(app)) as client:
        yield Running(client, app)


@dataclass
class Process:
    """A gateway in its own process."""

    popen: "subprocess.Popen[bytes]"
    port: int
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.popen.send_signal(number)
        return self.popen.wait(60)


def environment(folder: Path, **values: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG") or "COVERAGE" in name}
    return {**kept, "PYTHONPATH": str(ROOT), "GATEWAY_TOKENS_FILE": str(folder / "api_tokens.json"), **values}


@contextmanager
def gateway_process(folder: Path, log_format: str = "json", **values: str) -> Iterator[Process]:
    """Runs ``python -m gateway`` in ``folder`` on a free port and waits until it answers."""
    log = folder / "gateway.log"
    with log.open("wb") as stream:
        popen = subprocess.Popen(
            [sys.executable, "-m", "gateway"],
            cwd=folder,
            env=environment(folder, GATEWAY_PORT="0", GATEWAY_LOG_FORMAT=log_format, **values),
            stdout=stream,
            stderr=stream,
        )
    try:
        yield Process(popen, _wait_for_port(popen, log), log)
    finally:
        if popen.poll() is None:
            popen.kill()
        popen.wait(30)


_ADDRESS = re.compile(r'(?:"address":"|\n  address  )http://[0-9.]+:(\d+)')
"""In the first line of a log for machines, and in the banner for people."""


def _wait_for_port(popen: "subprocess.Popen[bytes]", log: Path) -> int:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if said := _ADDRESS.search(log.read_text()):
            port = int(said[1])
            urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=5).close()
            return port
        if popen.poll() is not None:
            break
        pause()
    raise AssertionError(f"the gateway did not start: {log.read_text()[-2000:]}")


def pause(seconds: float = 0.02) -> None:
    """Between two looks at another process. Every loop around it has a deadline."""
    signal.sigtimedwait([], seconds)


def token_manager(
    folder: Path, *arguments: str, stdin: bytes = b"", **values: str
) -> "subprocess.CompletedProcess[bytes]":
    """Run the command line in ``folder``."""
    return subprocess.run(
        [sys.executable, str(ROOT / "token_manager.py"), *arguments],
        cwd=folder,
        env=environment(folder, **values),
        input=stdin,
        capture_output=True,
        timeout=60,
        check=False,
    )
