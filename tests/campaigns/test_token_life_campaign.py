"""The life of tokens against a model that knows nothing of the code: made, used, rotated, ended, imported, by three hands at
once, through failing disks, sudden deaths and clocks that jump. Full length: GATEWAY_TEST_CAMPAIGN=full.
"""

import copy
import json
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from functools import partial
from itertools import count
from pathlib import Path

import pytest

from tests.campaigns.life import Hands, Order, Second
from tests.campaigns.life_checks import LifeChecks, World, exactly
from tests.campaigns.life_file import foreign, freegpt, freegpt_token
from tests.campaigns.life_gateway import HERE
from tests.campaigns.life_model import YEAR, Secret, Token
from tests.campaigns.life_rules import (
    AT_THE_SHELL,
    CALLS,
    RULES,
    VALUES,
    VERBS,
    WHO,
    WISHES,
    YES_OR_NO,
    Rule,
    Step,
    any_number,
    has_secrets,
    has_tokens,
    one_of,
    pair_of,
    rule,
)
from tests.support.gateway import KEY
from tests.support.tokens import NOW

FULL = os.environ.get("GATEWAY_TEST_CAMPAIGN") == "full"
LIVES, STEPS = (300, 100) if FULL else (15, 50)


pytestmark = [pytest.mark.campaign, pytest.mark.timeout(1800)]


class Life(LifeChecks):
    """What can happen to the tokens of one folder."""

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
