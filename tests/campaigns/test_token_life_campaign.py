"""The life of tokens against a model that knows nothing of the code: made, used, rotated, ended, imported, by three writers at
once, while disks fail, processes are killed and clocks jump. Full length: GATEWAY_TEST_CAMPAIGN=full.
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

from tests.campaigns.life import Command, CommandRunner, SecondProcess
from tests.campaigns.life_checks import ExpectedState, ScenarioChecks, exactly
from tests.campaigns.life_file import foreign, freegpt, freegpt_token
from tests.campaigns.life_model import YEAR, Secret, Token
from tests.campaigns.life_rules import (
    DISK_CALLS,
    LOCAL_WRITERS,
    RULES,
    SPECS,
    UPDATES,
    VERBS,
    WRITERS,
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
SCENARIOS, STEPS = (300, 100) if FULL else (15, 50)


pytestmark = [pytest.mark.campaign, pytest.mark.timeout(1800)]


class Scenario(ScenarioChecks):
    """The steps that can happen to the tokens of one folder."""

    def start(self, has_key: bool, is_old: bool, specs: list[Command]) -> None:
        """Starts in an empty folder, or with a file of FreeGPT's; and with some first tokens."""
        self.key = KEY if has_key else None
        if is_old:
            first = freegpt(foreign(next(self.numbers)), True) | freegpt(foreign(next(self.numbers)), False)
            self.path.write_text(json.dumps(first))
            self.model.tokens = {one.id: one for one in (freegpt_token(*pair) for pair in first.items())}
            self.secrets += first
        self._start_gateway()
        for spec in specs:
            self._change("command line", {"verb": "create", "spec": self._with_absolute_expiry(spec)})

    # Changes

    @rule(4, writer=WRITERS, spec=SPECS, owner=one_of(None, "ann@example.com"))
    def create(self, writer: str, spec: Command, owner: str | None) -> None:
        self._change(writer, {"verb": "create", "spec": {**self._with_absolute_expiry(spec), "owner": owner}})

    @rule(5, has_tokens, writer=WRITERS, spec=SPECS, parent=any_number)
    def create_child(self, writer: str, spec: Command, parent: int) -> None:
        self._change(
            writer,
            {"verb": "create", "spec": {**self._with_absolute_expiry(spec), "parent_id": self._pick_token(parent).id}},
        )

    @rule(8, has_tokens, writer=WRITERS, which=any_number, grace=one_of(0, 1, 60, 3600, 86_400, YEAR, YEAR + 1))
    def rotate(self, writer: str, which: int, grace: int) -> None:
        self._change(writer, {"verb": "rotate", "reference": self._pick_token(which).id, "grace": grace})

    @rule(
        3,
        has_tokens,
        writer=WRITERS,
        which=any_number,
        how=one_of("id", "secret", "any secret", "prefix", "name"),
        secret=any_number,
    )
    def revoke(self, writer: str, which: int, how: str, secret: int) -> None:
        token = self._pick_token(which)
        any_secret = self.secrets[secret % len(self.secrets)]
        references = {"id": token.id, "secret": token.secret.text, "any secret": any_secret, "name": token.name}
        reference = references.get(how, f"{token.secret.display_prefix}...")
        if writer != "gateway":
            self._change(writer, {"verb": "revoke", "reference": reference})
        elif "secret" in how:
            self._change(writer, {"verb": "revoke_secret", "secret": reference})
        else:
            self._change(writer, {"verb": "revoke", "reference": token.id})

    @rule(1, has_tokens, writer=WRITERS, which=any_number)
    def delete(self, writer: str, which: int) -> None:
        self._change(writer, {"verb": "delete", "reference": self._pick_token(which).id})

    @rule(4, has_tokens, writer=WRITERS, which=any_number, values=UPDATES)
    def patch(self, writer: str, which: int, values: Command) -> None:
        self._change(
            writer,
            {"verb": "patch", "reference": self._pick_token(which).id, "values": self._with_absolute_expiry(values)},
        )

    @rule(1, has_tokens, writer=WRITERS, which=any_number, owner=one_of(None, "bob@example.com"))
    def change_owner(self, writer: str, which: int, owner: str | None) -> None:
        self._change(writer, {"verb": "patch", "reference": self._pick_token(which).id, "values": {"owner": owner}})

    @rule(1, writer=LOCAL_WRITERS, active=YES_OR_NO)
    def import_freegpt(self, writer: str, active: bool) -> None:
        item = freegpt(foreign(next(self.numbers)), active)
        self._import(writer, json.dumps(item), [freegpt_token(*pair) for pair in item.items()])

    @rule(1, has_tokens, writer=LOCAL_WRITERS, parent=any_number, is_orphan=YES_OR_NO)
    def import_child(self, writer: str, parent: int, is_orphan: bool) -> None:
        """Imports a child whose record gives it every right."""
        number = next(self.numbers)
        above = "tok_gone" if is_orphan else self._pick_token(parent).id
        token = Token(f"tok_imported_{number}", "alpha", NOW, Secret(foreign(number)), role="admin", parent_id=above)
        kept = {"id": token.id, "name": token.name, "prefix": token.secret.display_prefix, "hash": token.secret.hash}
        kept |= {"created_at": datetime.fromtimestamp(NOW, UTC).isoformat(), "role": "admin", "parent_id": above}
        self._import(writer, json.dumps({"version": 1, "tokens": [kept]}), [token])

    @rule(1, has_tokens)
    def back_up(self) -> None:
        self.backup = (self.path.read_text(), copy.deepcopy(list(self.model.tokens.values())))

    @rule(1, lambda scenario: scenario.backup, writer=LOCAL_WRITERS)
    def import_backup(self, writer: str) -> None:
        """What was deleted since comes back as it was; nothing that is there changes."""
        text, tokens = self.backup or ("", [])
        gone = [token for token in tokens if token.id not in self.model.tokens]
        self.revoked -= {one.text for token in gone for one in (token.secret, *token.previous)}
        self._import(writer, text, tokens)

    def _import(self, writer: str, text: str, offered: list[Token]) -> None:
        self.secrets += [token.secret.text for token in offered if token.secret.text not in self.secrets]
        self._change(writer, {"verb": "import", "text": text, "offered": offered})

    # Uses

    @rule(6, has_secrets, which=any_number, times=one_of(1, 2, 3))
    def use(self, which: int, times: int) -> None:
        alive = [text for text in self.secrets if self.model.secret_status(text, self._now("gateway")) == "active"]
        text = (alive or self.secrets)[which % len(alive or self.secrets)]
        _, principal = self.server.authenticate(text)
        match = self.model.find_secret(text)
        if principal is None or match is None:
            return
        for _ in range(times):
            self.server.note_use(principal)
        digest = None if match[1] is match[0].secret else match[1].hash
        before = self.pending_uses.get((match[0].id, digest), [0])[0]
        at, address = int(self._now("gateway")), "127.0.0.1" if digest else None
        self.pending_uses[match[0].id, digest] = [before + times, at, address]
        self.tally["uses"] += times

    @rule(2, has_tokens, which=any_number, times=one_of(1, 2, 3))
    def use_at_another_worker(self, which: int, times: int) -> None:
        token = self._pick_token(which)
        old = token.previous[-1] if token.previous and which % 2 else None
        command = {"verb": "use", "id": token.id, "hash": old and old.hash, "times": times, "address": old and "::1"}
        self._change("second process", command)

    @rule(3)
    def flush(self) -> None:
        waiting = bool(self.pending_uses)
        with self._faulty_disk() as faults:
            self.runner.run(self.server.last_used.flush())
        if self.server.last_used.pending:
            assert faults.triggered, "uses wait, but no call to the disk failed"
        elif waiting:
            self._apply_pending_uses()
        self._match_state([ExpectedState(self.model, exactly([]))])

    @rule(4, has_secrets, which=any_number)
    def admit(self, which: int) -> None:
        """Authenticates a client that makes its request later."""
        text = self.secrets[which % len(self.secrets)]
        _, principal = self.server.authenticate(text)
        if principal is not None:
            self.admitted.append((text, principal))

    @rule(
        6,
        lambda scenario: scenario.admitted,
        which=any_number,
        verb=one_of("create", "rotate", "patch", "revoke"),
        spec=SPECS,
        grace=one_of(0, 60),
    )
    def act_as(self, which: int, verb: str, spec: Command, grace: int) -> None:
        text, principal = self.admitted[which % len(self.admitted)]
        command = {"verb": verb, "reference": principal.token_id, "grace": grace}
        command["spec"] = {**self._with_absolute_expiry(spec), "parent_id": principal.token_id}
        command["values"] = {"models": spec.get("models"), "name": spec["name"]}
        self._change("gateway", command, (text, principal))

    # Disks, clocks and processes

    @rule(1, at=DISK_CALLS, lasting=YES_OR_NO)
    def break_next_write(self, at: int, lasting: bool) -> None:
        """Lets the disk fail at this call of the next write made here."""
        self.disk_fault = (at, lasting)

    @rule(3, has_tokens, at=DISK_CALLS, lasting=YES_OR_NO, writer=WRITERS, verb=VERBS, which=any_number)
    def fail_during_write(self, at: int, lasting: bool, writer: str, verb: str, which: int) -> None:
        self.disk_fault = (at, lasting)
        self._change(
            "command line" if verb == "use" else writer, self._simple_command(verb, self._pick_token(which).id)
        )

    @rule(3, has_tokens, at=DISK_CALLS, verb=VERBS, which=any_number)
    def kill_during_write(self, at: int, verb: str, which: int) -> None:
        self.kill_at = at
        self._change("second process", self._simple_command(verb, self._pick_token(which).id))

    @rule(2, lambda scenario: scenario.future_ends(), which=any_number)
    def pass_an_expiry(self, which: int) -> None:
        """Checks a second and a millisecond before something ends, and at its end."""
        ends = self.future_ends()
        end = ends[which % len(ends)]
        for before in (1, 0.001, 0):
            self.wall.now = max(self.wall.now, end - before)
            self.check_all()
        self.tally["ends passed"] += 1

    @rule(2, seconds=one_of(0.5, 1, 59, 3600, -1, -3600, -YEAR))
    def jump_clock(self, seconds: float) -> None:
        self.wall.now += seconds
        self.tally["clock jumps"] += 1

    @rule(1, is_worker=YES_OR_NO, writes_uses=YES_OR_NO)
    def restart(self, is_worker: bool, writes_uses: bool) -> None:
        """Restarts the gateway and the command line; the uses that wait are lost where the gateway was killed.

        A worker that is started again has the clock and the shared memory of its siblings.
        """
        if writes_uses:
            self.runner.run(self.server.last_used.drain())
            self._apply_pending_uses()
            self._match_state([ExpectedState(self.model, exactly([]))])
        self.pending_uses.clear()
        self.admitted.clear()
        self._start_gateway(self.server if is_worker else None)
        self.command_line = CommandRunner(self.folder, self.wall)
        self.latest_times["command line"] = 0
        self.tally["restarts"] += 1

    @rule(3, has_tokens, which=pair_of(any_number), verbs=pair_of(VERBS))
    def race(self, which: tuple[int, int], verbs: tuple[str, str]) -> None:
        """Lets both processes write at once: whichever is second finds what the first one left."""
        commands = [
            self._simple_command(verb, self._pick_token(number).id) for verb, number in zip(verbs, which, strict=True)
        ]
        times_of_commands = [self._now("command line"), self._now("second process")]
        self.second_process.send(commands[1], self.wall.now)
        answers = [self.command_line.execute(commands[0]), self.second_process.answer()]
        self.secrets += [answer["secret"] for answer in answers if "secret" in answer]
        states = [self._predict_both(commands, times_of_commands, answers, sequence) for sequence in ((0, 1), (1, 0))]
        self._match_state([state for state in states if state], (commands, answers))
        self.tally["races"] += 1


def run_scenario(plan: Callable[["Scenario"], Iterator[Step]]) -> tuple[list[Step], Exception | None]:
    """Runs one scenario. Returns the steps that were taken, and the error of the last one."""
    scenario, done = Scenario(), []
    try:
        for step in plan(scenario):
            done.append(step)
            getattr(scenario, step.name)(**step.arguments)
            scenario.check_all()
        scenario.check_no_secret_is_stored()
    except Exception as error:
        return done, error
    finally:
        scenario.close()
    return done, None


def random_steps(rng: random.Random, scenario: Scenario) -> Iterator[Step]:
    specs = [SPECS(rng) for _ in range(rng.randrange(4))]
    yield Step("start", {"has_key": rng.random() < 0.5, "is_old": rng.random() < 0.5, "specs": specs})
    for _ in range(STEPS):
        possible = [rule for rule in RULES if rule.condition(scenario)]
        found = rng.choices(possible, [rule.weight for rule in possible])[0]
        yield Step(found.name, {name: draw(rng) for name, draw in found.draws.items()})


def shrink(steps: list[Step], seconds: float) -> list[Step]:
    """Returns the steps without those that can be left out so that it still fails."""
    deadline = time.monotonic() + seconds
    size = len(steps) // 2
    while size and time.monotonic() < deadline:
        for start in range(1, len(steps), size):
            fewer = steps[:start] + steps[start + size :]
            rules = {rule.name: rule for rule in RULES}
            if time.monotonic() < deadline and _fails(fewer, rules):
                steps = fewer
                break
        else:
            size //= 2
    return steps


def _fails(steps: list[Step], rules: Mapping[str, Rule]) -> bool:
    def possible(scenario: Scenario) -> Iterator[Step]:
        yield from (step for step in steps if step.name == "start" or rules[step.name].condition(scenario))

    return run_scenario(possible)[1] is not None


def test_tokens_live_as_the_model_says(tmp_path: Path) -> None:
    Scenario.base, Scenario.second_process = tmp_path, SecondProcess()
    Scenario.tally, Scenario.numbers = Counter(), count(1)
    began, seed = time.monotonic(), random.randrange(10**6) if FULL else 1
    try:
        for number in range(SCENARIOS):
            steps, error = run_scenario(partial(random_steps, random.Random(seed + number)))
            if error is not None:
                listed = "\n".join(map(str, shrink(steps, 60 if FULL else 10)))
                pytest.fail(f"scenario {seed + number}: {error!r}\n{listed}")
    finally:
        Scenario.second_process.close()
    summary = ", ".join(f"{number} {what}" for what, number in sorted(Scenario.tally.items()))
    print(f"\ncampaign token life: seed {seed}, {summary}; 0 differences in {time.monotonic() - began:.0f} s")
    assert Scenario.tally["steps"] >= (10_000 if FULL else 200)
