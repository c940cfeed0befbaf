"""The life of tokens against a model that knows nothing of the code: made, used, rotated, ended, imported, by three hands at
once, through failing disks, sudden deaths and clocks that jump. Full length: GATEWAY_TEST_CAMPAIGN=full.
"""

import asyncio
import copy
import json
import os
import random
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import pytest

from gateway.admin.tokens import Requester, TokenManagement
from gateway.audit.hash_chain import Actor, verify
from gateway.audit.log import AuditLog
from gateway.auth.authenticator import Authenticator
from gateway.auth.client_address import Client
from gateway.auth.credentials import Credential
from gateway.auth.principal import ANONYMOUS, ENVIRONMENT_KEY, Principal
from gateway.core.clock import SteadyClock
from gateway.core.errors import GatewayError, StoreUnavailable, Unauthenticated
from gateway.observability.metrics import Metrics
from gateway.storage.shared_memory import SharedLatch
from gateway.tokens.cache import TokenCache
from gateway.tokens.changes import TokenSpec
from gateway.tokens.last_used import LastUsedWriter
from gateway.tokens.stores.json_file import JsonTokenFile, JsonTokenStore
from gateway.tokens.uses import UseKey
from tests.campaigns.life import TOKENS, Hands, Order, Second, Trap, audit_path, fail, fields, trapped
from tests.campaigns.life_file import foreign, freegpt, freegpt_token, read
from tests.campaigns.life_model import YEAR, Lines, Model, Refused, Secret, Token, covers
from tests.campaigns.secret_search import SecretSearch
from tests.support.gateway import KEY
from tests.support.tokens import NOW, Clock

FULL = os.environ.get("GATEWAY_TEST_CAMPAIGN") == "full"
LIVES, STEPS = (300, 100) if FULL else (15, 50)
PATTERNS = (None, [], ["*"], ["gpt-*"], ["gpt-4*"], ["gpt-4o"], ["*-mini"], ["gpt-4o", "o1"])
MODELS = ("gpt-3.5", "gpt-4", "gpt-4o", "gpt-4o-mini", "o1", "another")
HERE = Client("127.0.0.1", True)

pytestmark = [pytest.mark.campaign, pytest.mark.timeout(1800)]


class Gateway:
    """The server's parts, put together as the composition root does."""

    def __init__(self, folder: Path, clock: SteadyClock, enforcement: SharedLatch, key: str | None) -> None:
        store = JsonTokenStore(JsonTokenFile(folder / TOKENS, 2.0), AuditLog(audit_path(folder), clock, 2.0), clock)
        self.clock = clock
        self.enforcement = enforcement
        self.watcher = TokenCache(store)
        self.management = TokenManagement(store, self.watcher, clock)
        self.recorder = LastUsedWriter(store, Metrics())
        self.authenticator = Authenticator(key, self.watcher, clock, enforcement)

    def let_in(self, text: str) -> tuple[str, Principal | None]:
        """How the secret is taken, and for whose."""
        try:
            principal = self.authenticator.authenticate(Credential(text), HERE)
        except Unauthenticated as error:
            said = str(error)
            return next((status for status in ("expired", "revoked") if f"it is {status}" in said), "unknown"), None
        return ("open", None) if principal is ANONYMOUS else ("active", principal)

    def note_use(self, principal: Principal) -> None:
        assert principal.secret_match is not None
        old = principal.secret_match.previous
        used = UseKey(principal.secret_match.record.id, old and old.hash)
        self.recorder.note(used, self.clock(), HERE.address if old else None)

    async def do(self, order: Order, principal: Principal) -> Order:
        """As ``Hands.do``."""
        caller = Requester(principal, Actor("token", "tester", principal.token_id))
        try:
            return await self._do(order, caller) or {}
        except StoreUnavailable as error:
            return {"failed": str(error)}
        except GatewayError as error:
            return {"refused": type(error).__name__}

    async def _do(self, order: Order, caller: Requester) -> Order | None:
        manage, reference = self.management, order.get("reference", "")
        match order["verb"]:
            case "create":
                made = await manage.create(caller, TokenSpec(**fields(order["wish"])))
                return {"id": made.record.id, "secret": made.secret}
            case "rotate":
                made = await manage.rotate(caller, reference, order["grace"])
                return {"id": made.record.id, "secret": made.secret}
            case "patch":
                await manage.update(caller, reference, fields(order["values"]))
            case "revoke":
                await manage.revoke(caller, reference)
            case "revoke_secret":
                await manage.revoke_secret(caller.actor, order["secret"])
            case "delete":
                await manage.delete(caller, reference)
        return None


Draw = Callable[[random.Random], Any]


def one_of(*values: Any) -> Draw:
    return lambda chance: chance.choice(values)


def any_number(chance: random.Random) -> int:
    return chance.randrange(10_000)


def pair_of(draw: Draw) -> Draw:
    return lambda chance: (draw(chance), draw(chance))


def some_of(**draws: Draw) -> Draw:
    """An object with about half of these fields; ``name`` is always there."""
    return lambda chance: {
        name: draw(chance) for name, draw in draws.items() if name == "name" or chance.random() < 0.4
    }


WHO = one_of("command line", "second process", "gateway")
AT_THE_SHELL = one_of("command line", "second process")
YES_OR_NO = one_of(True, False)
CALLS = one_of(*range(1, 36))
"""About as many as a change asks of the disk."""
VERBS = one_of("create", "rotate", "rotate", "revoke", "delete", "use")
_SOME = {
    "name": one_of("alpha", "beta", "gamma", "delta"),
    "role": one_of("service", "member", "member", "admin"),
    "models": one_of(*PATTERNS),
    "rpm": one_of(None, 10, 50),
}
WISHES = some_of(
    **_SOME, expires_at=one_of(None, 2, 60, 3600, 90_000, YEAR), prefix=one_of("sk-", "sk_live_", "sk_test_")
)
VALUES = some_of(**_SOME, expires_at=one_of(None, 1, 600, 100_000))


class Rule(NamedTuple):
    """A kind of step: how often it is taken, when it can be, and what chance has to say to it."""

    name: str
    weight: int
    only_if: Callable[["Life"], Any]
    draws: dict[str, Draw]


class Step(NamedTuple):
    name: str
    arguments: Order


RULES: list[Rule] = []


def rule(
    weight: int, only_if: Callable[["Life"], Any] = lambda _: True, **draws: Draw
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    def noted(step: Callable[..., None]) -> Callable[..., None]:
        RULES.append(Rule(step.__name__, weight, only_if, draws))
        return step

    return noted


def has_tokens(life: "Life") -> bool:
    return bool(life.model.tokens)


def has_secrets(life: "Life") -> bool:
    return bool(life.secrets)


class World(NamedTuple):
    """What may be true now: the tokens, and whether the new lines of the audit log go with them."""

    model: Model
    fits: Callable[[Lines], bool]


class Life:
    """One folder from its first token on. Hands are the command line's, a second process's, and the gateway's."""

    base: ClassVar[Path]
    second: ClassVar[Second]
    tally: ClassVar[Counter[str]]
    numbers: ClassVar[Iterator[int]]

    def __init__(self) -> None:
        self.folder = self.base / f"life-{next(self.numbers)}"
        self.folder.mkdir()
        self.path = self.folder / TOKENS
        self.runner = asyncio.Runner()
        self.wall = Clock(NOW + 0.25)
        self.model = Model()
        self.secrets: list[str] = []
        self.dead: set[str] = set()
        self.waiting: dict[tuple[str, str | None], list[Any]] = {}
        self.kept: list[tuple[str, Principal]] = []
        self.backup: tuple[str, list[Token]] | None = None
        self.armed: tuple[int, bool] | None = None
        self.death: int | None = None
        self.lines_read = 0
        self.seen: Counter[str] = Counter()
        self.hands = Hands(self.folder, self.wall)
        self.gateway: Gateway | None = None
        self.second.begin(self.folder)
        self.tally["lives"] += 1

    def start(self, has_key: bool, is_old: bool, wishes: list[Order]) -> None:
        """In an empty folder, or with a file of FreeGPT's; and with some first tokens."""
        self.key = KEY if has_key else None
        if is_old:
            first = freegpt(foreign(next(self.numbers)), True) | freegpt(foreign(next(self.numbers)), False)
            self.path.write_text(json.dumps(first))
            self.model.tokens = {one.id: one for one in (freegpt_token(*pair) for pair in first.items())}
            self.secrets += first
        self._begin_anew()
        for spec in wishes:
            self._change("command line", {"verb": "create", "wish": self._dated(spec)})

    def close(self) -> None:
        self.runner.close()
        shutil.rmtree(self.folder)

    # Changes

    @rule(4, who=WHO, spec=WISHES, owner=one_of(None, "ann@example.com"))
    def create(self, who: str, spec: Order, owner: str | None) -> None:
        self._change(who, {"verb": "create", "wish": {**self._dated(spec), "owner": owner}})

    @rule(5, has_tokens, who=WHO, spec=WISHES, parent=any_number)
    def create_below(self, who: str, spec: Order, parent: int) -> None:
        self._change(who, {"verb": "create", "wish": {**self._dated(spec), "parent_id": self._token(parent).id}})

    @rule(8, has_tokens, who=WHO, which=any_number, grace=one_of(0, 1, 60, 3600, 86_400, YEAR, YEAR + 1))
    def rotate(self, who: str, which: int, grace: int) -> None:
        self._change(who, {"verb": "rotate", "reference": self._token(which).id, "grace": grace})

    @rule(
        3,
        has_tokens,
        who=WHO,
        which=any_number,
        how=one_of("id", "secret", "any secret", "prefix", "name"),
        secret=any_number,
    )
    def revoke(self, who: str, which: int, how: str, secret: int) -> None:
        token = self._token(which)
        any_secret = self.secrets[secret % len(self.secrets)]
        references = {"id": token.id, "secret": token.secret.text, "any secret": any_secret, "name": token.name}
        reference = references.get(how, f"{token.secret.shown}...")
        if who != "gateway":
            self._change(who, {"verb": "revoke", "reference": reference})
        elif "secret" in how:
            self._change(who, {"verb": "revoke_secret", "secret": reference})
        else:
            self._change(who, {"verb": "revoke", "reference": token.id})

    @rule(1, has_tokens, who=WHO, which=any_number)
    def delete(self, who: str, which: int) -> None:
        self._change(who, {"verb": "delete", "reference": self._token(which).id})

    @rule(4, has_tokens, who=WHO, which=any_number, values=VALUES)
    def patch(self, who: str, which: int, values: Order) -> None:
        self._change(who, {"verb": "patch", "reference": self._token(which).id, "values": self._dated(values)})

    @rule(1, has_tokens, who=WHO, which=any_number, owner=one_of(None, "bob@example.com"))
    def give_away(self, who: str, which: int, owner: str | None) -> None:
        self._change(who, {"verb": "patch", "reference": self._token(which).id, "values": {"owner": owner}})

    @rule(1, who=AT_THE_SHELL, active=YES_OR_NO)
    def import_freegpt(self, who: str, active: bool) -> None:
        item = freegpt(foreign(next(self.numbers)), active)
        self._import(who, json.dumps(item), [freegpt_token(*pair) for pair in item.items()])

    @rule(1, has_tokens, who=AT_THE_SHELL, parent=any_number, is_orphan=YES_OR_NO)
    def import_below(self, who: str, parent: int, is_orphan: bool) -> None:
        """A child that says of itself that it may do everything."""
        number = next(self.numbers)
        above = "tok_gone" if is_orphan else self._token(parent).id
        token = Token(f"tok_imported_{number}", "alpha", NOW, Secret(foreign(number)), role="admin", parent_id=above)
        kept = {"id": token.id, "name": token.name, "prefix": token.secret.shown, "hash": token.secret.hash}
        kept |= {"created_at": datetime.fromtimestamp(NOW, UTC).isoformat(), "role": "admin", "parent_id": above}
        self._import(who, json.dumps({"version": 1, "tokens": [kept]}), [token])

    @rule(1, has_tokens)
    def back_up(self) -> None:
        self.backup = (self.path.read_text(), copy.deepcopy(list(self.model.tokens.values())))

    @rule(1, lambda life: life.backup, who=AT_THE_SHELL)
    def import_backup(self, who: str) -> None:
        """What was deleted since comes back as it was; nothing that is there changes."""
        text, tokens = self.backup or ("", [])
        gone = [token for token in tokens if token.id not in self.model.tokens]
        self.dead -= {one.text for token in gone for one in (token.secret, *token.older)}
        self._import(who, text, tokens)

    def _import(self, who: str, text: str, offered: list[Token]) -> None:
        self.secrets += [token.secret.text for token in offered if token.secret.text not in self.secrets]
        self._change(who, {"verb": "import", "text": text, "offered": offered})

    # What holders of secrets do

    @rule(6, has_secrets, which=any_number, times=one_of(1, 2, 3))
    def use(self, which: int, times: int) -> None:
        alive = [text for text in self.secrets if self.model.secret_status(text, self._now("gateway")) == "active"]
        text = (alive or self.secrets)[which % len(alive or self.secrets)]
        _, principal = self.server.let_in(text)
        held = self.model.holder(text)
        if principal is None or held is None:
            return
        for _ in range(times):
            self.server.note_use(principal)
        digest = None if held[1] is held[0].secret else held[1].hash
        before = self.waiting.get((held[0].id, digest), [0])[0]
        at, address = int(self._now("gateway")), HERE.address if digest else None
        self.waiting[held[0].id, digest] = [before + times, at, address]
        self.tally["uses"] += times

    @rule(2, has_tokens, which=any_number, times=one_of(1, 2, 3))
    def use_at_another_worker(self, which: int, times: int) -> None:
        token = self._token(which)
        old = token.older[-1] if token.older and which % 2 else None
        order = {"verb": "use", "id": token.id, "hash": old and old.hash, "times": times, "address": old and "::1"}
        self._change("second process", order)

    @rule(3)
    def flush(self) -> None:
        waiting = bool(self.waiting)
        with self._disk() as trap:
            self.runner.run(self.server.recorder.flush())
        if self.server.recorder.pending:
            assert trap.sprung, "uses wait though nothing was in the way"
        elif waiting:
            self._write_uses()
        self._settle([World(self.model, exactly([]))])

    @rule(4, has_secrets, which=any_number)
    def come_in(self, which: int) -> None:
        """Somebody who was let in, and asks for something later."""
        text = self.secrets[which % len(self.secrets)]
        _, principal = self.server.let_in(text)
        if principal is not None:
            self.kept.append((text, principal))

    @rule(
        6,
        lambda life: life.kept,
        which=any_number,
        verb=one_of("create", "rotate", "patch", "revoke"),
        spec=WISHES,
        grace=one_of(0, 60),
    )
    def act_as(self, which: int, verb: str, spec: Order, grace: int) -> None:
        text, principal = self.kept[which % len(self.kept)]
        order = {"verb": verb, "reference": principal.token_id, "grace": grace}
        order["wish"] = {**self._dated(spec), "parent_id": principal.token_id}
        order["values"] = {"models": spec.get("models"), "name": spec["name"]}
        self._change("gateway", order, (text, principal))

    # The world around

    @rule(1, at=CALLS, lasting=YES_OR_NO)
    def arm(self, at: int, lasting: bool) -> None:
        """The next write made here meets a disk that fails at this call."""
        self.armed = (at, lasting)

    @rule(3, has_tokens, at=CALLS, lasting=YES_OR_NO, who=WHO, verb=VERBS, which=any_number)
    def fail_in_mid_write(self, at: int, lasting: bool, who: str, verb: str, which: int) -> None:
        self.armed = (at, lasting)
        self._change("command line" if verb == "use" else who, self._simple(verb, self._token(which).id))

    @rule(3, has_tokens, at=CALLS, verb=VERBS, which=any_number)
    def die_in_mid_write(self, at: int, verb: str, which: int) -> None:
        self.death = at
        self._change("second process", self._simple(verb, self._token(which).id))

    @rule(2, lambda life: life._ends(), which=any_number)
    def pass_an_end(self, which: int) -> None:
        """A second, a millisecond and nothing before something ends."""
        ends = self._ends()
        end = ends[which % len(ends)]
        for before in (1, 0.001, 0):
            self.wall.now = max(self.wall.now, end - before)
            self.agrees()
        self.tally["ends passed"] += 1

    @rule(2, seconds=one_of(0.5, 1, 59, 3600, -1, -3600, -YEAR))
    def jump(self, seconds: float) -> None:
        self.wall.now += seconds
        self.tally["clock jumps"] += 1

    @rule(1, is_worker=YES_OR_NO, writes_uses=YES_OR_NO)
    def restart(self, is_worker: bool, writes_uses: bool) -> None:
        """The gateway ends - or is killed, and then what waited is lost - and begins anew; so does the command line. A worker
        that is started again has the clock and the memory of its siblings."""
        if writes_uses:
            self.runner.run(self.server.recorder.drain())
            self._write_uses()
            self._settle([World(self.model, exactly([]))])
        self.waiting.clear()
        self.kept.clear()
        self._begin_anew(self.server if is_worker else None)
        self.hands = Hands(self.folder, self.wall)
        self.seen["command line"] = 0
        self.tally["restarts"] += 1

    @rule(3, has_tokens, which=pair_of(any_number), verbs=pair_of(VERBS))
    def race(self, which: tuple[int, int], verbs: tuple[str, str]) -> None:
        """Both processes at once: whichever comes first, the other one finds what it left."""
        orders = [self._simple(verb, self._token(number).id) for verb, number in zip(verbs, which, strict=True)]
        nows = [self._now("command line"), self._now("second process")]
        self.second.send(orders[1], self.wall.now)
        came = [self.hands.do(orders[0]), self.second.answer()]
        self.secrets += [answer["secret"] for answer in came if "secret" in answer]
        worlds = [self._both(orders, nows, came, sequence) for sequence in ((0, 1), (1, 0))]
        self._settle([world for world in worlds if world], (orders, came))
        self.tally["races"] += 1

    # How reality and the model are held together

    def _change(self, who: str, order: Order, caller: tuple[str, Principal] | None = None) -> None:
        now = self._now(who)
        answer, sprung = self._done(who, order, caller)
        outcome = next((name for name in ("died", "failed", "refused") if name in answer), "done")
        self.tally[f"changes {outcome}"] += 1
        if "secret" in answer:
            self.secrets.append(answer["secret"])
            answer.setdefault("id", self._id_of(answer["secret"]))
        after, lines = self._after(order, now, answer, caller and caller[0])
        was_made = World(after, exactly(lines)) if after else None
        fits = self._left_by_failure(lines, sprung) if outcome in ("died", "failed") else exactly([])
        was_not = World(self.model, fits)
        told = (who, order, answer, caller)
        if outcome == "died":
            self.seen[who] = 0
            self._settle([was_not, *([was_made] if was_made else [])], told)
        elif outcome == "done":
            assert was_made, f"{told} was let through"
            assert sprung or not lines or not list(self.folder.glob(".*.tmp")), (
                "a killed writer's temporary file is still there"
            )
            self._settle([was_made], told)
        else:
            assert sprung or outcome == "refused", f"{told} failed, and nothing was in the way"
            assert outcome == "failed" or after is None, f"{told} was refused"
            self._settle([was_not], told)

    def _left_by_failure(self, lines: Lines, sprung: list[str]) -> Callable[[Lines], bool]:
        """A disk that fails once keeps nobody from cleaning up."""
        if len(sprung) != 1 or sprung == ["journal.close"] or self.lines_read == 0:
            return begun(lines)
        failed = [(f"{action}.failed", token_id) for action, token_id in lines]
        return lambda new: exactly([])(new) or exactly([*lines, *failed])(new)

    def _done(self, who: str, order: Order, caller: tuple[str, Principal] | None) -> tuple[Order, list[str]]:
        """What came of it, and where the disk failed."""
        plain = {name: value for name, value in order.items() if name != "offered"}
        if who == "second process":
            at, self.death = self.death, None
            self.second.send(plain, self.wall.now, at)
            return self.second.answer(), []
        with self._disk() as trap:
            if who == "gateway":
                answer = self.runner.run(self.server.do(plain, caller[1] if caller else ENVIRONMENT_KEY))
            else:
                answer = self.hands.do(plain)
        return answer, trap.sprung

    @contextmanager
    def _disk(self) -> Iterator[Trap]:
        """As it is armed, for one change."""
        at, lasting = self.armed or (10**9, False)
        self.armed = None
        trap = Trap(at, fail, lasting=lasting)
        with trapped(trap):
            yield trap
        self.tally["disk failures"] += len(trap.sprung)

    def _after(self, order: Order, now: float, answer: Order, caller: str | None) -> tuple[Model | None, Lines]:
        after = copy.deepcopy(self.model)
        try:
            lines = after.apply(order, now, answer, caller)
        except Refused:
            return None, []
        return after, lines

    def _both(
        self, orders: list[Order], nows: list[float], came: list[Order], sequence: tuple[int, int]
    ) -> World | None:
        model, lines = copy.deepcopy(self.model), []
        for number in sequence:
            is_refused = "refused" in came[number]
            try:
                lines += model.apply(orders[number], nows[number], came[number])
            except Refused:
                if not is_refused:
                    return None
            else:
                if is_refused:
                    return None
        return World(model, exactly(lines))

    def _settle(self, worlds: list[World], told: object = None) -> None:
        """Find out which world this is."""
        found, lines = read(self.path), self._new_lines()
        for world in worlds:
            if world.model.shape() == found and world.fits(lines):
                self.model = world.model
                return
        wanted = [differences(world.model.shape(), found) for world in worlds]
        raise AssertionError(f"{told}: the file differs by {wanted}, new lines {lines}")

    def _new_lines(self) -> Lines:
        """What the audit log has more than last time. The whole chain is held to its word."""
        path = audit_path(self.folder)
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        if lines and not lines[-1].endswith(b"\n"):
            lines.pop()  # a writer died or failed there; whoever comes next cuts it off
        verdict = verify(lines)
        assert verdict.broken is None, verdict
        new = [json.loads(line) for line in lines[self.lines_read :]]
        self.lines_read = len(lines)
        self.tally["audit lines"] += len(new)
        return [(line["action"], line["token_id"]) for line in new]

    def agrees(self) -> None:
        """Every secret ever made, asked of the gateway and of the model."""
        self.tally["steps"] += 1
        now = self._now("gateway")
        assert self.server.clock() == now
        self.runner.run(self.server.watcher.refresh())
        self.has_enforced |= bool(self.model.tokens)
        found = {text: self.server.let_in(text) for text in self.secrets}
        for text, (status, principal) in found.items():
            wanted = self.model.secret_status(text, now) if self.has_enforced else "open"
            assert status == wanted, f"a secret of {self.model.holder(text)} is {status}, not {wanted}, at {now}"
            self._check_rights(text, principal)
        self.tally["secrets compared"] += len(found)
        self._check_for_ever({text: status for text, (status, _) in found.items()})
        self._check_kinship([principal for _, principal in found.values() if principal])
        self._check_uses()

    def _check_rights(self, text: str, principal: Principal | None) -> None:
        held = self.model.holder(text)
        if principal is None or held is None:
            return
        rights = self.model.rights(held[0])
        assert (principal.token_id, principal.name) == (held[0].id, held[0].name)
        assert (principal.role, principal.is_test) == (rights.role, rights.is_test)
        allowed = [model for model in MODELS if all(covers(names, [model]) for names in rights.models)]
        assert [model for model in MODELS if principal.may_use(model)] == allowed

    def _check_for_ever(self, found: dict[str, str]) -> None:
        """What was revoked once is never let in again."""
        alive = {text for text, status in found.items() if status == "active"}
        assert not alive & self.dead
        self.dead |= {text for text, status in found.items() if status == "revoked"}

    def _check_kinship(self, principals: list[Principal]) -> None:
        """Nobody may do more than the parent, even one that says so of itself; nor live longer."""
        find_by_id = {principal.token_id: principal for principal in principals}
        for child in find_by_id.values():
            if child.secret_match is None or child.secret_match.record.parent_id is None:
                continue
            assert (
                self.model.status(self.model.tokens[child.secret_match.record.parent_id], self.seen["gateway"])
                == "active"
            )
            parent = find_by_id.get(child.secret_match.record.parent_id)
            if parent is not None:
                assert child.role.rank <= parent.role.rank
                assert all(parent.may_use(model) for model in MODELS if child.may_use(model))

    def _check_uses(self) -> None:
        """Each use is in the file, or waits to be."""
        waits = {(used.token_id, used.previous_hash): list(use) for used, use in self.server.recorder._pending.items()}
        assert waits == self.waiting

    def look_for_secrets(self) -> None:
        if self.path.exists() and b'"tokens"' not in self.path.read_bytes():
            return  # FreeGPT's own file, which nobody has changed yet
        needles = SecretSearch({f"secret {number}": text for number, text in enumerate(self.secrets)})
        for path in self.folder.rglob("*"):
            if path.is_file():
                self.tally["files searched for secrets"] += 1
                assert not needles.found(path.read_bytes()), path

    # Small things

    @property
    def server(self) -> Gateway:
        assert self.gateway is not None
        return self.gateway

    def _begin_anew(self, sibling: Gateway | None = None) -> None:
        if sibling is None:
            self.seen["gateway"] = 0
            self.has_enforced = self.key is not None
        clock = sibling.clock if sibling else SteadyClock(self.wall)
        self.gateway = Gateway(self.folder, clock, sibling.enforcement if sibling else SharedLatch(), self.key)
        self.runner.run(self.gateway.watcher.load())

    def _now(self, who: str) -> float:
        """What that process takes the time for: it never goes back, for as long as the process lives."""
        self.seen[who] = max(self.seen[who], self.wall.now)
        return self.seen[who]

    def _token(self, number: int) -> Token:
        """Any; two times in three one that lives."""
        tokens = list(self.model.tokens.values())
        alive = [token for token in tokens if self.model.status(token, self.wall.now) == "active"]
        among = alive if alive and number % 3 else tokens
        return among[number // 3 % len(among)]

    def _id_of(self, text: str) -> str | None:
        digest = Secret(text).hash
        return next((token_id for token_id, item in read(self.path).items() if item["hash"] == digest), None)

    def _dated(self, values: Order) -> Order:
        after = values.get("expires_at")
        return {**values, "expires_at": int(self.wall.now) + after} if after else values

    def _simple(self, verb: str, token_id: str) -> Order:
        order = {"verb": verb, "reference": token_id, "grace": 60, "id": token_id, "hash": None, "times": 1}
        return {**order, "address": None, "wish": {"name": "raced", "parent_id": token_id}}

    def _write_uses(self) -> None:
        for (token_id, digest), use in self.waiting.items():
            self.model.used(token_id, digest, *use)
        self.waiting.clear()

    def _ends(self) -> list[int]:
        ends = {token.expires_at for token in self.model.tokens.values()}
        ends |= {old.valid_until for token in self.model.tokens.values() for old in token.older}
        return sorted(end for end in ends if end is not None and end > self.seen["gateway"])


def exactly(wanted: Lines) -> Callable[[Lines], bool]:
    """In any order: a parent and its children end together."""
    return lambda lines: len(lines) == len(wanted) and _without(wanted, lines) is not None


def begun(planned: Lines) -> Callable[[Lines], bool]:
    """What a change leaves in the log that was not made: nothing, some of its lines, or all and that they failed. Some: only a
    disk that does not even let a file be cut, or a death, leaves half of them."""
    failed = [(f"{action}.failed", token_id) for action, token_id in planned]

    def fits(lines: Lines) -> bool:
        told = [line for line in lines if line[0].endswith(".failed")]
        first = [line for line in lines if line not in told]
        is_whole = len(first) == len(planned) or not told
        return is_whole and _without(planned, first) is not None and _without(failed, told) is not None

    return fits


def _without(wanted: Lines, lines: Lines) -> Lines | None:
    """What is wanted beyond the lines; None where one of them is not wanted."""
    left = list(wanted)
    for action, token_id in lines:
        found = next((one for one in left if one[0] == action and one[1] in (None, token_id)), None)
        if found is None:
            return None
        left.remove(found)
    return left


def differences(wanted: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    ids = wanted.keys() | found.keys()
    return {one: (wanted.get(one), found.get(one)) for one in ids if wanted.get(one) != found.get(one)}


def lived(course: Callable[["Life"], Iterator[Step]]) -> tuple[list[Step], Exception | None]:
    """One life. Answers the steps that were taken, and how the last of them went wrong."""
    life, done = Life(), []
    try:
        for step in course(life):
            done.append(step)
            getattr(life, step.name)(**step.arguments)
            life.agrees()
        life.look_for_secrets()
    except Exception as error:
        return done, error
    finally:
        life.close()
    return done, None


def some_steps(chance: random.Random, life: Life) -> Iterator[Step]:
    wishes = [WISHES(chance) for _ in range(chance.randrange(4))]
    yield Step("start", {"has_key": chance.random() < 0.5, "is_old": chance.random() < 0.5, "wishes": wishes})
    for _ in range(STEPS):
        possible = [rule for rule in RULES if rule.only_if(life)]
        found = chance.choices(possible, [rule.weight for rule in possible])[0]
        yield Step(found.name, {name: draw(chance) for name, draw in found.draws.items()})


def shortest(steps: list[Step], seconds: float) -> list[Step]:
    """Without as many steps as can be left out so that it still goes wrong."""
    deadline = time.monotonic() + seconds
    size = len(steps) // 2
    while size and time.monotonic() < deadline:
        for start in range(1, len(steps), size):
            fewer = steps[:start] + steps[start + size :]
            rules = {rule.name: rule for rule in RULES}
            if time.monotonic() < deadline and _goes_wrong(fewer, rules):
                steps = fewer
                break
        else:
            size //= 2
    return steps


def _goes_wrong(steps: list[Step], rules: Mapping[str, Rule]) -> bool:
    def possible(life: Life) -> Iterator[Step]:
        yield from (step for step in steps if step.name == "start" or rules[step.name].only_if(life))

    return lived(possible)[1] is not None


def test_tokens_live_as_the_model_says(tmp_path: Path) -> None:
    Life.base, Life.second, Life.tally, Life.numbers = tmp_path, Second(), Counter(), count(1)
    began, seed = time.monotonic(), random.randrange(10**6) if FULL else 1
    try:
        for number in range(LIVES):
            steps, error = lived(partial(some_steps, random.Random(seed + number)))
            if error is not None:
                listed = "\n".join(map(str, shortest(steps, 60 if FULL else 10)))
                pytest.fail(f"life {seed + number}: {error!r}\n{listed}")
    finally:
        Life.second.close()
    told = ", ".join(f"{number} {what}" for what, number in sorted(Life.tally.items()))
    print(f"\ncampaign token life: seed {seed}, {told}; 0 differences in {time.monotonic() - began:.0f} s")
    assert Life.tally["steps"] >= (10_000 if FULL else 200)
