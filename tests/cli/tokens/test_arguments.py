"""The arguments of ``token_manager.py``: their help, and their completion in a shell."""

import subprocess
from pathlib import Path

import pytest

from gateway.cli.tokens.arguments import COMMANDS, completion_script
from tests.cli.tokens.command_line import run, run_json


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
