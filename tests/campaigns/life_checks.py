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
from tests.campaigns.life import (
    TOKENS,
    Command,
    CommandRunner,
    FaultInjector,
    SecondProcess,
    audit_path,
    inject_faults,
    raise_disk_full,
)
from tests.campaigns.life_file import read
from tests.campaigns.life_gateway import Gateway
from tests.campaigns.life_model import Lines, Model, Refused, Secret, Token, covers
from tests.campaigns.secret_search import SecretSearch
from tests.support.tokens import NOW, Clock

MODELS = ("gpt-3.5", "gpt-4", "gpt-4o", "gpt-4o-mini", "o1", "another")


class ExpectedState(NamedTuple):
    """A state that may be the present one: its tokens, and whether it accepts the new lines of the audit log."""

    model: Model
    accepts: Callable[[Lines], bool]


class ScenarioChecks:
    """One folder from its first token on. The command line, a second process and a gateway write to it."""

    base: ClassVar[Path]
    second_process: ClassVar[SecondProcess]
    tally: ClassVar[Counter[str]]
    numbers: ClassVar[Iterator[int]]

    def __init__(self) -> None:
        self.folder = self.base / f"scenario-{next(self.numbers)}"
        self.folder.mkdir()
        self.path = self.folder / TOKENS
        self.runner = asyncio.Runner()
        self.wall = Clock(NOW + 0.25)
        self.model = Model()
        self.secrets: list[str] = []
        self.revoked: set[str] = set()
        self.pending_uses: dict[tuple[str, str | None], list[Any]] = {}
        self.admitted: list[tuple[str, Principal]] = []
        self.backup: tuple[str, list[Token]] | None = None
        self.disk_fault: tuple[int, bool] | None = None
        self.kill_at: int | None = None
        self.lines_read = 0
        self.latest_times: Counter[str] = Counter()
        self.command_line = CommandRunner(self.folder, self.wall)
        self.gateway: Gateway | None = None
        self.second_process.use_folder(self.folder)
        self.tally["scenarios"] += 1

    def close(self) -> None:
        self.runner.close()
        shutil.rmtree(self.folder)

    # How reality is compared with the model

    def _change(self, writer: str, command: Command, caller: tuple[str, Principal] | None = None) -> None:
        now = self._now(writer)
        answer, triggered = self._execute(writer, command, caller)
        outcome = next((name for name in ("killed", "failed", "refused") if name in answer), "done")
        self.tally[f"changes {outcome}"] += 1
        if "secret" in answer:
            self.secrets.append(answer["secret"])
            answer.setdefault("id", self._id_of(answer["secret"]))
        after, lines = self._predict(command, now, answer, caller and caller[0])
        if_made = ExpectedState(after, exactly(lines)) if after else None
        accepts = self._left_by_failure(lines, triggered) if outcome in ("killed", "failed") else exactly([])
        if_not_made = ExpectedState(self.model, accepts)
        summary = (writer, command, answer, caller)
        if outcome == "killed":
            self.latest_times[writer] = 0
            self._match_state([if_not_made, *([if_made] if if_made else [])], summary)
        elif outcome == "done":
            assert if_made, f"{summary} was made, but the model refuses it"
            assert triggered or not lines or not list(self.folder.glob(".*.tmp")), (
                "a killed writer's temporary file is still there"
            )
            self._match_state([if_made], summary)
        else:
            assert triggered or outcome == "refused", f"{summary} failed, but no call to the disk did"
            assert outcome == "failed" or after is None, f"{summary} was refused, but the model allows it"
            self._match_state([if_not_made], summary)

    def _left_by_failure(self, lines: Lines, triggered: list[str]) -> Callable[[Lines], bool]:
        """Returns which lines a change that was not made may leave. A disk that fails once prevents no cleaning up."""
        if len(triggered) != 1 or triggered == ["log.close"] or self.lines_read == 0:
            return partly(lines)
        failed = [(f"{action}.failed", token_id) for action, token_id in lines]
        return lambda new: exactly([])(new) or exactly([*lines, *failed])(new)

    def _execute(
        self, writer: str, command: Command, caller: tuple[str, Principal] | None
    ) -> tuple[Command, list[str]]:
        """Returns the answer, and in which calls the disk failed."""
        plain = {name: value for name, value in command.items() if name != "offered"}
        if writer == "second process":
            at, self.kill_at = self.kill_at, None
            self.second_process.send(plain, self.wall.now, at)
            return self.second_process.answer(), []
        with self._faulty_disk() as faults:
            if writer == "gateway":
                answer = self.runner.run(self.server.execute(plain, caller[1] if caller else ENVIRONMENT_KEY))
            else:
                answer = self.command_line.execute(plain)
        return answer, faults.triggered

    @contextmanager
    def _faulty_disk(self) -> Iterator[FaultInjector]:
        """Lets the disk fail as it was arranged, for one change."""
        at, lasting = self.disk_fault or (10**9, False)
        self.disk_fault = None
        faults = FaultInjector(at, raise_disk_full, lasting=lasting)
        with inject_faults(faults):
            yield faults
        self.tally["disk failures"] += len(faults.triggered)

    def _predict(self, command: Command, now: float, answer: Command, caller: str | None) -> tuple[Model | None, Lines]:
        after = copy.deepcopy(self.model)
        try:
            lines = after.apply(command, now, answer, caller)
        except Refused:
            return None, []
        return after, lines

    def _predict_both(
        self, commands: list[Command], times_of_commands: list[float], answers: list[Command], sequence: tuple[int, int]
    ) -> ExpectedState | None:
        model, lines = copy.deepcopy(self.model), []
        for number in sequence:
            is_refused = "refused" in answers[number]
            try:
                lines += model.apply(commands[number], times_of_commands[number], answers[number])
            except Refused:
                if not is_refused:
                    return None
            else:
                if is_refused:
                    return None
        return ExpectedState(model, exactly(lines))

    def _match_state(self, states: list[ExpectedState], summary: object = None) -> None:
        """Finds out which of the states is the present one."""
        found, lines = read(self.path), self._new_lines()
        for state in states:
            if state.model.stored_form() == found and state.accepts(lines):
                self.model = state.model
                return
        wanted = [differences(state.model.stored_form(), found) for state in states]
        raise AssertionError(f"{summary}: the file differs by {wanted}, new lines {lines}")

    def _new_lines(self) -> Lines:
        """Returns the lines of the audit log that are new since the last call. Also verifies the whole hash chain."""
        path = audit_path(self.folder)
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        if lines and not lines[-1].endswith(b"\n"):
            lines.pop()  # a writer was killed or failed there; the next one cuts it off
        verdict = verify(lines)
        assert verdict.broken is None, verdict
        new = [json.loads(line) for line in lines[self.lines_read :]]
        self.lines_read = len(lines)
        self.tally["audit lines"] += len(new)
        return [(line["action"], line["token_id"]) for line in new]

    def check_all(self) -> None:
        """Compares what the gateway and the model say of every secret ever made."""
        self.tally["steps"] += 1
        now = self._now("gateway")
        assert self.server.clock() == now
        self.runner.run(self.server.token_cache.refresh())
        self.is_enforcing |= bool(self.model.tokens)
        found = {text: self.server.authenticate(text) for text in self.secrets}
        for text, (status, principal) in found.items():
            wanted = self.model.secret_status(text, now) if self.is_enforcing else "open"
            assert status == wanted, f"a secret of {self.model.find_secret(text)} is {status}, not {wanted}, at {now}"
            self._check_rights(text, principal)
        self.tally["secrets compared"] += len(found)
        self._check_revoked({text: status for text, (status, _) in found.items()})
        self._check_relations([principal for _, principal in found.values() if principal])
        self._check_uses()

    def _check_rights(self, text: str, principal: Principal | None) -> None:
        match = self.model.find_secret(text)
        if principal is None or match is None:
            return
        rights = self.model.rights(match[0])
        assert (principal.token_id, principal.name) == (match[0].id, match[0].name)
        assert (principal.role, principal.is_test) == (rights.role, rights.is_test)
        allowed = [model for model in MODELS if all(covers(names, [model]) for names in rights.models)]
        assert [model for model in MODELS if principal.may_use(model)] == allowed

    def _check_revoked(self, found: dict[str, str]) -> None:
        """A secret that was revoked once never authenticates again."""
        alive = {text for text, status in found.items() if status == "active"}
        assert not alive & self.revoked
        self.revoked |= {text for text, status in found.items() if status == "revoked"}

    def _check_relations(self, principals: list[Principal]) -> None:
        """No child has more rights than its parent, whatever its record says; nor does it stay active longer."""
        find_by_id = {principal.token_id: principal for principal in principals}
        for child in find_by_id.values():
            if child.secret_match is None or child.secret_match.record.parent_id is None:
                continue
            assert (
                self.model.status(self.model.tokens[child.secret_match.record.parent_id], self.latest_times["gateway"])
                == "active"
            )
            parent = find_by_id.get(child.secret_match.record.parent_id)
            if parent is not None:
                assert child.role.rank <= parent.role.rank
                assert all(parent.may_use(model) for model in MODELS if child.may_use(model))

    def _check_uses(self) -> None:
        """Each use is in the file, or waits to be."""
        waits = {
            (used.token_id, used.previous_hash): list(use) for used, use in self.server.last_used.pending.by_key.items()
        }
        assert waits == self.pending_uses

    def check_no_secret_is_stored(self) -> None:
        if self.path.exists() and b'"tokens"' not in self.path.read_bytes():
            return  # FreeGPT's file, which nobody has changed yet
        needles = SecretSearch({f"secret {number}": text for number, text in enumerate(self.secrets)})
        for path in self.folder.rglob("*"):
            if path.is_file():
                self.tally["files searched for secrets"] += 1
                assert not needles.found(path.read_bytes()), path

    # Helpers

    @property
    def server(self) -> Gateway:
        assert self.gateway is not None
        return self.gateway

    def _start_gateway(self, sibling: Gateway | None = None) -> None:
        if sibling is None:
            self.latest_times["gateway"] = 0
            self.is_enforcing = self.key is not None
        clock = sibling.clock if sibling else SteadyClock(self.wall)
        self.gateway = Gateway(self.folder, clock, sibling.enforcement if sibling else SharedLatch(), self.key)
        self.runner.run(self.gateway.token_cache.load())

    def _now(self, writer: str) -> float:
        """Returns the time as that process sees it: it never goes back while the process runs."""
        self.latest_times[writer] = max(self.latest_times[writer], self.wall.now)
        return self.latest_times[writer]

    def _pick_token(self, number: int) -> Token:
        """Returns any token; two times in three an active one."""
        tokens = list(self.model.tokens.values())
        alive = [token for token in tokens if self.model.status(token, self.wall.now) == "active"]
        among = alive if alive and number % 3 else tokens
        return among[number // 3 % len(among)]

    def _id_of(self, text: str) -> str | None:
        digest = Secret(text).hash
        return next((token_id for token_id, item in read(self.path).items() if item["hash"] == digest), None)

    def _with_absolute_expiry(self, values: Command) -> Command:
        after = values.get("expires_at")
        return {**values, "expires_at": int(self.wall.now) + after} if after else values

    def _simple_command(self, verb: str, token_id: str) -> Command:
        command = {"verb": verb, "reference": token_id, "grace": 60, "id": token_id, "hash": None, "times": 1}
        return {**command, "address": None, "spec": {"name": "raced", "parent_id": token_id}}

    def _apply_pending_uses(self) -> None:
        for (token_id, digest), use in self.pending_uses.items():
            self.model.add_uses(token_id, digest, *use)
        self.pending_uses.clear()

    def future_ends(self) -> list[int]:
        ends = {token.expires_at for token in self.model.tokens.values()}
        ends |= {old.valid_until for token in self.model.tokens.values() for old in token.previous}
        return sorted(end for end in ends if end is not None and end > self.latest_times["gateway"])


def exactly(wanted: Lines) -> Callable[[Lines], bool]:
    """Returns whether lines are these, in any order: a parent and its children end together."""
    return lambda lines: len(lines) == len(wanted) and _without(wanted, lines) is not None


def partly(planned: Lines) -> Callable[[Lines], bool]:
    """Returns whether lines are what a change leaves that was not made: none, some of its lines, or all and that they failed.

    Some of them are only left by a disk that does not even let a file be cut, and by a writer that was killed.
    """
    failed = [(f"{action}.failed", token_id) for action, token_id in planned]

    def accepts(lines: Lines) -> bool:
        failures = [line for line in lines if line[0].endswith(".failed")]
        first = [line for line in lines if line not in failures]
        is_whole = len(first) == len(planned) or not failures
        return is_whole and _without(planned, first) is not None and _without(failed, failures) is not None

    return accepts


def _without(wanted: Lines, lines: Lines) -> Lines | None:
    """Returns what is wanted beyond the lines; None where one of them is not wanted."""
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
