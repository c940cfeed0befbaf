"""What tests of the four guides share that this gateway grew from: a gateway against which their commands and programs run.

A guide's address and placeholders are replaced, and nothing else. What an answer must have is what the guide shows: every
field, with a value of the same kind.
"""

import asyncio
import json
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.support.gateway import (
    CHAT,
    JSON,
    ROOT,
    Running,
    environment,
    running_gateway,
)
from tests.support.reply import check_error
from tests.support.tokens import Clock
from tests.support.wire import post, talk

EMAIL = "user@example.com"
_ADDRESSES = re.compile(r"http://localhost:[58]000|https://your-speakr-instance\.com")
_SECRETS = re.compile(r"your-token-here|YOUR_TOKEN_HERE|sk-a1b2c3d4e5f6\.\.\.")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ?")


def missing_fields(answer: Any, shown: Any, place: str = "") -> list[str]:
    """Where an answer is not as the guide shows it."""
    if isinstance(shown, dict) and isinstance(answer, dict):
        return [
            problem
            for name, value in shown.items()
            for problem in (
                missing_fields(answer[name], value, f"{place}.{name}") if name in answer else [f"{place}.{name}"]
            )
        ]
    if isinstance(shown, list) and isinstance(answer, list):
        return [problem for one in answer for problem in missing_fields(one, shown[0], f"{place}[]")]
    if isinstance(shown, str) and isinstance(answer, str):
        return [place] if bool(_TIME.fullmatch(shown)) != bool(_TIME.fullmatch(answer)) else []
    return [] if type(answer) is type(shown) else [place]


class GuideGateway:
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

    def fill_in(self, text: str, secret: str) -> str:
        """What a guide shows, with this gateway's address, and a secret where it has a place for one."""
        text = text.replace("python token_manager.py", f"{sys.executable} {ROOT}/token_manager.py")
        return _SECRETS.sub(secret, _ADDRESSES.sub(self.gateway.url, text))

    async def shell(self, command: str, secret: str = "") -> str:
        printed = await self.run("bash", "-euo", "pipefail", "-c", self.fill_in(command, secret))
        await self.gateway.refresh_tokens()
        return printed

    async def curl(self, command: str, secret: str = "") -> Any:
        return json.loads(await self.shell(command, secret))

    async def python(self, program: str, secret: str = "") -> str:
        return await self.run(sys.executable, "-c", self.fill_in(program, secret))

    async def ask(self, method: str, path: str, secret: str | None = None, body: Any = None) -> Any:
        headers = [JSON, ("X-API-Key", secret)] if secret else [JSON]
        data = None if body is None else json.dumps(body).encode()
        reply = await self.gateway.request(method, path, headers, data)
        assert reply.status in (200, 201), reply
        return reply.json()

    async def flush_last_used(self) -> None:
        await self.gateway.flush_last_used()
        await self.gateway.refresh_tokens()


@asynccontextmanager
async def guide_gateway(folder: Path, **values: str) -> AsyncIterator[GuideGateway]:
    clock = Clock()
    values = {"GATEWAY_DATA_DIR": str(folder / "data"), **values}
    async with running_gateway(folder, app_options={"clock": clock}, **values) as gateway:
        yield GuideGateway(folder, gateway, clock)


async def is_accepted(port: int, secret: str | None) -> bool:
    headers = [] if secret is None else [("Authorization", f"Bearer {secret}")]
    reply = await talk(port, post(body=CHAT, headers=headers))
    if reply.status != 200:
        error = check_error(reply, 401, "invalid_request_error", "invalid_api_key" if secret else None)
        assert secret is None or error["message"].startswith("Invalid API key provided")
    return reply.status == 200
