"""Bodies of every kind, from a token that may use one kind of model: whichever reader the upstream has, it reads no other model.

Full length: GATEWAY_TEST_CAMPAIGN=full.
"""

import fnmatch
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.campaigns.fuzzing import (
    ALLOWED,
    FORBIDDEN,
    Campaign,
    fuzzed_gateway,
    mutate,
    raw_request,
)

pytestmark = [pytest.mark.campaign, pytest.mark.timeout(1800)]

PATHS = (
    "chat/completions", "chat/completions", "completions", "embeddings", "responses", "moderations", "rerank", "messages",
    "images/generations", "audio/speech", "score", "audio/transcriptions", "engines/cheap-1/chat/completions",
)  # fmt: skip
TYPES = (
    "application/json", "application/json", "application/json", "application/json; charset=utf-7", "text/json",
    "application/json; charset=utf-16", "application/vnd.api+json", "text/plain", "application/x-www-form-urlencoded", "",
    "multipart/form-data; boundary=x", "APPLICATION/JSON;charset=\"utf-8\"",
)  # fmt: skip
DATA = frozenset(
    {
        "messages",
        "input",
        "prompt",
        "metadata",
        "response_format",
        "user",
        "stop",
        "documents",
        "query",
        "text",
        "temperature",
    }
)
"""Fields in which a model is only text, at any depth."""
SCHEMA_WORDS = frozenset({"properties", "default", "enum", "examples", "const", "$defs"})
"""Keys below which a tool has its own words."""
OTHERS = (
    "tools", "extra_body", "fallbacks", "provider", "session", "requests", "plugins", "router", "image", "x-anything", "options",
    "context_window_fallbacks", "modelId", "draft_model", "n", "max_tokens", "stream_options", "temperature", "store",
)  # fmt: skip
MODEL_KEYS = (
    "model", "Model", "MODEL", "models", "Models", "mode\\u006c", "\\u006dodel", "model\\u0000", " model", "model ", "m\u00f6del",
    "mo\u200bdel", "\uff4dodel", "model\\ud800", "fallback", "fallback_models", "fallbac\u212as", "model\u017f", "model_id",
)  # fmt: skip
NAMES = (f'"{ALLOWED}"', f'"{ALLOWED}"', '"cheap-2"', f'"{FORBIDDEN}"', f'["{FORBIDDEN}"]', f'{{"model":"{FORBIDDEN}"}}',
         f'"{ALLOWED},{FORBIDDEN}"', f'"{ALLOWED} "', f'"cheap-\\u0000{FORBIDDEN}"', '"\\u0064ear-1"', '"\\ud83d"', "null", "7",
         '"cheap-\\n1"', f'"{FORBIDDEN}\\u0000"', '"alias"', f'"{ALLOWED}\u2028"', '""')  # fmt: skip
SCALARS = (
    "null", "true", "false", "0", "-0", "1e999", "NaN", "Infinity", "-Infinity", "01", ".5", "1.", "+1", "0x1", "1" * 400, "'x'",
    '""', '"\\u0000"', '"\\ud800"', '"\\udc00\\ud800"', '"\\ud83d\\ude00"', '"\\x41"', '"\t"', '"\u2028"', '"\U0001f600"',
    "undefined", "tru", "[]", "{}", "[1,]", '{"a":1,}', "//x", '"' + "y" * 5000 + '"', '"\\u006dodel"', '"\\"model\\":\\"dear-1"',
)  # fmt: skip


def blank(rng: random.Random) -> str:
    return rng.choice(("", "", "", " ", "\n", "\t\r\n", "\u00a0", "/**/")) if rng.random() < 0.1 else ""


def value(rng: random.Random, depth: int = 0) -> str:
    kind = rng.random()
    if depth > 4 or kind < 0.4:
        return (
            rng.choice(SCALARS) if rng.random() < 0.15 else rng.choice(('"x"', "1", "null", "true", '"\\u00e9"', "[]"))
        )
    if kind < 0.6:
        return "[" + ",".join(value(rng, depth + 1) for _ in range(rng.randrange(3))) + "]"
    return members(rng, [member(rng, depth + 1) for _ in range(rng.randrange(1, 4))])


def member(rng: random.Random, depth: int) -> tuple[str, str]:
    if rng.random() < 0.25:
        return rng.choice(MODEL_KEYS), rng.choice(NAMES)
    key = rng.choice(("type", "function", "parameters", "name", *SCHEMA_WORDS, *OTHERS))
    return key, value(rng, depth)


def members(rng: random.Random, pairs: list[tuple[str, str]]) -> str:
    return "{" + ",".join(f'{blank(rng)}"{key}"{blank(rng)}:{blank(rng)}{text}' for key, text in pairs) + "}"


def body(rng: random.Random) -> str:
    """An object that mostly names the allowed model, with something beside it."""
    pairs = [("model", rng.choice(NAMES[:3]) if rng.random() < 0.8 else rng.choice(NAMES))]
    for _ in range(rng.randrange(4)):
        if rng.random() < 0.3:
            pairs.append((rng.choice(MODEL_KEYS), rng.choice(NAMES)))
        else:
            pairs.append((rng.choice((*DATA, *OTHERS)), value(rng)))
    rng.shuffle(pairs)
    return members(rng, pairs) if rng.random() < 0.97 else value(rng)


def insert(rng: random.Random, data: bytes) -> bytes:
    piece = rng.choice((
        b"\x00", b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\\", b'"', b",", b"{", b"}", b"[", b"]", b":", b"\\u",
        b'"model":"dear-1",', b',"model":"dear-1"', b'"Model":"dear-1",', b"\xe2\x80\xa8", b"//", b"\x1f", b"\xf4\x90\x80\x80",
    ))  # fmt: skip
    at = rng.randrange(len(data) + 1)
    return data[:at] + piece + data[at:]


def remove(rng: random.Random, data: bytes) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + data[at + rng.choice((1, 1, 5, 100)) :]


def flip(rng: random.Random, data: bytes) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + bytes(byte ^ (1 << rng.randrange(8)) for byte in data[at : at + 1]) + data[at + 1 :]


def splice(rng: random.Random, data: bytes) -> bytes:
    other = body(rng).encode()
    return data[: rng.randrange(len(data) + 1)] + other[rng.randrange(len(other) + 1) :]


def nest(rng: random.Random, data: bytes) -> bytes:
    depth = rng.choice((3, 100, 900, 20_000))
    opening, closing = rng.choice(((b"[", b"]"), (b'{"a":', b"}"), (b'{"model":', b"}")))
    inner = rng.choice((b"1", b'{"model":"dear-1"}'))
    name = rng.choice((b"tools", b"messages", b"x"))
    return b'{"%s":%s%s%s,%s' % (name, opening * depth, inner, closing * depth, data[1:])


def encode_otherwise(rng: random.Random, data: bytes) -> bytes:
    return data.decode("utf-8", "replace").encode(
        rng.choice(("utf-16", "utf-16-le", "utf-32", "utf-7", "latin-1")), "replace"
    )


def append(rng: random.Random, data: bytes) -> bytes:
    return data + rng.choice((b"\n", b" ", b"\x00", b"{}", b'{"model":"dear-1"}', b"]", b"\x1a", b"\r\n\r\n", data))


MUTATORS: tuple[Callable[[random.Random, bytes], bytes], ...] = (
    insert, insert, remove, flip, splice, nest, encode_otherwise, append,
)  # fmt: skip


class Members(list[tuple[str, Any]]):
    """The members of an object, in order, each as often as it is there."""


def models_at_the_top(pairs: Members) -> Iterator[Any]:
    """What Python (the last), others (the first), and Go (any case, the last or first) take for the model."""
    for key, found in pairs:
        if key.casefold() == "model":
            yield found


def nested_models(content: Any) -> Iterator[Any]:
    """What is named below the top level, where it is not data."""
    if isinstance(content, Members):
        for key, inner in content:
            if key in SCHEMA_WORDS:
                continue
            if (
                key.casefold().replace("_", "") in ("model", "models", "modelid", "draftmodel")
                or "fallback" in key.casefold()
            ):
                yield from strings(inner)
            else:
                yield from nested_models(inner)
    elif isinstance(content, list):
        for inner in content:
            yield from nested_models(inner)


def strings(content: Any) -> Iterator[str]:
    if isinstance(content, str):
        yield content
    elif isinstance(content, Members):
        for _, inner in content:
            yield from strings(inner)
    elif isinstance(content, list):
        for inner in content:
            yield from strings(inner)


def problem_with(data: bytes, may_lack_model: bool = False) -> str | None:
    """What another reader of this body would take for a model that is not allowed. Moderations may have none: they are free."""
    try:
        content = json.loads(data.decode(), object_pairs_hook=Members)
    except RecursionError:
        return None  # Python's reader cannot be the upstream's
    except ValueError as error:
        return f"no JSON: {error}"
    if not isinstance(content, Members):
        return "no object"
    top = list(models_at_the_top(content))
    if not (top or may_lack_model) or not all(
        isinstance(name, str) and fnmatch.fnmatchcase(name, "cheap-*") for name in top
    ):
        return f"the models {top}"
    if any("," in name or not name.isprintable() for name in top):
        return f"two models in one name: {top}"
    named = list(nested_models(Members((key, inner) for key, inner in content if key not in DATA and key != "model")))
    if any(not fnmatch.fnmatchcase(name, "cheap-*") for name in named):
        return f"models at depth: {named}"
    return None


async def test_bodies(tmp_path: Path) -> None:
    campaign = Campaign("fuzzing of bodies", 2_000, 100_000)
    async with fuzzed_gateway(tmp_path, GATEWAY_MODEL_ALIASES="cheap-2=cheap-two,alias=dear-1") as bench:
        for number, rng in campaign.each():
            data = mutate(rng, body(rng).encode("utf-8", "surrogatepass"), MUTATORS, 1 if rng.random() < 0.7 else 4)
            path = rng.choice(PATHS)
            kind = rng.choice(TYPES) if rng.random() < 0.4 else TYPES[0]
            headers = [*bench.callers.limited.headers, *([("Content-Type", kind)] if kind else [])]
            bench.upstream.requests.clear()
            reply = await bench.client.send(raw_request("POST", f"/v1/{path}".encode(), headers, data))
            received = [request.body for request in bench.upstream.requests]
            shown = (path, kind, data, reply, received)
            if reply.status >= 500:
                campaign.fail(number, "a server error", *shown)
            if (reply.status < 400) != bool(received):
                campaign.fail(number, "refused, and yet sent", *shown)
            campaign.counts[f"answered {reply.status}"] += 1
            for request in bench.upstream.requests:
                if problem := problem_with(request.body, path == "moderations"):
                    campaign.fail(number, problem, *shown)
                if request.header("Content-Type") != "application/json":
                    campaign.fail(number, "another content type", *shown)
                campaign.counts["reached the upstream"] += 1
    campaign.report()
    assert campaign.counts["reached the upstream"] > campaign.cases / 20


@pytest.mark.parametrize(
    "data",
    [
        b'{"model":"dear-1","model":"cheap-1"}',
        b'{"model":"cheap-1","Model":"dear-1"}',
        b'{"model":"cheap-1","tools":[{"model":"dear-1"}]}',
        b'{"model":"cheap-1","x":NaN',
        b'{"model":"cheap-1,dear-1"}',
    ],
)
def test_the_judge_sees_another_model(data: bytes) -> None:
    assert problem_with(data) is not None
    assert problem_with(b'{"model":"cheap-1","messages":[{"model":"dear-1"}]}') is None
