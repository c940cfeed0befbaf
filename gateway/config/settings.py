"""Loads and checks the settings, and reports every problem at once.

Sources, the first one wins: the process environment, ``.env``, the TOML file that ``GATEWAY_CONFIG`` names. ``SPECS`` is the
only list of settings; ``.env.example`` and the README are tested against it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from gateway.config import corrections
from gateway.config import parsers as parse
from gateway.config.corrections import Warned
from gateway.config.parsers import Network
from gateway.config.sources import (
    CONFIG,
    Problem,
    Spec,
    Specs,
    known_names,
    read_env_file,
    read_text,
    read_toml,
    refuse_unknown,
)

__all__ = ["SPECS", "ConfigurationError", "Problem", "Settings", "load", "load_some"]


class ConfigurationError(Exception):
    """Tells what is wrong with the configuration. Exit code 78."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


@dataclass(frozen=True, slots=True)
class Settings:
    """Holds the values of all settings. Times in seconds."""

    environment_key: str | None
    host: str
    port: int
    workers: int
    tokens_file: Path
    data_dir: Path
    usage_days: int
    report_seconds: float
    object_days: int
    max_children: int
    changes_per_minute: int
    counters: str
    queue_seconds: float
    queue_size: int
    completion_tokens: int
    stream_usage: bool
    prices: Any
    """The table of prices as it is in the TOML file; ``usage.pricing`` checks it."""
    backend: str
    upstream_url: str | None
    upstream_api_key: str | None
    model_aliases: Mapping[str, str]
    allow_open: bool
    query_token: bool
    max_body_bytes: int
    max_bodies_bytes: int
    max_header_bytes: int
    connect_timeout: float
    first_byte_timeout: float
    chunk_timeout: float
    drain_delay: float
    drain_seconds: float
    trusted_proxies: tuple[Network, ...]
    cors_origins: frozenset[str]
    allowed_hosts: frozenset[str]
    pass_through: tuple[str, ...]
    """Beginnings of paths below ``/v1/`` that tokens which are not admins may use."""
    log_format: str
    log_level: str
    warnings: tuple[Warned, ...]
    """What was corrected or ignored."""

    @property
    def secrets(self) -> tuple[str, ...]:
        """The configured secrets, which the log must not show."""
        return tuple(secret for secret in (self.environment_key, self.upstream_api_key) if secret)


SPECS: tuple[Spec, ...] = (
    Spec(
        "FREEGPT_API_KEY",
        "",
        parse.key,
        "the environment key: an admin; the first non-empty one counts",
        True,
    ),
    Spec("OPENAI_API_KEY", "", parse.key, "the environment key, if FREEGPT_API_KEY is empty", True),
    Spec("GATEWAY_HOST", "127.0.0.1", parse.host, "address to listen on"),
    Spec("GATEWAY_PORT", "8000", parse.port, "port to listen on; 0 takes a free one"),
    Spec("GATEWAY_WORKERS", "1", parse.workers, "processes that serve the address together"),
    Spec("GATEWAY_TOKENS_FILE", "api_tokens.json", parse.path, "the token file"),
    Spec("GATEWAY_DATA_DIR", "data", parse.path, "folder for what the gateway itself writes"),
    Spec("GATEWAY_USAGE_DAYS", "0", parse.days, "days that single requests stay in the ledger; 0: for ever"),
    Spec("GATEWAY_REPORT_SECONDS", "10", parse.positive, "longest time that a usage report may take"),
    Spec(
        "GATEWAY_OBJECT_DAYS",
        "400",
        parse.days,
        "days that it stays known who made a file, a response … at the upstream; 0: for ever",
    ),
    Spec(
        "GATEWAY_MAX_CHILDREN", "1000", parse.queue_size, "tokens that may be below a token, unless an admin makes them"
    ),
    Spec(
        "GATEWAY_CHANGES_PER_MINUTE",
        "120",
        parse.changes,
        "changes of tokens that a token may make; admins are not limited",
    ),
    Spec(
        "GATEWAY_COUNTERS",
        "auto",
        parse.one_of("auto", "memory", "sqlite"),
        "what limits are counted in; `auto`: memory for one worker, sqlite for more",
    ),
    Spec("GATEWAY_QUEUE_SECONDS", "30", parse.not_negative, "longest wait for what other requests hold; 0: none"),
    Spec("GATEWAY_QUEUE_SIZE", "1000", parse.queue_size, "requests of one token that may wait at a time"),
    Spec("GATEWAY_COMPLETION_TOKENS", "1000", parse.tokens, "guess for an answer without `max_tokens`"),
    Spec("GATEWAY_STREAM_USAGE", "on", parse.switch, "ask the upstream for the usage of chat and text streams"),
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
    Spec(
        "GATEWAY_MAX_BODIES_MB", "512", parse.positive, "memory for request bodies in a worker; a token has a quarter"
    ),
    Spec("GATEWAY_MAX_HEADER_KB", "64", parse.header_kb, "larger request lines and headers together get 431"),
    Spec("GATEWAY_CONNECT_TIMEOUT", "5", parse.positive, "seconds to reach the upstream"),
    Spec("GATEWAY_FIRST_BYTE_TIMEOUT", "600", parse.positive, "seconds until the upstream begins to answer"),
    Spec("GATEWAY_CHUNK_TIMEOUT", "120", parse.positive, "seconds between two pieces of an answer"),
    Spec(
        "GATEWAY_DRAIN_DELAY",
        "0",
        parse.not_negative,
        "seconds that SIGTERM only turns `/readyz` to 503, so that balancers look away",
    ),
    Spec("GATEWAY_DRAIN_SECONDS", "30", parse.not_negative, "how long SIGTERM waits for running requests"),
    Spec("GATEWAY_TRUSTED_PROXIES", "", parse.networks, "CIDRs whose X-Forwarded-For is believed"),
    Spec("GATEWAY_CORS_ORIGINS", "", parse.origins, "exact origins that browsers may call from"),
    Spec(
        "GATEWAY_PASS_THROUGH",
        "files,uploads,batches,responses,conversations,threads,assistants,vector_stores",
        parse.route_prefixes,
        "what is below these names of `/v1/`, for tokens that are not admins, too",
    ),
    Spec("GATEWAY_ALLOWED_HOSTS", "", parse.hosts, "names that clients on this machine may use for it in open mode"),
    Spec("GATEWAY_LOG_FORMAT", "auto", parse.one_of("auto", "console", "json"), "`auto`: console on a terminal"),
    Spec(
        "GATEWAY_LOG_LEVEL",
        "info",
        parse.one_of("debug", "info", "warning", "error"),
        "least severe level logged",
    ),
)

_UPSTREAM = "GATEWAY_UPSTREAM_URL"
_BY_NAME: Specs = MappingProxyType({spec.name: spec for spec in SPECS})


def load(
    environ: Mapping[str, str],
    *,
    env_file: Path | None = None,
    overrides: Mapping[str, str] | None = None,
) -> Settings:
    """Returns the settings of this process.

    ``env_file`` is ``.env`` in the working directory unless named; ``overrides`` come from the command line and win.
    Raises ConfigurationError with every problem found.
    """
    problems: list[Problem] = []
    warnings: list[Warned] = []
    sources = {**_environment(environ, env_file, problems, warnings), **(overrides or {})}
    refuse_unknown(sources, _BY_NAME, problems)
    prices: Any = {}
    if config := sources.get(CONFIG):
        found, prices = read_toml(Path(config), _BY_NAME, problems)
        sources = {**found, **sources}
    texts = {spec.name: read_text(spec, sources, problems) for spec in SPECS}
    texts[_UPSTREAM] = corrections.upstream_url(_UPSTREAM, texts[_UPSTREAM], warnings)
    values = {spec.name: _value(spec, texts[spec.name], problems) for spec in SPECS}
    _check_combinations(values, problems)
    if problems:
        raise ConfigurationError(problems)
    return _settings(values, prices, tuple(warnings))


def _environment(
    environ: Mapping[str, str], env_file: Path | None, problems: list[Problem], warnings: list[Warned]
) -> dict[str, str]:
    """Returns the variables of the env file and of the process, the latter first."""
    own = corrections.without_service_links(environ, warnings)
    sources = {**read_env_file(env_file, _BY_NAME, problems), **own}
    return dict(corrections.without_quotes(sources, known_names(_BY_NAME), warnings))


def load_some(
    environ: Mapping[str, str], env_file: Path | None, names: Iterable[str], problems: list[Problem]
) -> dict[str, Any]:
    """Returns the values of a few settings. Nothing else is checked."""
    sources = _environment(environ, env_file, problems, [])
    if config := sources.get(CONFIG):
        sources = {**read_toml(Path(config), _BY_NAME, problems).settings, **sources}
    return {name: _value(_BY_NAME[name], sources.get(name, "").strip(), problems) for name in names}


def _value(spec: Spec, text: str, problems: list[Problem]) -> Any:
    try:
        return spec.parse(text or spec.default)
    except ValueError as error:
        problems.append(Problem(spec.name, str(error)))
        return None


def _check_combinations(values: dict[str, Any], problems: list[Problem]) -> None:
    """Fills in the defaults that depend on other settings, and reports settings that do not go together."""
    if not values["GATEWAY_BACKEND"]:
        values["GATEWAY_BACKEND"] = "openai" if values["GATEWAY_UPSTREAM_URL"] else "echo"
    if values["GATEWAY_COUNTERS"] == "auto":
        values["GATEWAY_COUNTERS"] = "memory" if values["GATEWAY_WORKERS"] == 1 else "sqlite"
    elif values["GATEWAY_COUNTERS"] == "memory" and (values["GATEWAY_WORKERS"] or 1) > 1:
        problems.append(Problem("GATEWAY_COUNTERS", "memory is for one worker; several need sqlite"))
    has_problem = any(problem.setting == _UPSTREAM for problem in problems)
    if values["GATEWAY_BACKEND"] == "openai" and not values[_UPSTREAM] and not has_problem:
        complaint = "is needed by the backend `openai`, for example http://127.0.0.1:11434/v1"
        problems.append(Problem(_UPSTREAM, complaint))
    if parse.is_own_address(values[_UPSTREAM], values["GATEWAY_HOST"], values["GATEWAY_PORT"]):
        problems.append(Problem(_UPSTREAM, "is the address of this gateway itself; change GATEWAY_PORT or the URL"))


def _settings(values: Mapping[str, Any], prices: Any, warnings: tuple[Warned, ...]) -> Settings:
    return Settings(
        environment_key=values["FREEGPT_API_KEY"] or values["OPENAI_API_KEY"],
        host=values["GATEWAY_HOST"],
        port=values["GATEWAY_PORT"],
        workers=values["GATEWAY_WORKERS"],
        tokens_file=values["GATEWAY_TOKENS_FILE"],
        data_dir=values["GATEWAY_DATA_DIR"],
        usage_days=values["GATEWAY_USAGE_DAYS"],
        report_seconds=values["GATEWAY_REPORT_SECONDS"],
        object_days=values["GATEWAY_OBJECT_DAYS"],
        max_children=values["GATEWAY_MAX_CHILDREN"],
        changes_per_minute=values["GATEWAY_CHANGES_PER_MINUTE"],
        counters=values["GATEWAY_COUNTERS"],
        queue_seconds=values["GATEWAY_QUEUE_SECONDS"],
        queue_size=values["GATEWAY_QUEUE_SIZE"],
        completion_tokens=values["GATEWAY_COMPLETION_TOKENS"],
        stream_usage=values["GATEWAY_STREAM_USAGE"],
        prices=prices,
        backend=values["GATEWAY_BACKEND"],
        upstream_url=values["GATEWAY_UPSTREAM_URL"],
        upstream_api_key=values["GATEWAY_UPSTREAM_API_KEY"],
        model_aliases=values["GATEWAY_MODEL_ALIASES"],
        allow_open=values["GATEWAY_ALLOW_OPEN"],
        query_token=values["GATEWAY_QUERY_TOKEN"],
        max_body_bytes=int(values["GATEWAY_MAX_BODY_MB"] * 1024 * 1024),
        max_bodies_bytes=int(values["GATEWAY_MAX_BODIES_MB"] * 1024 * 1024),
        max_header_bytes=values["GATEWAY_MAX_HEADER_KB"] * 1024,
        connect_timeout=values["GATEWAY_CONNECT_TIMEOUT"],
        first_byte_timeout=values["GATEWAY_FIRST_BYTE_TIMEOUT"],
        chunk_timeout=values["GATEWAY_CHUNK_TIMEOUT"],
        drain_delay=values["GATEWAY_DRAIN_DELAY"],
        drain_seconds=values["GATEWAY_DRAIN_SECONDS"],
        trusted_proxies=values["GATEWAY_TRUSTED_PROXIES"],
        cors_origins=values["GATEWAY_CORS_ORIGINS"],
        pass_through=values["GATEWAY_PASS_THROUGH"],
        allowed_hosts=values["GATEWAY_ALLOWED_HOSTS"],
        log_format=values["GATEWAY_LOG_FORMAT"],
        log_level=values["GATEWAY_LOG_LEVEL"],
        warnings=warnings,
    )
