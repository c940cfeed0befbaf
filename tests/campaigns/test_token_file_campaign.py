"""The token file under many writers, sudden deaths and every kind of damage. Full length: GATEWAY_TEST_CAMPAIGN=full."""

import os
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import aiohttp
import pytest

from gateway.app import App
from gateway.auth.principal import Mode
from gateway.config.settings import Settings
from gateway.tokens import secret
from gateway.tokens.changes import TokenSpec
from gateway.tokens.models import Status
from gateway.tokens.store import StoreState, TokensDamaged
from gateway.tokens.stores import json_format as codec
from gateway.tokens.stores.json_format import TokenDocument
from tests.campaigns.damage import ACTIVE, GOOD, REVOKED, Damage, damages
from tests.support.gateway import ROOT, Running, environment, load_settings, pause, running_gateway
from tests.support.tokens import BY, STRANGE_KEY, TokenEditor, content, entry

FULL = os.environ.get("GATEWAY_TEST_CAMPAIGN") == "full"
SHARED = content(
    entry(ACTIVE, name="active"), *[entry(f"sk-shared-made-up-{n:04}", id=f"tok_shared_{n}") for n in range(10)]
)

pytestmark = [pytest.mark.campaign, pytest.mark.timeout(900)]


class Model:
    """What the acknowledged changes add up to."""

    def __init__(self) -> None:
        self.made: set[str] = set()
        self.revoked: set[str] = set()
        self.deleted: set[str] = set()
        self.doomed: set[str] = set()
        """Whose deletion has begun: whether it was done is told by the file alone."""
        self.uses: Counter[str] = Counter()

    def note(self, lines: Iterable[str]) -> None:
        for line in lines:
            verb, token_id = line.split()
            if verb == "will":
                self.doomed.add(token_id)
            elif verb == "use":
                self.uses[token_id] += 1
            else:
                {"create": self.made, "revoke": self.revoked, "delete": self.deleted}[verb].add(token_id)

    @property
    def kept(self) -> set[str]:
        return self.made - self.deleted

    def lost(self, document: TokenDocument) -> int:
        """How many acknowledged changes the file does not show."""
        found = {token.id: token for token in document.tokens}
        lost = sum(token_id not in found for token_id in self.kept - self.doomed)
        lost += sum(token_id in found for token_id in self.deleted)
        lost += sum(found[one].revoked_at is None for one in self.revoked & found.keys())
        return lost + sum(max(0, count - found[one].usage_count) for one, count in self.uses.items())

    def learn(self, document: TokenDocument) -> int:
        """Take over what was done and not acknowledged; how much that is."""
        found = {token.id: token for token in document.tokens}
        made = {token.id for token in document.tokens if token.name == "made"} - self.kept
        deleted = self.kept - found.keys()
        revoked = {one for one in self.kept & found.keys() if found[one].revoked_at is not None} - self.revoked
        uses = {one: found[one].usage_count for one in found if one.startswith("tok_shared_")}
        more = sum(uses.values()) - self.uses.total()
        self.made |= made
        self.deleted |= deleted
        self.revoked |= revoked
        self.uses = Counter(uses)
        return len(made) + len(deleted) + len(revoked) + more


def read(path: Path) -> TokenDocument:
    """As a stranger reads it: raises for a torn file."""
    return codec.decode(path.read_bytes())


def writer(path: Path, seed: int, changes: int, output: int) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "tests.campaigns.writer", str(path), str(seed), str(changes)]
    return subprocess.Popen(command, cwd=ROOT, env=environment(path.parent), stdout=output)


async def test_no_update_is_lost_among_eight_writers_and_a_reading_server(tmp_path: Path) -> None:
    path = tmp_path / "api_tokens.json"
    path.write_bytes(SHARED)
    changes, began = (200 if FULL else 12), time.monotonic()
    logs = [tmp_path / f"writer-{number}.log" for number in range(8)]
    async with running_gateway(tmp_path) as gateway:
        writers = []
        for number, log in enumerate(logs):
            with log.open("wb") as stream:
                writers.append(writer(path, number, changes, stream.fileno()))
        answered = await _ask_until_all_have_ended(gateway, writers)
    model = Model()
    for log in logs:
        model.note(log.read_text().splitlines())
    document = read(path)
    made = {token.id for token in document.tokens if token.name == "made"}
    uses = {token.id: token.usage_count for token in document.tokens if token.id.startswith("tok_shared_")}
    active = next(token for token in document.tokens if token.name == "active")
    print(
        f"\ncampaign writers: 8 processes x {changes} changes, {answered} answers by the server, "
        f"{model.lost(document)} lost, {time.monotonic() - began:.1f} s"
    )
    assert {ended.returncode for ended in writers} == {0}
    assert made == model.kept
    assert {one.id for one in document.tokens if one.revoked_at is not None} == model.revoked - model.deleted
    assert uses == {**dict.fromkeys(uses, 0), **model.uses}
    assert active.usage_count == answered > 0


async def _ask_until_all_have_ended(gateway: Running, writers: "list[subprocess.Popen[bytes]]") -> int:
    answered = 0
    async with aiohttp.ClientSession() as client:
        while any(process.poll() is None for process in writers):
            assert await _status(client, gateway, ACTIVE) == 200
            answered += 1
    return answered


async def _status(client: aiohttp.ClientSession, gateway: Running, key: str | None) -> int:
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    async with client.get(f"{gateway.url}/v1/models", headers=headers) as response:
        return response.status


def test_a_killed_writer_tears_nothing_and_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "api_tokens.json"
    path.write_bytes(SHARED)
    kills, model, chance = (200 if FULL else 8), Model(), random.Random(7)
    torn = strays = unacknowledged = 0
    for number in range(kills):
        model.note(_killed_in_the_act(path, number, chance.random() * 0.05))
        try:
            document = read(path)
        except TokensDamaged:
            torn += 1
            continue
        assert model.lost(document) == 0, f"kill {number}"
        left = list(tmp_path.glob(".api_tokens.json.*.tmp"))
        assert len(left) <= 1
        strays += len(left)
        more = model.learn(document)
        assert more <= 1, f"kill {number}: one change at most can be done without a word"
        unacknowledged += more
    TokenEditor(path, time.time).create(BY, TokenSpec(name="sweeping"))
    print(
        f"\ncampaign kill -9: {kills} kills, {len(model.made)} tokens made, {sum(model.uses.values())} uses, {torn} torn, "
        f"0 lost, {strays} stray temporaries, {unacknowledged} done without a word"
    )
    assert torn == 0
    assert not list(tmp_path.glob(".api_tokens.json.*.tmp"))


def _killed_in_the_act(path: Path, seed: int, seconds: float) -> list[str]:
    """The changes that a writer acknowledged before it was killed, some moments after its first one."""
    process = writer(path, seed, 1_000_000, subprocess.PIPE)
    assert process.stdout is not None
    first = process.stdout.readline().decode()
    assert first, "the writer did not start"
    pause(seconds)
    process.kill()
    rest = process.stdout.read().decode()
    process.wait()
    process.stdout.close()
    return (first + rest).splitlines()


async def test_no_damage_opens_a_running_gateway(tmp_path: Path) -> None:
    path = tmp_path / "api_tokens.json"
    path.write_bytes(GOOD)
    states = list(damages(1 if FULL else 15))
    seen: Counter[StoreState] = Counter()
    async with running_gateway(tmp_path) as gateway, aiohttp.ClientSession() as client:
        watcher = gateway.app.token_cache
        for damage in states:
            await _damage_and_ask(client, gateway, path, damage)
            seen[watcher.state] += 1
            if watcher.state is StoreState.DAMAGED:
                assert await _status(client, gateway, ACTIVE) == 200, f"{damage[0]}: the last good state goes on"
            _restore(path)
            await watcher.refresh()
            assert watcher.state is StoreState.CURRENT, damage[0]
            assert await _status(client, gateway, ACTIVE) == 200, damage[0]
    told = ", ".join(f"{count} {state.value}" for state, count in seen.items())
    print(f"\ncampaign damage, running: {len(states)} states ({told}), 3 requests each, 0 let in")
    assert len(states) >= (3000 if FULL else 100)


async def _damage_and_ask(client: aiohttp.ClientSession, gateway: Running, path: Path, damage: Damage) -> None:
    name, do = damage
    do(path)
    await gateway.refresh_tokens()
    for who, key in (("nobody", None), ("a revoked token", REVOKED), ("an unknown token", STRANGE_KEY)):
        status = await _status(client, gateway, key)
        assert not 200 <= status < 300, f"{name}: {who} was let in"
        assert status != 500, f"{name}: {who} met an unhandled exception"


def _restore(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    path.write_bytes(GOOD)


# A file that is not there cannot be told from one that never was: the contract calls both `open`.
ABSENT = ("gone", "link to nowhere")


async def test_no_damage_lets_a_gateway_start_open(tmp_path: Path) -> None:
    path = tmp_path / "api_tokens.json"
    states = [damage for damage in damages(1 if FULL else 15) if damage[0] not in ABSENT]
    settings = load_settings(tmp_path)
    ends: dict[str, list[str]] = {"refused": [], "enforced": [], "open": [], "crashed": []}
    for name, do in states:
        _restore(path)
        do(path)
        ends[await _start(settings)].append(name)
    told = ", ".join(f"{len(names)} {end}" for end, names in ends.items())
    print(f"\ncampaign damage, start: {len(states)} states, {told}")
    assert (ends["open"], ends["crashed"]) == ([], [])


async def _start(settings: Settings) -> str:
    """How a start ends."""
    app = App(settings)
    try:
        await app.start()
    except (TokensDamaged, OSError):
        return "refused"
    except Exception as bug:
        print(f"\n{type(bug).__name__}: {bug}")
        return "crashed"
    finally:
        await app.stop()
    match = app.token_cache.tokens.find_by_digest(secret.digest(REVOKED))
    revived = match is not None and match.record.status(0) is Status.ACTIVE
    return "open" if app.mode is Mode.OPEN or revived else "enforced"
