"""Whose objects a token may use, over HTTP, with an upstream that keeps what it is sent."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.core.clock import SteadyClock
from gateway.routing.stores.sqlite import OBJECTS_FILE
from gateway.tokens.changes import TokenSpec
from gateway.tokens.models import Role
from tests.support.gateway import JSON, KEY, Running, running_gateway
from tests.support.reply import Reply, check_error
from tests.support.tokens import BY, TokenEditor
from tests.support.upstream import Connection, Received, Upstream, answer, running_upstream

INVALID = "invalid_request_error"
FAMILIES = "files,batches,threads,responses,uploads,fine_tuning"
STREAM = (
    b'data: {"type":"response.created","response":{"id":"%b","output":[]}}\n\n'
    b'data: {"type":"response.completed","response":{"id":"%b","output":[{"id":"msg_%b"}]}}\n\n'
)


class Objects:
    """Keeps what is made, lists all, and shows each to whoever has the key."""

    def __init__(self) -> None:
        self.kept: dict[str, dict[str, Any]] = {}

    async def behave(self, received: Received, connection: Connection) -> None:
        kind, *rest = received.target.removeprefix("/v1/").partition("?")[0].split("/")
        if received.method == "POST" and not rest:
            made = {"id": f"{kind}_{len(self.kept)}", "object": kind, "output": [{"id": f"msg_{len(self.kept)}"}]}
            self.kept[made["id"]] = made
            if b'"stream":true' in received.body:
                await connection.start_stream()
                name = made["id"].encode()
                await connection.chunk(STREAM % (name, name, name))
                await connection.end_stream()
                return
            await connection.send(answer(json.dumps(made).encode()))
        elif not rest:
            await connection.send(answer(json.dumps({"object": "list", "data": list(self.kept.values())}).encode()))
        else:
            await connection.send(answer(json.dumps(self.kept.get(rest[0], {"id": rest[0]})).encode()))


class Scene:
    def __init__(self, upstream: Upstream, gateway: Running, tokens: dict[str, str]) -> None:
        self.upstream = upstream
        self.gateway = gateway
        self.tokens = tokens

    async def call(self, who: str, method: str, path: str, body: Any = None) -> Reply:
        data = None if body is None else json.dumps(body, separators=(",", ":")).encode()
        headers = [("api-key", self.tokens[who]), *([JSON] if body is not None else [])]
        return await self.gateway.request(method, f"/v1/{path}", headers, data)

    async def make(self, who: str, kind: str, **fields: Any) -> str:
        reply = await self.call(who, "POST", kind, {"model": "m", **fields})
        assert reply.status == 200, reply
        made: str = json.loads(reply.body)["id"]
        return made

    async def is_hidden(self, who: str, method: str, path: str, body: Any = None) -> bool:
        """Whether the answer is that of an object that does not exist, and nothing has reached the upstream."""
        before = len(self.upstream.requests)
        reply = await self.call(who, method, path, body)
        return reply.status == 404 and len(self.upstream.requests) == before


@asynccontextmanager
async def scene(folder: Path, opened: str = FAMILIES) -> AsyncIterator[Scene]:
    editor = TokenEditor(folder / "api_tokens.json", SteadyClock())
    specs = {
        "ann": TokenSpec(name="ann", owner="ann@example.com"),
        "ann2": TokenSpec(name="ann2", owner="ann@example.com", role=Role.SERVICE),
        "bob": TokenSpec(name="bob", owner="bob@example.com", role=Role.SERVICE),
        "nobody": TokenSpec(name="nobody"),
        "admin": TokenSpec(name="admin", role=Role.ADMIN),
    }
    tokens = {name: editor.create(BY, spec).secret for name, spec in specs.items()}
    async with (
        running_upstream(Objects().behave) as upstream,
        running_gateway(
            folder, FREEGPT_API_KEY=KEY, GATEWAY_UPSTREAM_URL=upstream.url, GATEWAY_PASS_THROUGH=opened
        ) as gateway,
    ):
        yield Scene(upstream, gateway, {**tokens, "key": KEY})


async def test_an_object_belongs_to_its_owner(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        for kind in ("files", "batches", "threads", "responses"):
            made = await at.make("ann", kind)
            for method, path in (
                ("GET", made),
                ("DELETE", made),
                ("POST", f"{made}/cancel"),
                ("GET", f"{made}/content"),
            ):
                assert await at.is_hidden("bob", method, f"{kind}/{path}")
                assert await at.is_hidden("nobody", method, f"{kind}/{path}")
            for who in ("ann", "ann2", "admin", "key"):
                assert (await at.call(who, "GET", f"{kind}/{made}")).status == 200


async def test_a_token_without_an_owner_owns_what_it_makes(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        made = await at.make("nobody", "files")
        assert (await at.call("nobody", "GET", f"files/{made}")).status == 200
        assert await at.is_hidden("ann", "GET", f"files/{made}")


async def test_what_was_not_made_here_is_for_admins(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        made = await at.make("key", "files")
        for path in (made, "file-unknown"):
            reply = await at.call("ann", "GET", f"files/{path}")
            error = check_error(reply, 404, INVALID, "object_not_found")
            assert (error["param"], error["message"]) == ("id", f"No object with id '{path}' was found.")
        assert (await at.call("admin", "GET", f"files/{made}")).status == 200
        # Reading or cancelling it does not make it the admin's.
        await at.call("admin", "POST", f"files/{made}/cancel", {})
        assert await at.is_hidden("nobody", "GET", f"files/{made}")


async def test_a_list_shows_only_what_is_the_callers(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        anns, bobs = await at.make("ann", "files"), await at.make("bob", "files")
        for who, own in (("ann", [anns]), ("ann2", [anns]), ("bob", [bobs]), ("nobody", []), ("key", [anns, bobs])):
            reply = await at.call(who, "GET", "files?limit=100")
            assert [entry["id"] for entry in json.loads(reply.body)["data"]] == own
        assert await at.is_hidden("bob", "GET", f"files?after={anns}")
        assert (await at.call("bob", "GET", f"files?after={bobs}")).status == 200
        for method in ("HEAD", "DELETE", "PUT"):
            assert (await at.call("bob", method, "files")).status == 403


@pytest.mark.parametrize("is_stream", [False, True])
async def test_a_response_is_continued_by_its_owner_alone(tmp_path: Path, is_stream: bool) -> None:
    async with scene(tmp_path, opened="") as at:
        body = {"model": "m", "input": "x", **({"stream": True} if is_stream else {})}
        assert (await at.call("ann", "POST", "responses", body)).status == 200
        made = "responses_0"
        go_on = {"model": "m", "input": "y", "previous_response_id": made}
        reply = await at.call("bob", "POST", "responses", go_on)
        error = check_error(reply, 404, INVALID, "previous_response_not_found")
        assert error["param"] == "previous_response_id"
        unknown = await at.call("bob", "POST", "responses", {**go_on, "previous_response_id": "resp_x"})
        assert unknown.status == 404
        item = "msg_responses_0" if is_stream else "msg_0"
        for name in (made, item):
            assert await at.is_hidden("bob", "POST", "responses", {"model": "m", "input": [{"id": name}]})
        assert (await at.call("ann2", "POST", "responses", go_on)).status == 200
        assert (await at.call("ann", "POST", "responses", {"model": "m", "input": [{"id": item}]})).status == 200


async def test_what_is_not_stored_is_not_recorded(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        made = await at.make("ann", "responses", store=False)
        assert await at.is_hidden("ann", "GET", f"responses/{made}")


async def test_a_file_of_somebody_else_cannot_be_used(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        made = await at.make("ann", "files")
        content = [{"role": "user", "content": [{"type": "input_file", "file_id": made}]}]
        for path, body in (
            ("responses", {"model": "m", "input": content}),
            ("chat/completions", {"model": "m", "messages": content}),
            ("engines/m/chat/completions", {"messages": content}),
            ("batches", {"input_file_id": made}),
            ("messages", {"model": "m", "messages": content}),
            ("fine_tuning/jobs", {"model": "m", "training_file": made}),
        ):
            assert await at.is_hidden("bob", "POST", path, body)
        assert (await at.call("ann", "POST", "responses", {"model": "m", "input": content})).status == 200
        large = {"model": "m", "input": content, "instructions": "x" * 100_000}
        assert await at.is_hidden("bob", "POST", "responses", large)
        data = json.dumps({"model": "m", "input": content}).encode()
        headers = [("api-key", at.tokens["bob"]), ("Content-Type", "text/plain")]
        assert (await at.gateway.request("POST", "/v1/responses/compact", headers, data)).status == 404


async def test_another_worker_knows_it_at_once_and_a_restart_does_not_forget(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        made = await at.make("ann", "files")
        async with running_gateway(
            tmp_path, FREEGPT_API_KEY=KEY, GATEWAY_UPSTREAM_URL=at.upstream.url, GATEWAY_PASS_THROUGH="files"
        ) as other:
            path = f"/v1/files/{made}"
            assert (await other.request("GET", path, [("api-key", at.tokens["ann"])])).status == 200
            assert (await other.request("GET", path, [("api-key", at.tokens["bob"])])).status == 404


async def test_a_broken_store_stops_no_inference_and_lets_nobody_in(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / OBJECTS_FILE).write_bytes(b"no database" * 1000)
    async with scene(tmp_path) as at:
        made = await at.make("ann", "responses")
        assert (await at.call("ann", "POST", "chat/completions", {"model": "m", "messages": []})).status == 200
        for who in ("ann", "bob"):
            reply = await at.call(who, "GET", f"responses/{made}")
            check_error(reply, 503, "server_error", "store_unavailable")
            assert (await at.call(who, "GET", "files")).status == 503
        page = await at.gateway.metrics()
        assert 'gateway_store_up{store="objects"} 0.0' in page
        assert "gateway_object_store_failures_total 0.0" not in page
