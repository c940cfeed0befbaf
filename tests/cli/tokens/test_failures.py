"""What the command line does with damaged files, wrong settings and the old form: it reports them, and destroys nothing."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.tokens.command_line import TWO, run, run_failing, run_json
from tests.support.gateway import environment, token_manager
from tests.support.tokens import freegpt


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "api_tokens.json"


DAMAGE = [b"", b"{", b"\xff\xfe", TWO[:-40], TWO.replace(b"revoked_at", b"revoked"), b"[" * 100_000]
COMMANDS = [
    ["list"],
    ["create", "n"],
    ["show", "mobile-app"],
    ["revoke", "my-application"],
    ["delete", "my-application"],
    ["verify"],
    ["import", "-"],
]


@pytest.mark.parametrize("arguments", COMMANDS, ids=lambda arguments: arguments[0])
def test_a_damaged_file_is_78_and_never_written_over(tmp_path: Path, path: Path, arguments: list[str]) -> None:
    for damage in DAMAGE:
        path.write_bytes(damage)
        printed = run_failing(tmp_path, *arguments, code=78, stdin=TWO)
        assert f"token_manager.py: {path}: " in printed
        assert path.read_bytes() == damage


def test_a_wrong_configuration_is_78(tmp_path: Path) -> None:
    ended = token_manager(tmp_path, "list", GATEWAY_CONFIG="absent.toml")
    assert ended.returncode == 78
    assert b"GATEWAY_CONFIG" in ended.stderr


def test_what_cannot_be_read_is_1_and_no_crash(tmp_path: Path, path: Path) -> None:
    path.mkdir()
    assert run_failing(tmp_path, "list", code=1)
    path.rmdir()
    path.symlink_to(path)
    assert run_failing(tmp_path, "list", code=1)


def test_a_wrong_setting_of_the_server_does_not_hold_up_a_revocation(tmp_path: Path, path: Path) -> None:
    path.write_bytes(TWO)
    assert token_manager(tmp_path, "revoke", "my-application", GATEWAY_PORT="x").returncode == 0


def test_the_old_form_is_turned_into_hashes_by_the_first_change(tmp_path: Path, path: Path) -> None:
    path.write_text(json.dumps({**freegpt(), **freegpt("sk-second-old-secret-made-up", name="second", active=False)}))
    before = [token["id"] for token in run_json(tmp_path, "list")["tokens"]]
    assert "sk-old-secret-that-freegpt-made" in path.read_text(), "reading does not write"
    run(tmp_path, "revoke", "old")
    assert "sk-old-secret-that" not in path.read_text()
    assert [token["id"] for token in run_json(tmp_path, "list")["tokens"]] == before
    assert run(tmp_path, "list").count("✗ Revoked") == 2


def test_nothing_of_the_server_is_imported(tmp_path: Path) -> None:
    """The import of aiohttp alone takes 200 ms."""
    code = "import sys, gateway.cli.tokens; gateway.cli.tokens.main(['list']); print(*sorted(sys.modules))"
    ended = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = set(ended.stdout.split())
    assert not loaded & {
        "aiohttp",
        "uvloop",
        "prometheus_client",
        "gateway.app",
        "gateway.server.worker",
    }
