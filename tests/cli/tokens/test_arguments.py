"""The arguments of ``token_manager.py``: their help, and their completion in a shell."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.cli.tokens.arguments import COMMANDS, completion_script
from tests.cli.tokens.command_line import run, run_failing, run_json
from tests.support.gateway import ROOT, environment
from tests.support.tokens import content, entry


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_examples(tmp_path: Path, command: str) -> None:
    text = run(tmp_path, command, "--help")
    assert text.startswith(f"usage: token_manager.py {command}")
    assert f"token_manager.py {command}" in text.partition("examples:")[2]
    assert "--json" in text


def test_help_names_every_command(tmp_path: Path) -> None:
    first_words = [line.split()[0] for line in run(tmp_path, "--help").splitlines() if line.startswith("    ")]
    assert set(COMMANDS) <= set(first_words)


def test_every_shell_has_a_script_for_both_names() -> None:
    for shell in ("bash", "zsh", "tcsh"):
        script = completion_script(shell)
        assert "token_manager.py" in script
        assert "token-manager" in script
        for command in COMMANDS:
            assert command in script


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_the_command_prints_the_script(tmp_path: Path, shell: str) -> None:
    assert run(tmp_path, "completion", shell) == completion_script(shell) + "\n"
    assert run_json(tmp_path, "completion", shell) == {"shell": shell, "script": completion_script(shell)}


@pytest.mark.parametrize("name", ["token_manager.py", "token-manager"])
def test_a_shell_completes_under_both_names(tmp_path: Path, name: str) -> None:
    commands = f"source /dev/stdin; COMP_WORDS=({name} ro); COMP_CWORD=1; _shtab_token_manager_py; complete -p {name}"
    script = run(tmp_path, "completion", "bash")
    done = subprocess.run(
        ["bash", "-c", f"{commands}; echo ${{COMPREPLY[@]}}"],
        input=script.encode(),
        capture_output=True,
        check=True,
        timeout=30,
    )
    assert done.stdout.split()[-1] == b"rotate"


@pytest.mark.parametrize(
    "arguments",
    [
        ["create"],
        ["list", "--status", "bogus"],
        ["create", "x", "--rpm", "1e3"],
        ["usage", "--since"],
        ["nosuch"],
        ["update", "x"],
        ["rotate", "x", "--grace", "soon"],
        ["usage", "--csv"],
        ["list", "--limit", "\udcff"],
        [],
    ],
)
def test_wrong_usage_is_one_json_document_where_json_is_asked_for(tmp_path: Path, arguments: list[str]) -> None:
    make = ["create", "x"]
    run(tmp_path, *make)
    assert run_json(tmp_path, *arguments, code=2)["error"]["message"]


def test_wrong_usage_is_told_with_the_usage(tmp_path: Path) -> None:
    text = run_failing(tmp_path, "create", code=2)
    assert text.startswith("usage: token_manager.py create ")
    assert text.endswith("token_manager.py create: error: the following arguments are required: NAME\n")
    assert run_failing(tmp_path, "show", "--", "--json", "x", code=2).startswith("usage: ")


@pytest.mark.parametrize("arguments", [["list"], ["--help"], ["completion", "bash"], ["audit", "--json"]])
def test_a_reader_that_goes_away_is_no_error(tmp_path: Path, arguments: list[str]) -> None:
    (tmp_path / "api_tokens.json").write_bytes(
        content(*(entry(f"sk-made-up-secret-{n}", name=f"t{n}") for n in range(900)))
    )
    assert ended_without_reader(tmp_path, *arguments) == (0, b"")


def test_a_secret_that_nobody_reads_is_an_error(tmp_path: Path) -> None:
    code, complaint = ended_without_reader(tmp_path, "create", "x")
    assert (code, b"Broken pipe" in complaint) == (1, True)
    assert run_json(tmp_path, "list")["tokens"] == []


def ended_without_reader(folder: Path, *arguments: str) -> tuple[int, bytes]:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, str(ROOT / "token_manager.py"), *arguments]
    try:
        ended = subprocess.run(
            command,
            cwd=folder,
            env=environment(folder),
            stdout=writing,
            stderr=subprocess.PIPE,
            timeout=60,
            check=False,
        )
    finally:
        os.close(writing)
    return ended.returncode, ended.stderr
