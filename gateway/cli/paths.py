"""Tells the commands where the gateway's files are, and where it listens, whether the other settings are good or not."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from gateway.config import settings
from gateway.config.settings import ConfigurationError, Problem

_TOKENS_FILE, _DATA_DIR, _HOST, _PORT = "GATEWAY_TOKENS_FILE", "GATEWAY_DATA_DIR", "GATEWAY_HOST", "GATEWAY_PORT"
_LOOPBACK_OF = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared, never bound


class DataPaths(NamedTuple):
    """Holds where the gateway's files are."""

    tokens_file: Path
    data_dir: Path


def data_paths(environ: Mapping[str, str], env_file: Path | None = None) -> DataPaths:
    """Returns the paths alone. Raises ConfigurationError for problems with these two settings.

    Nothing else is checked: a mistake in another setting must not keep anybody from revoking a token.
    """
    problems: list[Problem] = []
    found = settings.load_some(environ, env_file, (_TOKENS_FILE, _DATA_DIR), problems)
    if problems:
        raise ConfigurationError(problems)
    return DataPaths(found[_TOKENS_FILE], found[_DATA_DIR])


def client_url(environ: Mapping[str, str]) -> str:
    """Returns the address at which clients on this machine call the gateway; the usual one where the settings are wrong."""
    problems: list[Problem] = []
    found = settings.load_some(environ, None, (_HOST, _PORT), problems)
    if problems:
        found = settings.load_some({}, None, (_HOST, _PORT), [])
    return url_of(found[_HOST], found[_PORT])


def url_of(host: str, port: int) -> str:
    """Returns the URL of an address that a server listens on. ``PORT`` stands where any free port would do."""
    # A wildcard address is one to listen on, and not one to call.
    name = _LOOPBACK_OF.get(host, host)
    return f"http://{f'[{name}]' if ':' in name else name}:{port or 'PORT'}"
