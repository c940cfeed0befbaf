"""docs/tokens.md does what it says: its blocks are run, and its tables and pictures are compared with the code."""

import json
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.auth.roles import ROLES, Action
from gateway.cli.tokens import arguments
from gateway.http.routes import Endpoints, routes
from gateway.limits.config import LimitSet
from gateway.tokens import expiry
from gateway.tokens.models import Role, Status
from tests.docs.blocks import Block
from tests.support.gateway import ROOT, Process, environment, gateway_process, pause, token_manager

PAGE = (ROOT / "docs" / "tokens.md").read_text(encoding="utf-8")
# Blocks may stand in a list, so they may be indented.
BLOCKS = [
    Block(language, use or "", textwrap.dedent(text))
    for _, language, use, text in re.findall(
        r"^( *)```(\w+)(?: ([^\n]+))?\n(.*?)^\1```$", PAGE, re.DOTALL | re.MULTILINE
    )
]
USES = {
    "bash": {"against=default", "leak"},
    "python": {"against=default"},
    "yaml": {"ci"},
    "json": {"answer=token", "answer=validity"},
}
PICTURES = {"mermaid"}
BETWEEN = "-- the next block --"
FIELD = next(line for line in PAGE.splitlines() if line.startswith("field()")) + "\n"


def used(use: str) -> list[Block]:
    return [found for found in BLOCKS if found.use == use]


def one(use: str) -> str:
    (found,) = used(use)
    return found.text


@dataclass
class Session:
    """The page, read from top to bottom in one bash beside a gateway that goes on running."""

    gateway: Process
    folder: Path
    said: list[str]
    """What each block printed."""
    variables: Mapping[str, str]
    """What the shell had in the end."""

    def run(self, script: str, stdin: str = "", **values: str) -> str:
        done = bash(self.folder, script.replace("127.0.0.1:8000", f"127.0.0.1:{self.gateway.port}"), stdin, **values)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def ask(self, path: str, key: str) -> Any:
        return json.loads(
            self.run(f'curl -s "{self.gateway.url}{path}" -H "Authorization: Bearer {self.variables[key]}"')
        )

    def said_by(self, part: str) -> str:
        """What the block printed that holds ``part``."""
        (found,) = [said for block, said in zip(used("against=default"), self.said, strict=True) if part in block.text]
        return found


def bash(folder: Path, script: str, stdin: str = "", **values: str) -> "subprocess.CompletedProcess[str]":
    environ = environment(folder, **values)
    environ["PATH"] = (
        f"{Path(sys.executable).parent}{os.pathsep}{environ['PATH']}"  # `python3` is the one with the clients
    )
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env=environ,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )


def as_bash(found: Block) -> str:
    return found.text if found.language == "bash" else f"python3 - <<'END_OF_PROGRAM'\n{found.text}END_OF_PROGRAM\n"


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    folder = tmp_path_factory.mktemp("tokens_page")
    (folder / "token_manager.py").symlink_to(ROOT / "token_manager.py")
    with gateway_process(folder) as gateway:
        script = f"echo; echo '{BETWEEN}'\n".join(as_bash(found) for found in used("against=default"))
        script += (
            f"echo; echo '{BETWEEN}'\nfor NAME in ADMIN CHAT NEW APP_SERVER_TOKEN; do echo \"$NAME=${{!NAME}}\"; done\n"
        )
        done = bash(folder, script.replace("127.0.0.1:8000", f"127.0.0.1:{gateway.port}"))
        assert done.returncode == 0, done.stdout + done.stderr
        *said, variables = done.stdout.split(f"\n{BETWEEN}\n")
        yield Session(gateway, folder, said, dict(line.split("=", 1) for line in variables.split()))


def test_every_block_is_run_or_compared() -> None:
    unknown = [b for b in BLOCKS if b.language not in PICTURES and b.use not in USES.get(b.language, ())]
    assert not unknown, "a block that nothing runs will be wrong one day"
    # Every fence with a language was found, in a list, too.
    assert len(BLOCKS) == len(re.findall(r"^ *```\w+", PAGE, re.MULTILINE))


def test_no_block_is_answered_with_an_error(session: Session) -> None:
    assert not [said for said in session.said if '"error":{' in said]


def test_what_the_blocks_say(session: Session) -> None:
    assert '"role":"admin"' in session.said_by("create operator")
    assert re.search(r"chat  ✓ Active\n└── sk-\S+  chat-tonight  ✓ Active", session.said_by("list --tree"))
    assert re.search(r"Old secret: sk-.+ works until .+; 1 use\(s\) .+ from 127\.0\.0\.1", session.said_by("show chat"))
    assert session.said_by("Hello from a script").strip() == "Hello from a script"
    assert session.said_by("def sweep").startswith("sk-")
    assert '"data":[{"id":"echo"' in session.said_by("SMALL=")
    assert "✓ Valid: 'chat'" in session.said_by("audit\neval")
    before, _, after = session.said_by("while IFS=").partition("\n")
    last = before.removeprefix("the last hash: ")
    assert re.fullmatch(r"[0-9a-f]{64}", last)
    assert last in after
    assert session.said_by("KEPT=").splitlines()[-1] == "1"


def test_ending_the_old_secret_ends_that_secret_alone(session: Session) -> None:
    assert session.ask("/api/me", "NEW")["token"]["name"] == "chat"
    assert session.ask("/api/me", "CHAT")["error"]["code"] == "invalid_api_key"


def test_a_child_may_not_have_what_the_page_says_it_may_not(session: Session) -> None:
    refused = token_manager(session.folder, "create", "chat-tomorrow", "--parent", "chat", "--rpm", "10")
    assert refused.returncode == 1
    assert b"may not have more than its parent" in refused.stderr


def test_the_chain_that_is_walked_by_hand_notices_a_change(session: Session, tmp_path: Path) -> None:
    walk = (
        next(found.text for found in BLOCKS if "while IFS=" in found.text).partition("done <")[0]
        + "done < data/audit.jsonl"
    )
    (tmp_path / "data").mkdir()
    log = tmp_path / "data" / "audit.jsonl"
    lines = (session.folder / "data" / "audit.jsonl").read_text().splitlines(keepends=True)
    for wrong in (lines[:1] + lines[2:], [lines[0].replace("operator", "0perator"), *lines[1:]]):
        log.write_text("".join(wrong))
        assert "broken here" in bash(tmp_path, walk).stdout
    log.write_text("".join(lines[:-1]))  # cut off at the end: as the page says, that cannot be seen
    assert "broken here" not in bash(tmp_path, walk).stdout


def test_the_pipeline_for_ci_asks_with_its_token(session: Session) -> None:
    job = yaml.safe_load(one("ci"))["jobs"]["ask"]
    assert set(job["env"]) == {"OPENAI_BASE_URL", "OPENAI_API_KEY"}
    made = json.loads(token_manager(session.folder, "create", "pipeline", "--role", "service", "--json").stdout)
    pause(1)
    values = {"OPENAI_BASE_URL": f"{session.gateway.url}/v1", "OPENAI_API_KEY": made["token"]}
    said = [session.run(step["run"], **values) for step in job["steps"]]
    assert json.loads(said[-1])["choices"][0]["message"]["content"] == "Hello from CI"


def test_the_sweep_removes_what_has_expired_and_nothing_else(session: Session) -> None:
    child = ("create", "app user-18", "--parent", "app-server", "--role", "service", "--expires")
    token_manager(session.folder, *child, "1s")
    pause(2)
    page = "/api/tokens?name=app*"
    before = {token["name"]: token["status"] for token in session.ask(page, "APP_SERVER_TOKEN")["tokens"]}
    assert before == {"app-server": "active", "app user-17": "active", "app user-18": "expired"}
    (program,) = [found.text for found in BLOCKS if "def sweep" in found.text]
    session.run(as_bash(Block("python", "", program)), APP_SERVER_TOKEN=session.variables["APP_SERVER_TOKEN"])
    after = [token["name"] for token in session.ask(page, "APP_SERVER_TOKEN")["tokens"]]
    assert sorted(after) == ["app user-17", "app user-17", "app-server"]


def test_a_leaked_secret_is_ended_and_its_traces_are_found(session: Session) -> None:
    leaked = json.loads(token_manager(session.folder, "create", "leaked-app", "--json").stdout)
    pause(1)
    made = f"curl -s {session.gateway.url}/api/tokens -H 'X-API-Key: {leaked['token']}' -d '{{\"name\": \"unknown child\"}}'"
    session.run(made)
    end, look, trace = (found.text for found in used("leak"))
    assert json.loads(session.run(end, f"{leaked['token']}\n"))["success"]
    assert "Status: ✗ Revoked" in session.run(look)
    found = session.run(FIELD + trace)
    assert '"address":"127.0.0.1"' in found
    assert re.search(r"leaked-app  ✗ Revoked\n└── \S+  unknown child  ✗ Revoked", found)


def test_answers_have_the_fields_that_the_page_shows(session: Session) -> None:
    shown = json.loads(one("answer=token"))
    (chat,) = session.ask("/api/tokens?name=chat", "ADMIN")["tokens"]
    assert list(chat) == list(shown)
    assert list(chat["previous_secrets"][0]) == list(shown["previous_secrets"][0])
    validate = f'curl -s {session.gateway.url}/api/tokens/validate -d \'{{"token": "{session.variables["NEW"]}"}}\''
    assert list(json.loads(session.run(validate))) == list(json.loads(one("answer=validity")))


def rows(heading: str) -> list[list[str]]:
    """The cells of the first table under a heading."""
    text = PAGE.partition(f"\n## {heading}\n")[2].partition("\n#")[0]
    table = re.search(r"^\|.*?(?=\n\n)", text, re.DOTALL | re.MULTILINE)
    assert table, heading
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in table[0].splitlines()]


def test_the_role_table_is_the_gateways_own() -> None:
    (first, *verbs), _, *lines = rows("Roles")
    assert (first, verbs) == ("role", [verb.value for verb in Action])
    assert {Role(line[0].strip("`")): dict(zip(map(Action, verbs), line[1:], strict=True)) for line in lines} == {
        role: {verb: reach.value for verb, reach in row.items()} for role, row in ROLES.items()
    }


def test_the_picture_has_every_status_and_no_other() -> None:
    (picture,) = [found.text for found in BLOCKS if found.language == "mermaid"]
    drawn = {name for arrow in re.findall(r"(\S+) --> (\S+?):", picture) for name in arrow}
    assert drawn - {"[*]"} == {status.value for status in Status}


def test_spans_are_as_long_as_the_table_says() -> None:
    _, _, *lines = rows("Expiry")
    assert [int(seconds) for *_, seconds in lines] == [expiry.span(example.strip("`")) for _, _, example, _ in lines]
    assert {unit.strip("`") for unit, *_ in lines} == set("smhdwy")


def test_every_limit_is_on_the_page() -> None:
    named = {re.sub("`|limits\\.", "", line[1]) for line in rows("Limits")[2:]}
    assert named == {"models", *LimitSet.__struct_fields__}


def test_every_command_is_on_the_page_and_in_a_block(session: Session) -> None:
    commands = set(arguments.COMMANDS)
    table = {re.split(r"[` ]", line[0])[1] for line in rows("On the command line")[2:]}
    run = "\n".join(found.text for found in used("against=default"))
    assert table == commands == set(re.findall(r"token_manager\.py (\w+)", run)) & commands


class _Nobody:
    def __getattr__(self, name: str) -> Any:
        return name


def _api_calls() -> set[str]:
    table = routes(Endpoints(*[_Nobody()] * len(Endpoints._fields)))  # type: ignore[arg-type]
    return {f"{route.methods[0]} {route.pattern}" for route in table if route.pattern.startswith("/api/")}


def test_every_call_is_on_the_page_and_in_a_block(session: Session) -> None:
    assert {line[0].strip("`") for line in rows("Over HTTP")[2:]} == _api_calls()
    log = [json.loads(line) for line in session.gateway.log.read_text().splitlines() if '"logger":"access"' in line]
    asked = {f"{line['method']} {_pattern(line['path'])}" for line in log if line["status"] < 400}
    assert _api_calls() <= asked


def _pattern(path: str) -> str:
    path = re.sub(r"/tok_\w+", "/{id}", path)
    return re.sub(r"/[^/]+@[^/]+", "/{email}", path)
