"""The types of the package, as a program sees them that imports it from where packages are installed."""

import subprocess
import sys
from pathlib import Path

from tests.support.gateway import ROOT

PROGRAM = """
from collections.abc import AsyncIterator
from typing import Any

from gateway import __version__
from gateway.app import App
from gateway.config.settings import load
from gateway.core.errors import NotFound
from gateway.providers.base import EVENT_STREAM, JSON, CreateProvider, Provider, ProviderConfig, ProviderRequest, ProviderResponse


class ShoutingProvider:
    name = "shout"

    async def send(self, request: ProviderRequest) -> ProviderResponse:
        if request.fields is None:
            raise NotFound(f"shouting has no /v1/{request.path}", code="unknown_url")
        text: str = str(request.fields["messages"]).upper()
        if request.stream:
            return ProviderResponse(200, EVENT_STREAM, self._events(text))
        return ProviderResponse(200, JSON, text.encode())

    async def _events(self, text: str) -> AsyncIterator[bytes]:
        yield b"data: " + text.encode()

    async def models(self) -> list[dict[str, Any]]:
        return [{"id": "shout", "object": "model", "created": 0, "owned_by": "me"}]

    async def aclose(self) -> None:
        pass


def create(config: ProviderConfig) -> Provider:
    return ShoutingProvider()


factory: CreateProvider = create
version: str = __version__


def embed() -> App:
    return App(load({"GATEWAY_PORT": "0"}))
"""


WRONG = (
    PROGRAM.replace("async def aclose", "def aclose")
    .replace("ProviderResponse(200, JSON, text.encode())", "ProviderResponse(200, JSON, text)")
    .replace('"GATEWAY_PORT": "0"', '"GATEWAY_PORT": 0')
)


def test_a_program_that_imports_the_package_passes_mypy_strict_and_a_wrong_one_does_not(tmp_path: Path) -> None:
    """On PYTHONPATH the package counts as installed, so that mypy reads its types only with the marker ``py.typed``."""
    (tmp_path / "right.py").write_text(PROGRAM)
    (tmp_path / "wrong.py").write_text(WRONG)
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--cache-dir=cache", "right.py", "wrong.py"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    errors = [line for line in checked.stdout.splitlines() if ": error: " in line]
    assert len(errors) == 3, checked.stdout + checked.stderr
    assert all(line.startswith("wrong.py:") for line in errors)
    assert "Incompatible return value type" in checked.stdout  # aclose is no coroutine function
    assert 'has incompatible type "str"' in checked.stdout
    assert '"str": "int"' in checked.stdout
