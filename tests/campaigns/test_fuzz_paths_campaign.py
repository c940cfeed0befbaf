"""Paths in every spelling: what reaches the upstream lies below its base path and is the caller's to use.

Full length: GATEWAY_TEST_CAMPAIGN=full.
"""

import fnmatch
import json
import random
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote_to_bytes

import pytest

from tests.campaigns.fuzzing import (
    ALLOWED,
    BASE,
    FORBIDDEN,
    OPENED,
    Caller,
    Callers,
    Campaign,
    fuzzed_gateway,
    mutate,
    raw_request,
)
from tests.support.gateway import Running
from tests.support.upstream import Received

pytestmark = [pytest.mark.campaign, pytest.mark.timeout(1800)]

MODEL = ("cheap-1", "dear-1", "dear-1%2Fcheap-1", "cheap-1%2Fdear-1", "org%2Fcheap-1", "x")
INFERENCE = (
    "chat/completions", "completions", "embeddings", "responses", "moderations", "rerank", "messages",
    "messages/count_tokens", "images/generations", "audio/speech", "audio/transcriptions", "score", "tokenize",
)  # fmt: skip
ADMINISTRATIVE = (
    "organization/costs", "organization/users", "projects", "model/info", "key/generate", "user/new", "team/list",
    "config/yaml", "credentials", "global/spend", "spend/logs", "health", "metrics", "sleep", "prompts/p1", "admin/keys",
    "load_lora_adapter", "fine_tuning/checkpoints/x/permissions", "usage", "budget/list",
)  # fmt: skip
OBJECTS = (
    "files", "files/file-1", "files/file-1/content", "batches", "batches/batch_1/cancel", "responses/resp_1", "threads",
    "threads/thread_1/runs", "assistants", "vector_stores/vs_1/files", "conversations/conv_1", "fine_tuning/jobs",
    "deployments/dear-1/chat/completions", "accounts/a/models/dear-1/chat", "realtime/client_secrets", "uploads/u/parts",
)  # fmt: skip
BODIES = (
    b'{"model":"cheap-1","messages":[],"input":"x"}',
    b'{"model":"dear-1","messages":[],"input":"x"}',
    b'{"messages":[],"input":"x"}',
    b"{}",
)
SEGMENTS = (
    "..", ".", "", "%2e%2e", ".%2e", "%2E%2E%2F", "..%2f", "%2f..", "..%5c", "..\\", "..;", ";x=1", "%252e%252e", "%252f",
    "%25252e%25252e%25252f", "..%c0%af", "%c0%ae%c0%ae", "%e0%80%ae", "%u002e%u002e", "%ef%bc%8e%ef%bc%8e", "%ef%bc%8f",
    "%e2%88%95", "%00", "%0a", "%0d%0a", "%7f", "%", "%%", "%g1", "%3f", "%23", "%3b", "%20", "\u00e9", "\u212a", "..%00",
    "admin", "v1", "dear-1", "tenant", "%C5%BF", "%E2%84%AA", "x" * 3000, "..%2F..%2F..%2Fadmin%2Fkeys",
)  # fmt: skip


async def routes_of(gateway: Running) -> list[tuple[str, str]]:
    """Every route of the description with its method, and paths that are passed on."""
    described = (await gateway.get("/openapi.json")).json()["paths"]
    found = [(method.upper(), path) for path, methods in described.items() for method in methods if method.isalpha()]
    passed = [("", f"/v1/{path}") for path in (*INFERENCE, *ADMINISTRATIVE, *OBJECTS)]
    engines = [("POST", f"{start}/{{model}}/{end}") for start in ("/v1/engines", "/engines", "/openai/deployments")
               for end in INFERENCE[:4]]  # fmt: skip
    names = [("", f"/v1/{start}/{{model}}") for start in ("engines", "models", "files", "batches")] * 5
    return [*found, *passed, *engines, *names, ("GET", "/v1/models/{model}"), ("GET", "/"), ("GET", "*")]


def fill(rng: random.Random, path: str) -> str:
    """Puts something in the place of each parameter."""
    parts = path.split("{")
    return parts[0] + "".join(rng.choice((*MODEL, *SEGMENTS[:30])) + part.partition("}")[2] for part in parts[1:])


def escape(rng: random.Random, path: str) -> str:
    at = rng.randrange(len(path)) if path else 0
    digits = "".join(f"%{byte:02x}" for byte in path[at : at + 1].encode())
    return path[:at] + (digits.upper() if rng.random() < 0.5 else digits) + path[at + 1 :]


def escape_again(_rng: random.Random, path: str) -> str:
    return path.replace("%", "%25") if len(path) < 5000 else path


def insert_segment(rng: random.Random, path: str) -> str:
    parts = path.split("/")
    parts.insert(rng.randrange(len(parts) + 1), rng.choice(SEGMENTS))
    return "/".join(parts)


def append_to_segment(rng: random.Random, path: str) -> str:
    parts = path.split("/")
    at = rng.randrange(len(parts))
    piece = rng.choice(SEGMENTS)
    parts[at] = piece + parts[at] if rng.random() < 0.5 else parts[at] + piece
    return "/".join(parts)


def change_case(rng: random.Random, path: str) -> str:
    at = rng.randrange(len(path) + 1)
    end = at + rng.choice((1, 3, 100))
    return path[:at] + path[at:end].swapcase() + path[end:]


def change_slash(rng: random.Random, path: str) -> str:
    places = [at for at, char in enumerate(path) if char == "/"] or [0]
    at = rng.choice(places)
    return path[:at] + rng.choice(("//", "%2F", "%2f", "\\", "%5C", "%252F", "/./", "/x/../", "")) + path[at + 1 :]


def change_letter(rng: random.Random, path: str) -> str:
    """Letters that fold to s, k and i."""
    old, new = rng.choice((("s", "%C5%BF"), ("k", "%E2%84%AA"), ("i", "%C4%B1"), ("s", "\u017f"), ("-", "%E2%80%90")))
    return path.replace(old, new, 1)


def climb(rng: random.Random, path: str) -> str:
    up = rng.choice(("..", "..", "..", "%2e%2e", ".%2E", "..%2f..", "..%252f", "%252e%252e", "..;", "..%5c"))
    slash = rng.choice(("/", "%2f", "%2F", "/", "%5c", "%252f"))
    return path + slash + slash.join([up] * rng.randrange(1, 5)) + slash + rng.choice((*ADMINISTRATIVE, "admin"))


def make_absolute(rng: random.Random, path: str) -> str:
    return (
        rng.choice(("http://localhost", "https://evil.example", "http://a@b:1", "//evil.example", "/v1", "/.")) + path
    )


def cut(rng: random.Random, path: str) -> str:
    at = rng.randrange(len(path) + 1)
    return path[:at] + path[at + rng.randrange(4) :]


MUTATORS: tuple[Callable[[random.Random, str], str], ...] = (
    escape, escape, escape_again, insert_segment, insert_segment, append_to_segment, change_case, change_slash, change_letter,
    climb, climb, make_absolute, cut,
)  # fmt: skip


def encode(target: str) -> bytes:
    """As bytes on the wire; what would end the request line stays out, for that is not about paths."""
    return target.encode("utf-8", "surrogatepass").translate(None, b"\r\n ") or b"/"


def resolved(target: str) -> list[str]:
    """The path as each server in a row may see it, decoded once more at each step, with slashes merged and dots resolved."""
    path = target.partition("?")[0].encode("latin-1")
    seen: list[bytes] = []
    while path not in seen:
        seen.append(path)
        path = unquote_to_bytes(path)
    return [resolve(step.decode("utf-8", "replace")) for step in seen]


def resolve(path: str) -> str:
    parts: list[str] = []
    for part in path.replace("\\", "/").split("/"):
        name = part.partition(";")[0]
        if name == "..":
            parts = parts[:-1]
        elif name not in ("", "."):
            parts.append(part)
    return "/" + "/".join(parts)


def problem_with(caller: Caller, callers: Callers, received: Received) -> str | None:
    """What the caller got at the upstream that it may not have."""
    paths = resolved(received.target)
    if not all(path.startswith(f"{BASE}/") for path in paths):
        return "outside the base path"
    if caller is callers.admin or (received.method, received.target) == ("GET", f"{BASE}/models"):
        return None
    if caller in (callers.stranger, callers.without_models):
        return "reached the upstream"
    for path in paths:
        rest = path.removeprefix(f"{BASE}/")
        is_inference = received.method == "POST" and rest in INFERENCE
        if not is_inference and not any(rest == name or rest.startswith(f"{name}/") for name in OPENED):
            return "not open to it"
        if any(rest.casefold().startswith(name) for name in ADMINISTRATIVE):
            return "administrative"
    is_moderation = all(path == f"{BASE}/moderations" for path in paths)  # it costs nothing, and needs no model
    if caller is callers.limited and received.body and not (is_moderation and b"model" not in received.body):
        return problem_with_model(received, paths)
    return None


def problem_with_model(received: Received, paths: list[str]) -> str | None:
    model = json.loads(received.body).get("model")
    if not fnmatch.fnmatchcase(str(model), "cheap-*") or any(FORBIDDEN in path for path in paths):
        return f"another model: {model}"
    return None


async def test_paths(tmp_path: Path) -> None:
    campaign = Campaign("fuzzing of paths", 2_000, 150_000)
    async with fuzzed_gateway(tmp_path) as (upstream, gateway, callers, client):
        routes = await routes_of(gateway)
        for number, rng in campaign.each():
            method, path = rng.choice(routes)
            target = encode(mutate(rng, fill(rng, path), MUTATORS, 2))
            if rng.random() < 0.3 or not method:
                method = rng.choice(("GET", "POST", "POST", "DELETE", "PUT", "PATCH", "HEAD"))
            caller = rng.choice((callers.limited, callers.limited, callers.admin, *callers))
            body = rng.choice(BODIES) if method in ("POST", "PUT", "PATCH") else None
            headers = [*caller.headers, ("Content-Type", "application/json")]
            upstream.requests.clear()
            reply = await client.send(raw_request(method, target, headers, body))
            shown = (
                caller.name,
                method,
                target,
                body,
                reply,
                [(r.method, r.target, r.body) for r in upstream.requests],
            )
            if reply.status >= 500:
                campaign.fail(number, "a server error", *shown)
            campaign.counts[f"answered {reply.status}"] += 1
            for received in upstream.requests:
                if problem := problem_with(caller, callers, received):
                    campaign.fail(number, problem, *shown)
                campaign.counts["reached the upstream"] += 1
    campaign.report()
    assert campaign.counts["reached the upstream"] > campaign.cases / 100
    assert campaign.counts["answered 404"] > campaign.cases / 10


def test_the_judge_sees_what_leaves_the_base_path() -> None:
    for target in (
        "/v1/../../x",
        "/tenant/v1/x%2F..%2F..%2F..%2Fadmin",
        "/tenant/v1/%252e%252e/keys",
        "/tenant/v1/..;/k",
    ):
        assert not all(path.startswith(f"{BASE}/") for path in resolved(target)), target
    assert resolved(f"{BASE}/models/{ALLOWED}") == [f"{BASE}/models/{ALLOWED}"]
