"""Checks what must be true before the gateway serves: its settings, the files in them, and that it can write there."""

import argparse
import asyncio
import contextlib
import logging
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from gateway.cli import paths
from gateway.cli.paths import DataPaths
from gateway.config import settings
from gateway.config.settings import ConfigurationError, Problem, Settings
from gateway.providers import registry
from gateway.storage import write_check
from gateway.storage.folder_lock import FolderInUse, FolderLock
from gateway.tokens.store import TokensDamaged
from gateway.tokens.stores.json_file import JsonTokenFile
from gateway.usage.pricing.prices import read_price_table

log = logging.getLogger(__name__)

_TOKENS, _DATA = "GATEWAY_TOKENS_FILE", "GATEWAY_DATA_DIR"


def load_settings(arguments: argparse.Namespace, environ: Mapping[str, str] = os.environ) -> Settings:
    """Returns the settings after a check of the files and names in them. Raises ConfigurationError with all problems.

    A mistake there must end the start, not the first request.
    """
    problems: list[Problem] = []
    try:
        loaded = settings.load(environ, env_file=arguments.env_file, overrides=_overrides(arguments))
    except ConfigurationError as error:
        problems += error.problems
        with contextlib.suppress(ConfigurationError):  # its problems are among those already
            problems += _file_problems(paths.data_paths(environ, arguments.env_file))
        raise ConfigurationError(problems) from None
    problems += _file_problems(DataPaths(loaded.tokens_file, loaded.data_dir))
    try:
        read_price_table(loaded.prices)
    except ValueError as error:
        problems.append(Problem("GATEWAY_CONFIG", str(error)))
    try:
        registry.find(loaded.backend)
    except registry.UnknownProvider as error:
        problems.append(Problem("GATEWAY_BACKEND", str(error)))
    if problems:
        raise ConfigurationError(problems)
    return loaded


def lock_data_folder(loaded: Settings) -> FolderLock:
    """Returns the lock of the data folder, which this process and its workers hold. Raises ConfigurationError."""
    try:
        return FolderLock(loaded.data_dir, is_shared=loaded.counters == "sqlite")
    except FolderInUse as error:
        fix = "stop that one, give this one a folder of its own, or set GATEWAY_COUNTERS=sqlite for both, so that they share"
        raise ConfigurationError([Problem(_DATA, f"{error}; {fix}")]) from None
    except OSError as error:
        raise ConfigurationError([Problem(_DATA, f"{loaded.data_dir}: {error.strerror or error}")]) from None


def warn_of_mounted_token_file(path: Path) -> None:
    """Logs that a token file which is a mount is written in place, and what that means."""
    if write_check.is_mount_point(Path(os.path.realpath(path))):
        log.warning(
            "the token file is a mount of its own: it is written in place, and a change from outside is only seen if it is made"
            " in place, too; mount its folder instead",
            extra={"file": path},
        )


def warn_of_missing_temporary_folder() -> None:
    """Logs that large forms will be refused: a container with a read-only file system may have no folder for them."""
    try:
        tempfile.gettempdir()
    except FileNotFoundError as error:
        log.warning(
            "there is no folder for temporary files: uploads in forms above 256 KiB get 503; mount one at /tmp, or set TMPDIR",
            extra={"problem": str(error)},
        )


def _overrides(arguments: argparse.Namespace) -> dict[str, str]:
    named = ("host", "port", "workers", "config")
    return {f"GATEWAY_{name.upper()}": value for name in named if (value := getattr(arguments, name)) is not None}


def _file_problems(used: DataPaths) -> list[Problem]:
    tokens = _token_file_problem(used.tokens_file) or write_check.file_problem(used.tokens_file)
    data = write_check.folder_problem(used.data_dir) or _misplaced_folder(used.data_dir)
    found = {_TOKENS: tokens, _DATA: data}
    return [Problem(setting, problem) for setting, problem in found.items() if problem is not None]


def _misplaced_folder(data_dir: Path) -> str | None:
    """Returns what is wrong where a folder has the name of a file: Docker makes one for a mount of a file that does not exist."""
    for path in sorted((*data_dir.glob("*.sqlite*"), *data_dir.glob("*.jsonl"))):
        if path.is_dir():
            return f"{path} is a folder where a file has to be; move it away"
    return None


def _token_file_problem(path: Path) -> str | None:
    if path.is_symlink() and not path.exists():
        # Perhaps a volume is not mounted yet. Without the file the gateway would serve in open mode.
        return f"{path} is a link that leads nowhere"
    try:
        with contextlib.closing(JsonTokenFile(path)) as file:
            asyncio.run(file.read())
    except TokensDamaged as error:
        return str(error)
    except OSError as error:
        return f"{path}: {error.strerror or error}"
    return None
