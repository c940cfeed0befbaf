"""The management API of a gateway, as somebody with a key calls it."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.support.gateway import JSON, KEY, Running, running_gateway
from tests.support.reply import Headers, Reply
from tests.support.tokens import Clock

ANN, BOB = "ann@example.com", "bob@example.com"
INVALID, DENIED = "invalid_request_error", "permission_error"
HOUR, DAY, YEAR = 3600, 86_400, 365 * 86_400
FIELDS = [
    "id", "name", "prefix", "status", "owner", "role", "parent_id", "created_at", "expires_at", "revoked_at",
    "last_used", "usage_count", "models", "limits", "metadata", "previous_secrets",
]  # fmt: skip


class TokenApi:
    """A gateway, its clock, and a caller with the environment key, or with another ``secret``."""

    def __init__(self, gateway: Running, clock: Clock, folder: Path) -> None:
        self.gateway = gateway
        self.clock = clock
        self.folder = folder
        self.path = folder / "api_tokens.json"

    async def request(
        self, method: str, path: str, body: Any = None, secret: str | None = KEY, headers: Headers = ()
    ) -> Reply:
        """``body`` goes as JSON, bytes as they are."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        bearer = [] if secret is None else [("Authorization", f"Bearer {secret}")]
        return await self.gateway.request(method, path, [JSON, *bearer, *headers], data)

    async def call(
        self, method: str, path: str, body: Any = None, secret: str | None = KEY, headers: Headers = ()
    ) -> Any:
        """Returns the JSON of a request that succeeds."""
        reply = await self.request(method, path, body, secret, headers)
        assert reply.status == (201 if (method, path) == ("POST", "/api/tokens") else 200), reply
        assert reply.header("Cache-Control") == "no-store"
        return reply.json()

    async def create(self, secret: str | None = KEY, **fields: Any) -> Any:
        return await self.call("POST", "/api/tokens", {"name": "application", **fields}, secret)

    async def get(self, token: Any) -> Any:
        return await self.call("GET", f"/api/tokens/{token['id']}")

    async def validate(self, secret: str) -> Any:
        return await self.call("POST", "/api/tokens/validate", {"token": secret}, None)

    async def is_accepted(self, secret: str, headers: Headers = ()) -> bool:
        """Tells whether a model would answer a request with this secret."""
        reply = await self.request("GET", "/v1/models", secret=secret, headers=headers)
        assert reply.status in (200, 401), reply
        return reply.status == 200

    async def flush_last_used(self) -> None:
        await self.gateway.flush_last_used()

    def stored_tokens(self) -> Any:
        return json.loads(self.path.read_bytes())["tokens"]


@asynccontextmanager
async def gateway_with_api(folder: Path, **values: str) -> AsyncIterator[TokenApi]:
    clock = Clock()
    values = {"FREEGPT_API_KEY": KEY, "GATEWAY_DATA_DIR": str(folder / "data"), "GATEWAY_LOG_LEVEL": "error", **values}
    async with running_gateway(folder, app_options={"clock": clock}, **values) as gateway:
        yield TokenApi(gateway, clock, folder)
