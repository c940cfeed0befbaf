"""Ways in which a token file may be damaged, by the thousand: each is a name and what it does to the path."""

import json
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.support.tokens import KEY, LIVE_KEY, content, entry, freegpt

ACTIVE, REVOKED = KEY, LIVE_KEY
GOOD = json.dumps(
    json.loads(
        content(
            entry(ACTIVE, name="active", models=["gpt-*"], expires_at="2099-01-01T00:00:00Z"),
            entry(REVOKED, name="revoked", revoked_at="2026-01-01T00:00:00Z", role="admin", owner="a@b.c"),
            comment="by hand",
        )
    ),
    indent=2,
).encode()
OLD = json.dumps({**freegpt(ACTIVE), **freegpt(REVOKED, active=False)}, indent=1).encode()
WRONG: tuple[Any, ...] = (None, True, False, 0, -1, 1.5, 10**30, "", "x", "\x00", [], [[]], {}, {"a": 1})

Damage = tuple[str, Callable[[Path], None]]


def damages(share: int) -> Iterator[Damage]:
    """Every ``share``-th way."""
    for number, (name, data) in enumerate(_contents(random.Random(1))):
        if number % share == 0:
            yield name, lambda path, data=data: _put(path, data)
    yield from _OTHER


def _put(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def _contents(chance: random.Random) -> Iterator[tuple[str, bytes]]:
    for form, good in (("new", GOOD), ("old", OLD)):
        yield from ((f"{form} cut at {end}", good[:end]) for end in range(1, len(good)))
        yield from ((f"{form} from {start}", good[start:]) for start in range(1, len(good), 3))
        yield from ((f"{form} bit {at}", _flipped(good, at, chance.randrange(8))) for at in range(len(good)))
        yield from ((f"{form} not UTF-8 at {at}", good[:at] + b"\xff" + good[at:]) for at in range(0, len(good), 5))
        yield from ((f"{form} zeros from {at}", good[:at] + bytes(len(good) - at)) for at in range(0, len(good), 5))
        yield from _encodings(form, good)
    yield from _wrong_types()
    yield from _twins()
    yield from (
        (f"deep {mark}{depth}", mark * depth) for mark in (b"[", b'{"a":', b"[[") for depth in (10, 1000, 100_000)
    )
    yield "empty", b""
    yield "blank", b" \n" * 100


def _flipped(data: bytes, at: int, bit: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]


def _encodings(form: str, good: bytes) -> Iterator[tuple[str, bytes]]:
    for encoding in ("utf-16", "utf-16-le", "utf-32", "utf-7", "utf-8-sig"):
        yield f"{form} as {encoding}", good.decode().encode(encoding)
    yield f"{form} with two marks", b"\xef\xbb\xbf" * 2 + good
    yield f"{form} twice", good + good
    yield f"{form} with a tail", good + b"\x00"


def _wrong_types() -> Iterator[tuple[str, bytes]]:
    """For every field of the file, of each token, and for the tokens themselves. A list without tokens is no damage."""
    for wrong in WRONG:
        yield f"all {wrong!r}", json.dumps([wrong]).encode()
        for where, name in _places():
            document = json.loads(GOOD)
            target = document["tokens"][where] if where is not None else document
            target[name] = wrong
            if document["tokens"] != []:
                yield f"{where}.{name} {wrong!r}", json.dumps(document).encode()


def _places() -> Iterator[tuple[int | None, str]]:
    document = json.loads(GOOD)
    yield from ((None, name) for name in document)
    for where, token in enumerate(document["tokens"]):
        # Without `revoked_at`, or with null in it, a revoked token is a good active one: no reader could tell.
        yield from ((where, name) for name in token if (where, name) != (1, "revoked_at"))


def _twins() -> Iterator[tuple[str, bytes]]:
    for name in {name: 0 for _, name in _places()} | {"revoked_at": 0}:
        mark = f'"{name}":'.encode()
        yield f"twin {name}", GOOD.replace(mark, mark + b" null, " + mark)


def _removed(path: Path) -> None:
    path.unlink()


def _link(target: str) -> Callable[[Path], None]:
    def plant(path: Path) -> None:
        path.unlink()
        path.symlink_to(target)

    return plant


def _instead(make: Callable[[Path], None]) -> Callable[[Path], None]:
    def plant(path: Path) -> None:
        path.unlink()
        make(path)

    return plant


_OTHER: list[Damage] = [
    ("gone", _removed),
    ("directory", _instead(Path.mkdir)),
    ("pipe", _instead(os.mkfifo)),
    ("huge", lambda path: os.truncate(path, 2**29)),
    ("link to itself", _link("api_tokens.json")),
    ("link to a device", _link("/dev/zero")),
    ("link to nowhere", _link("/nonexistent/api_tokens.json")),
]
