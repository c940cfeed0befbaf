"""Compares the tokens, the audit log and a server with what the model of tokens says, after each step."""

import asyncio
import copy
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from gateway.audit.hash_chain import verify
from gateway.auth.principal import ENVIRONMENT_KEY, Principal
from gateway.core.clock import SteadyClock
from gateway.storage.shared_memory import SharedLatch
from tests.campaigns.life import TOKENS, Hands, Order, Second, Trap, audit_path, fail, trapped
from tests.campaigns.life_file import read
from tests.campaigns.life_gateway import Gateway
from tests.campaigns.life_model import Lines, Model, Refused, Secret, Token, covers
from tests.campaigns.secret_search import SecretSearch
from tests.support.tokens import NOW, Clock

MODELS = ("gpt-3.5", "gpt-4", "gpt-4o", "gpt-4o-mini", "o1", "another")


class World(NamedTuple):
    """What may be true now: the tokens, and whether the new lines of the audit log go with them."""

    model: Model
    fits: Callable[[Lines], bool]


class LifeChecks:
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

    def close(self) -> None:
        self.runner.close()
        shutil.rmtree(self.folder)

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
        waits = {
            (used.token_id, used.previous_hash): list(use) for used, use in self.server.recorder.pending.by_key.items()
        }
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
