"""The settings: what can be set, where each comes from, and every problem in one go.

Sources, the earlier winning: the process environment, ``.env``, the TOML file named by ``GATEWAY_CONFIG``. The table
below is the single list; ``.env.example`` and the README are tested against it.
"""

import difflib
import io
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from dotenv.parser import parse_stream

from gateway import setting_values as parse
from gateway.setting_values import Network


class Problem(NamedTuple):
    """One thing that is wrong with the configuration, and how to mend it."""

    setting: str
    complaint: str

    def __str__(self) -> str:
        return f"{self.setting}: {self.complaint}"


class ConfigurationError(Exception):
    """The configuration cannot be used. Exit code 78."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that can be configured, checked. Times in seconds."""

    environment_key: str | None
    host: str
    port: int
    workers: int
    tokens_file: Path
    data_dir: Path
    backend: str
    upstream_url: str | None
    upstream_api_key: str | None
    model_aliases: Mapping[str, str]
    allow_open: bool
    query_token: bool
    max_body_bytes: int
    connect_timeout: float
    first_byte_timeout: float
    chunk_timeout: float
    drain_seconds: float
    trusted_proxies: tuple[Network, ...]
    cors_origins: frozenset[str]
    log_format: str
    log_level: str

    @property
    def secrets(self) -> tuple[str, ...]:
        """The configured secrets, for the log to mask."""
        return tuple(secret for secret in (self.environment_key, self.upstream_api_key) if secret)


class Spec(NamedTuple):
    """One row of the settings table."""

    name: str
    default: str
    parse: Callable[[str], Any]
    help: str
    secret: bool = False


SPECS: tuple[Spec, ...] = (
    Spec(
        "FREEGPT_API_KEY",
        "",
        parse.key,
        "the environment key: an admin; the first non-empty one counts",
        True,
    ),
    Spec("OPENAI_API_KEY", "", parse.key, "the environment key, if FREEGPT_API_KEY is empty", True),
    Spec("GATEWAY_HOST", "127.0.0.1", parse.text, "address to listen on"),
    Spec("GATEWAY_PORT", "8000", parse.port, "port to listen on; 0 takes a free one"),
    Spec("GATEWAY_WORKERS", "1", parse.workers, "processes that serve the address together"),
    Spec("GATEWAY_TOKENS_FILE", "api_tokens.json", parse.path, "the token file"),
    Spec("GATEWAY_DATA_DIR", "data", parse.path, "folder for what the gateway itself writes"),
    Spec("GATEWAY_BACKEND", "", parse.text, "backend by name; `openai` if an upstream is set, else `echo`"),
    Spec("GATEWAY_UPSTREAM_URL", "", parse.url, "the OpenAI-compatible upstream, up to and with `/v1`"),
    Spec("GATEWAY_UPSTREAM_API_KEY", "", parse.key, "the key that the gateway shows to the upstream", True),
    Spec(
        "GATEWAY_MODEL_ALIASES",
        "",
        parse.aliases,
        "`name=upstream-name,…`: the name clients use, the real one",
    ),
    Spec("GATEWAY_ALLOW_OPEN", "off", parse.switch, "in open mode, serve clients that are not on loopback, too"),
    Spec("GATEWAY_QUERY_TOKEN", "on", parse.switch, "accept `?token=`"),
    Spec("GATEWAY_MAX_BODY_MB", "64", parse.positive, "larger request bodies get 413"),
    Spec("GATEWAY_CONNECT_TIMEOUT", "5", parse.positive, "seconds to reach the upstream"),
    Spec("GATEWAY_FIRST_BYTE_TIMEOUT", "600", parse.positive, "seconds until the upstream begins to answer"),
    Spec("GATEWAY_CHUNK_TIMEOUT", "120", parse.positive, "seconds between two pieces of an answer"),
    Spec("GATEWAY_DRAIN_SECONDS", "30", parse.not_negative, "how long SIGTERM waits for running requests"),
    Spec("GATEWAY_TRUSTED_PROXIES", "", parse.networks, "CIDRs whose X-Forwarded-For is believed"),
    Spec("GATEWAY_CORS_ORIGINS", "", parse.origins, "exact origins that browsers may call from"),
    Spec("GATEWAY_LOG_FORMAT", "auto", parse.one_of("auto", "console", "json"), "`auto`: console on a terminal"),
    Spec(
        "GATEWAY_LOG_LEVEL",
        "info",
        parse.one_of("debug", "info", "warning", "error"),
        "least severe level logged",
    ),
)

_BY_NAME = MappingProxyType({spec.name: spec for spec in SPECS})
_CONFIG = "GATEWAY_CONFIG"


def load(
    environ: Mapping[str, str],
    *,
    env_file: Path | None = None,
    overrides: Mapping[str, str] | None = None,
) -> Settings:
    """Read and check the settings.

    ``env_file`` is ``.env`` in the working directory unless named; ``overrides`` come from the command line and win.
    Raises ConfigurationError with every problem found.
    """
    problems: list[Problem] = []
    sources = {**_read_env_file(env_file, problems), **environ, **(overrides or {})}
    _refuse_unknown(sources, problems)
    if config := sources.get(_CONFIG):
        sources = {**_read_toml(Path(config), problems), **sources}
    texts = {spec.name: _text(spec, sources, problems) for spec in SPECS}
    values = {spec.name: _value(spec, texts[spec.name], problems) for spec in SPECS}
    _check_together(values, problems)
    if problems:
        raise ConfigurationError(problems)
    return _settings(values)


class Places(NamedTuple):
    """Where things lie."""

    tokens_file: Path
    data_dir: Path


def places(environ: Mapping[str, str], env_file: Path | None = None) -> Places:
    """These two alone: whoever has to revoke a token now is not to be held up by another setting's mistake.

    Raises ConfigurationError.
    """
    problems: list[Problem] = []
    sources = {**_read_env_file(env_file, problems), **environ}
    if config := sources.get(_CONFIG):
        sources = {**_read_toml(Path(config), problems), **sources}
    specs = (_BY_NAME["GATEWAY_TOKENS_FILE"], _BY_NAME["GATEWAY_DATA_DIR"])
    found = [_value(spec, sources.get(spec.name, "").strip(), problems) for spec in specs]
    if problems:
        raise ConfigurationError(problems)
    return Places(*found)


def _read_env_file(named: Path | None, problems: list[Problem]) -> dict[str, str]:
    path = named or Path(".env")
    if named is not None and not path.is_file():
        problems.append(Problem("--env-file", f"{path} is not a file"))
        return {}
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        problems.append(Problem(str(path), f"cannot be read: {error}"))
        return {}
    found: dict[str, str] = {}
    # Values are taken literally: a secret may hold "${".
    for binding in parse_stream(io.StringIO(text)):
        if binding.error or (binding.key in _BY_NAME and binding.value is None):
            # Passed over, a key with a slip in it would leave the gateway open.
            problems.append(Problem(f"{path}, line {binding.original.line}", "is not NAME=value"))
        elif binding.key is not None and binding.value is not None:
            found[binding.key] = binding.value
    return found


def _read_toml(path: Path, problems: list[Problem]) -> dict[str, str]:
    """TOML keys are the settings' names in lower case, without ``GATEWAY_``. Secrets do not belong there."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        problems.append(Problem(_CONFIG, f"{path}: {error}"))
        return {}
    found: dict[str, str] = {}
    for key, value in document.items():
        name = f"GATEWAY_{key.upper()}"
        if name in _BY_NAME and not _BY_NAME[name].secret:
            found[name] = parse.from_toml(value)
        else:
            problems.append(Problem(f"{path}: {key}", "is not a setting" + _nearest(name)))
    return found


def _refuse_unknown(sources: Mapping[str, str], problems: list[Problem]) -> None:
    known = {*_BY_NAME, _CONFIG} | {f"{spec.name}_FILE" for spec in SPECS if spec.secret}
    for name in sorted(sources):
        is_slip = name.upper() not in known and difflib.get_close_matches(
            name.upper(), ("FREEGPT_API_KEY",), cutoff=0.85
        )
        if name not in known and (name.upper().startswith("GATEWAY_") or is_slip):
            problems.append(Problem(name, "is not a setting" + _nearest(name)))


def _nearest(name: str) -> str:
    # Without the common beginning, by which everything resembles everything.
    ends = {known.removeprefix("GATEWAY_"): known for known in _BY_NAME}
    near = difflib.get_close_matches(name.upper().removeprefix("GATEWAY_"), list(ends), n=1)
    return f"; did you mean {ends[near[0]]}?" if near else "; see .env.example for the list"


def _text(spec: Spec, sources: Mapping[str, str], problems: list[Problem]) -> str:
    text = sources.get(spec.name, "").strip()
    path = sources.get(f"{spec.name}_FILE", "").strip() if spec.secret else ""
    if not path:
        return text
    if text:
        problems.append(Problem(spec.name, f"is given twice, by itself and by {spec.name}_FILE; keep one"))
        return text
    try:
        content = Path(path).read_text(encoding="utf-8-sig").strip()
        if not content:
            problems.append(Problem(f"{spec.name}_FILE", f"{path} is empty"))
        return content
    except (OSError, UnicodeDecodeError) as error:
        problems.append(Problem(f"{spec.name}_FILE", f"cannot be read: {error}"))
        return ""


def _value(spec: Spec, text: str, problems: list[Problem]) -> Any:
    try:
        return spec.parse(text or spec.default)
    except ValueError as error:
        problems.append(Problem(spec.name, str(error)))
        return None


def _check_together(values: dict[str, Any], problems: list[Problem]) -> None:
    if not values["GATEWAY_BACKEND"]:
        values["GATEWAY_BACKEND"] = "openai" if values["GATEWAY_UPSTREAM_URL"] else "echo"
    is_complained_of = any(problem.setting == "GATEWAY_UPSTREAM_URL" for problem in problems)
    if values["GATEWAY_BACKEND"] == "openai" and not values["GATEWAY_UPSTREAM_URL"] and not is_complained_of:
        complaint = "is needed by the backend `openai`, for example http://127.0.0.1:11434/v1"
        problems.append(Problem("GATEWAY_UPSTREAM_URL", complaint))


def _settings(values: Mapping[str, Any]) -> Settings:
    return Settings(
        environment_key=values["FREEGPT_API_KEY"] or values["OPENAI_API_KEY"],
        host=values["GATEWAY_HOST"],
        port=values["GATEWAY_PORT"],
        workers=values["GATEWAY_WORKERS"],
        tokens_file=values["GATEWAY_TOKENS_FILE"],
        data_dir=values["GATEWAY_DATA_DIR"],
        backend=values["GATEWAY_BACKEND"],
        upstream_url=values["GATEWAY_UPSTREAM_URL"],
        upstream_api_key=values["GATEWAY_UPSTREAM_API_KEY"],
        model_aliases=values["GATEWAY_MODEL_ALIASES"],
        allow_open=values["GATEWAY_ALLOW_OPEN"],
        query_token=values["GATEWAY_QUERY_TOKEN"],
        max_body_bytes=int(values["GATEWAY_MAX_BODY_MB"] * 1024 * 1024),
        connect_timeout=values["GATEWAY_CONNECT_TIMEOUT"],
        first_byte_timeout=values["GATEWAY_FIRST_BYTE_TIMEOUT"],
        chunk_timeout=values["GATEWAY_CHUNK_TIMEOUT"],
        drain_seconds=values["GATEWAY_DRAIN_SECONDS"],
        trusted_proxies=values["GATEWAY_TRUSTED_PROXIES"],
        cors_origins=values["GATEWAY_CORS_ORIGINS"],
        log_format=values["GATEWAY_LOG_FORMAT"],
        log_level=values["GATEWAY_LOG_LEVEL"],
    )
