"""What a start finds out by trying: folders, files and mounts that cannot be written."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.storage import files, write_check
from tests.support.tokens import as_nobody, reachable_folder


def content(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_check_that_finds_nothing_leaves_nothing_but_the_lock(tmp_path: Path) -> None:
    assert write_check.folder_problem(tmp_path / "a" / "data") is None
    assert content(tmp_path) == []
    assert write_check.file_problem(tmp_path / "tokens.json") is None
    assert content(tmp_path) == ["tokens.json.lock"]


def test_a_folder_that_cannot_be_written_is_named_with_the_fix() -> None:
    with reachable_folder() as folder, as_nobody():
        user = os.geteuid()
        for problem in (write_check.folder_problem(folder / "data"), write_check.file_problem(folder / "tokens.json")):
            assert problem is not None
            assert f"cannot be written by user {user}: Permission denied" in problem
            assert f"chown -R {user} {folder}" in problem
        assert write_check.access_problem(folder / "data") == f"{folder} cannot be written by user {user}"
        assert content(folder) == []


def test_a_folder_that_may_be_written_is_no_problem(tmp_path: Path) -> None:
    assert write_check.access_problem(tmp_path) is None
    assert write_check.access_problem(tmp_path / "a" / "b") is None


def test_a_file_in_the_place_of_the_folder_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    problem = write_check.folder_problem(tmp_path / "data")
    assert problem is not None
    assert problem.startswith(f"{tmp_path}/data cannot be written: ")


def test_a_database_or_a_lock_of_another_user_is_a_problem() -> None:
    """The folder is writable, but what is in it is not."""
    with reachable_folder() as folder:
        for name in ("usage.sqlite", "tokens.json.lock"):
            (folder / name).touch(0o400)
        folder.chmod(0o777)
        with as_nobody():
            data, tokens = write_check.folder_problem(folder), write_check.file_problem(folder / "tokens.json")
    assert data is not None
    assert data.startswith(f"{folder}/tokens.json.lock cannot be read and written by user")
    assert tokens is not None
    assert "Permission denied" in tokens


def test_a_lock_that_is_held_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write_check, "LOCK_SECONDS", 0.01)
    path = tmp_path / "tokens.json"
    with files.locked(path, 1):
        problem = write_check.file_problem(path)
    assert problem is not None
    assert "tokens.json.lock is held by another process" in problem


@pytest.mark.parametrize("name", ["tokens.json", "tokens \\ mounted.json"])
@pytest.mark.parametrize("options", ["bind", "bind,ro"])
def test_a_single_file_that_is_mounted_is_written_in_place_where_that_is_possible(
    tmp_path: Path, name: str, options: str
) -> None:
    """In a namespace of its own, as a container has it."""
    source, target = tmp_path / "source.json", tmp_path / name
    source.write_text("old")
    target.touch()
    program = (
        "import asyncio, sys; from pathlib import Path; from gateway.core.threads import Threads;"
        "from gateway.storage import files, write_check; path = Path(sys.argv[1]);"
        "print(write_check.is_mount_point(path), write_check.file_problem(path) is None);"
        "asyncio.run(files.replace(path, b'new', Threads('test')))"
    )
    mount = f'mount --bind "$1" "$2" && mount -o remount,{options} "$2" && exec "$3" -c "$4" "$2"'
    command = ["unshare", "-rm", "sh", "-c", mount, "sh", str(source), str(target), sys.executable, program]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if options == "bind":
        assert (ended.returncode, ended.stdout) == (0, "True True\n"), ended.stderr
        assert source.read_text() == "new"
    else:
        assert ended.stdout == "True False\n", ended.stderr
        assert "Read-only file system" in ended.stderr
        assert source.read_text() == "old"
    assert [one for one in content(tmp_path) if one.endswith(".tmp")] == []


def test_what_is_no_mount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert write_check.is_mount_point(Path("/proc"))
    assert not write_check.is_mount_point(tmp_path)
    monkeypatch.setattr(write_check, "MOUNTS", tmp_path / "absent")
    assert not write_check.is_mount_point(Path("/proc"))
