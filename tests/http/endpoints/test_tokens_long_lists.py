"""Lists out of many tokens are made in threads, so that nobody waits for them who asks for something else."""

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

from gateway.http.endpoints.tokens import MAX_LISTED_ON_LOOP
from gateway.tokens import serializers
from tests.support.reply import check_error
from tests.support.token_api import TokenApi, gateway_with_api
from tests.support.tokens import content, entry

MANY = MAX_LISTED_ON_LOOP + 1


class SlowLists:
    """Tokens are rendered when ``may_end`` is set."""

    def __init__(self, patched: pytest.MonkeyPatch) -> None:
        self.may_end = threading.Event()
        real = serializers.to_public_json

        def to_public_json(*arguments: Any) -> Any:
            assert self.may_end.wait(10), "nothing else was served meanwhile"
            return real(*arguments)

        patched.setattr(serializers, "to_public_json", to_public_json)


def store_many(folder: Path) -> None:
    entries = [entry(f"sk-secret-of-token-number-{number}", name=f"n{number}") for number in range(MANY)]
    (folder / "api_tokens.json").write_bytes(content(*entries))


async def ask(api: TokenApi) -> Any:
    return await api.request("GET", "/api/tokens?per_page=1&page=3")


async def test_a_long_list_delays_nothing_else_and_few_are_made_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store_many(tmp_path)
    async with gateway_with_api(tmp_path) as api:
        slow = SlowLists(monkeypatch)
        lists = [asyncio.create_task(ask(api)) for _ in range(5)]
        (refused,), going_on = await asyncio.wait(lists, return_when=asyncio.FIRST_COMPLETED)
        check_error(refused.result(), 429, "requests", "rate_limit_exceeded")
        assert (await api.request("GET", "/healthz")).status == 200
        slow.may_end.set()
        for reply in await asyncio.gather(*going_on):
            assert [one["name"] for one in reply.json()["tokens"]] == ["n2"]
            assert reply.json()["pagination"]["total"] == MANY
