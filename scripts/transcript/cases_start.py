"""Starting: help, version, ``--check`` of settings, the banner, and what ends a start."""

from collections.abc import Mapping

from scripts.transcript import fixtures
from scripts.transcript.cases_cli import damaged_files
from scripts.transcript.session import Section

_CHECK = ("-m", "gateway", "--check")
_WRONG: Mapping[str, Mapping[str, str]] = {
    "unknown names": {"GATEWAY_PROT": "1", "GATEWAY_X": "1", "gateway_port": "1", "FREEGPT_APIKEY": "x"},
    "numbers": {
        "GATEWAY_PORT": "70000", "GATEWAY_WORKERS": "0", "GATEWAY_USAGE_DAYS": "-1", "GATEWAY_QUEUE_SIZE": "x",
        "GATEWAY_QUEUE_SECONDS": "-1", "GATEWAY_COMPLETION_TOKENS": "0", "GATEWAY_MAX_BODY_MB": "0",
        "GATEWAY_CONNECT_TIMEOUT": "nan", "GATEWAY_FIRST_BYTE_TIMEOUT": "inf", "GATEWAY_CHUNK_TIMEOUT": "x",
        "GATEWAY_DRAIN_SECONDS": "-1",
    },
    "choices": {
        "GATEWAY_COUNTERS": "redis", "GATEWAY_STREAM_USAGE": "maybe", "GATEWAY_ALLOW_OPEN": "2", "GATEWAY_QUERY_TOKEN": "no!",
        "GATEWAY_LOG_FORMAT": "xml", "GATEWAY_LOG_LEVEL": "loud",
    },
    "forms": {
        "FREEGPT_API_KEY": "with a space", "OPENAI_API_KEY": "x" * 600, "GATEWAY_UPSTREAM_URL": "ftp://x/v1",
        "GATEWAY_UPSTREAM_API_KEY": "ü", "GATEWAY_MODEL_ALIASES": "a=b,a=c", "GATEWAY_TRUSTED_PROXIES": "10.0.0.1/8",
        "GATEWAY_CORS_ORIGINS": "https://*.example.com", "GATEWAY_TOKENS_FILE": "~nobody-here/x",
    },
    "upstream with a password": {"GATEWAY_UPSTREAM_URL": "http://user:password@x/v1"},
    "upstream with a query": {"GATEWAY_UPSTREAM_URL": "http://x/v1?a=b"},
    "upstream without a host": {"GATEWAY_UPSTREAM_URL": "http:///v1"},
    "alias without a name": {"GATEWAY_MODEL_ALIASES": "nice"},
    "no upstream": {"GATEWAY_BACKEND": "openai"},
    "unknown backend": {"GATEWAY_BACKEND": "other"},
    "memory for several": {"GATEWAY_COUNTERS": "memory", "GATEWAY_WORKERS": "2"},
    "a secret twice": {"FREEGPT_API_KEY": "x", "FREEGPT_API_KEY_FILE": "key"},
    "a secret file that is not there": {"FREEGPT_API_KEY_FILE": "nowhere"},
    "a configuration that is not there": {"GATEWAY_CONFIG": "nowhere.toml"},
    "a folder for the token file": {"GATEWAY_TOKENS_FILE": "."},
}  # fmt: skip
_TOML: Mapping[str, str] = {
    "good": 'port = 9000\nworkers = 2\nquery_token = false\nmodel_aliases = "a=b"\n[prices."a*"]\ninput = 0.15\noutput = 1\n',
    "no TOML": "port =",
    "unknown": "prot = 1\n",
    "a secret": 'upstream_api_key = "x"\n',
    "wrong value": "port = 1.5\nworkers = []\n",
    "price without an output": "[prices.a]\ninput = 1\n",
    "price as text": '[prices.a]\ninput = "1"\noutput = 1\n',
    "negative price": "[prices.a]\ninput = -1\noutput = 1\n",
    "unknown price": "[prices.a]\ninput = 1\noutput = 1\nimages = 5\n",
    "prices as a list": "prices = []\n",
}
_DOTENV: Mapping[str, str] = {
    "good": 'GATEWAY_PORT=9000\nexport GATEWAY_WORKERS="2"\n# comment\nOTHER=1\n',
    "wrong": "GATEWAY_PORT\nGATEWAY_PROT=1\nnonsense here\n",
}


def record(section: Section) -> None:
    section.command("help", "-m", "gateway", "--help")
    section.command("version", "-m", "gateway", "--version")
    section.command("unknown option", "-m", "gateway", "--all")
    _check(section)
    _ends(section)
    _banners(section)


def _check(section: Section) -> None:
    section.command("check", *_CHECK)
    section.command("check of options", *_CHECK, "--host", "localhost", "--port", "9000", "--workers", "2")
    section.command("check of wrong options", *_CHECK, "--port", "x", "--workers", "0")
    for name, settings in _WRONG.items():
        section.command(f"check: {name}", *_CHECK, settings=settings)
    for name, text in _TOML.items():
        (section.folder / "gateway.toml").write_text(text, encoding="utf-8")
        section.command(f"check of TOML: {name}", *_CHECK, "--config", "gateway.toml")
    for name, text in _DOTENV.items():
        (section.folder / ".env").write_text(text, encoding="utf-8")
        section.command(f"check of .env: {name}", *_CHECK)
    (section.folder / ".env").unlink()
    section.command("check of an .env that is not there", *_CHECK, "--env-file", "nowhere.env")
    (section.folder / "key").write_text("", encoding="utf-8")
    section.command("check of an empty secret file", *_CHECK, settings={"OPENAI_API_KEY_FILE": "key"})
    (section.folder / "api_tokens.json").write_bytes(fixtures.token_file())
    section.command("check of a token file", *_CHECK)
    damaged = damaged_files()
    for name in ("empty", "no JSON", "cut short", "another version", "a key twice", "a wrong role", "a misspelt end"):
        (section.folder / "api_tokens.json").write_bytes(damaged[name])
        section.command(f"check of a damaged token file: {name}", *_CHECK)
    section.command("check of both", *_CHECK, settings={"GATEWAY_PORT": "x"})
    (section.folder / "api_tokens.json").unlink()
    (section.folder / "api_tokens.json").symlink_to("nowhere")
    section.command("check of a link that leads nowhere", *_CHECK)
    (section.folder / "api_tokens.json").unlink()


def _ends(section: Section) -> None:
    section.command("start with a wrong setting", "-m", "gateway", settings={"GATEWAY_PORT": "x"})
    section.command(
        "start on a host that is not there",
        "-m",
        "gateway",
        settings={"GATEWAY_HOST": "192.0.2.1", "GATEWAY_PORT": "0"},
    )
    section.command(
        "start on a name that cannot be", "-m", "gateway", settings={"GATEWAY_HOST": "a..b", "GATEWAY_PORT": "0"}
    )


def _banners(section: Section) -> None:
    """The banner for people; the one in JSON is in every other log."""
    people = {"GATEWAY_LOG_FORMAT": "console"}
    with section.serving("banner of open mode", people):
        pass
    with section.serving("banner with a key", {**people, "FREEGPT_API_KEY": fixtures.ENVIRONMENT}):
        pass
    with section.serving("banner with an upstream", {**people, "GATEWAY_UPSTREAM_URL": "http://upstream.example/v1"}):
        pass
    with section.serving(
        "banner of two workers, quiet", {**people, "GATEWAY_WORKERS": "2", "GATEWAY_LOG_LEVEL": "error"}
    ):
        pass
    (section.folder / "api_tokens.json").write_bytes(fixtures.token_file())
    with section.serving("banner with a token file", people):
        pass
