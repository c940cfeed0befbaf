"""Settings: each one read, every problem reported at once, and which source wins."""

from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config import settings
from gateway.config.settings import SPECS
from tests.support.settings import SECRETS, problems


def test_without_any_setting_the_defaults_hold() -> None:
    found = settings.load({})
    assert (found.host, found.port, found.workers) == ("127.0.0.1", 8000, 1)
    assert (found.backend, found.upstream_url, found.environment_key) == ("echo", None, None)
    assert (found.tokens_file, found.data_dir) == (Path("api_tokens.json"), Path("data"))
    assert (found.connect_timeout, found.first_byte_timeout, found.chunk_timeout, found.drain_seconds) == (
        5,
        600,
        120,
        30,
    )
    assert (found.max_body_bytes, found.allow_open, found.query_token) == (64 * 1024 * 1024, False, True)
    assert (found.log_format, found.log_level, found.secrets) == ("auto", "info", ())


READ: list[tuple[str, str, str, Any]] = [
    ("FREEGPT_API_KEY", "sk-a", "environment_key", "sk-a"),
    ("OPENAI_API_KEY", "sk-b", "environment_key", "sk-b"),
    ("GATEWAY_HOST", "::1", "host", "::1"),
    ("GATEWAY_PORT", "0", "port", 0),
    ("GATEWAY_PORT", "65535", "port", 65535),
    ("GATEWAY_WORKERS", "256", "workers", 256),
    ("GATEWAY_TOKENS_FILE", "/x/y.json", "tokens_file", Path("/x/y.json")),
    ("GATEWAY_DATA_DIR", "~/d", "data_dir", Path("~/d").expanduser()),
    ("GATEWAY_BACKEND", "mine", "backend", "mine"),
    ("GATEWAY_UPSTREAM_URL", " http://127.0.0.1:11434/v1/ ", "upstream_url", "http://127.0.0.1:11434/v1"),
    ("GATEWAY_UPSTREAM_URL", "https://[::1]/v1", "backend", "openai"),
    ("GATEWAY_UPSTREAM_API_KEY", "sk-up", "upstream_api_key", "sk-up"),
    ("GATEWAY_MODEL_ALIASES", "a=b, c = d=e ,", "model_aliases", {"a": "b", "c": "d=e"}),
    ("GATEWAY_USAGE_DAYS", "90", "usage_days", 90),
    ("GATEWAY_REPORT_SECONDS", "2.5", "report_seconds", 2.5),
    ("GATEWAY_MAX_CHILDREN", "5", "max_children", 5),
    ("GATEWAY_CHANGES_PER_MINUTE", "10", "changes_per_minute", 10),
    ("GATEWAY_COUNTERS", "sqlite", "counters", "sqlite"),
    ("GATEWAY_QUEUE_SECONDS", "0", "queue_seconds", 0),
    ("GATEWAY_QUEUE_SIZE", "5", "queue_size", 5),
    ("GATEWAY_COMPLETION_TOKENS", "256", "completion_tokens", 256),
    ("GATEWAY_STREAM_USAGE", "off", "stream_usage", False),
    ("GATEWAY_ALLOW_OPEN", "YES", "allow_open", True),
    ("GATEWAY_QUERY_TOKEN", "0", "query_token", False),
    ("GATEWAY_MAX_BODY_MB", "0.5", "max_body_bytes", 512 * 1024),
    ("GATEWAY_MAX_BODIES_MB", "64", "max_bodies_bytes", 64 * 1024 * 1024),
    ("GATEWAY_MAX_HEADER_KB", "8", "max_header_bytes", 8192),
    ("GATEWAY_CONNECT_TIMEOUT", "0.1", "connect_timeout", 0.1),
    ("GATEWAY_FIRST_BYTE_TIMEOUT", "1", "first_byte_timeout", 1),
    ("GATEWAY_CHUNK_TIMEOUT", "1", "chunk_timeout", 1),
    ("GATEWAY_DRAIN_DELAY", "5", "drain_delay", 5),
    ("GATEWAY_DRAIN_SECONDS", "0", "drain_seconds", 0),
    ("GATEWAY_TRUSTED_PROXIES", "10.0.0.0/8,::1", "trusted_proxies", (ip_network("10.0.0.0/8"), ip_network("::1"))),
    ("GATEWAY_PASS_THROUGH", " files,fine_tuning/jobs,,files", "pass_through", ("files", "fine_tuning/jobs")),
    ("GATEWAY_PASS_THROUGH", "none", "pass_through", ()),
    ("GATEWAY_OBJECT_DAYS", "30", "object_days", 30),
    ("GATEWAY_ALLOWED_HOSTS", "A.test, b", "allowed_hosts", {"a.test", "b"}),
    ("GATEWAY_CORS_ORIGINS", "https://A.example:8/, http://b", "cors_origins", {"https://a.example:8", "http://b"}),
    ("GATEWAY_LOG_FORMAT", "JSON", "log_format", "json"),
    ("GATEWAY_LOG_LEVEL", "error", "log_level", "error"),
]


@pytest.mark.parametrize(("name", "text", "field", "value"), READ)
def test_each_setting_is_read(name: str, text: str, field: str, value: Any) -> None:
    assert getattr(settings.load({name: text}), field) == value


REFUSED: list[tuple[str, str, str]] = [
    ("FREEGPT_API_KEY", "two words", "printable ASCII"),
    ("OPENAI_API_KEY", "schlüssel", "printable ASCII"),
    ("GATEWAY_UPSTREAM_API_KEY", "a" * 513, "512 characters"),
    ("GATEWAY_PORT", "65536", "from 0 to 65535"),
    ("GATEWAY_PORT", "-1", "whole number"),
    ("GATEWAY_PORT", "8e3", "whole number"),
    ("GATEWAY_PORT", "٨", "whole number"),
    ("GATEWAY_WORKERS", "0", "from 1 to 256"),
    ("GATEWAY_UPSTREAM_URL", "127.0.0.1:11434", "http or https"),
    ("GATEWAY_UPSTREAM_URL", "ftp://x", "http or https"),
    ("GATEWAY_UPSTREAM_URL", "http://", "http or https"),
    ("GATEWAY_UPSTREAM_URL", "http://x:99999", "http or https"),
    ("GATEWAY_UPSTREAM_URL", "http://x:0", "http or https"),
    ("GATEWAY_UPSTREAM_URL", "http://[::1", "http or https"),
    ("GATEWAY_UPSTREAM_URL", "http://user:pw@x/v1", "GATEWAY_UPSTREAM_API_KEY"),
    ("GATEWAY_UPSTREAM_URL", "http://x/v1?a=b", "without a query"),
    ("GATEWAY_UPSTREAM_URL", "http://x/v1#", "without a query"),
    ("GATEWAY_MODEL_ALIASES", "a", "name=upstream-name"),
    ("GATEWAY_MODEL_ALIASES", "a=", "name=upstream-name"),
    ("GATEWAY_MODEL_ALIASES", "a=b,a=c", "names 'a' twice"),
    ("GATEWAY_USAGE_DAYS", "-1", "from 0 to 36500"),
    ("GATEWAY_OBJECT_DAYS", "-1", "from 0 to 36500"),
    ("GATEWAY_REPORT_SECONDS", "0", "above 0"),
    ("GATEWAY_MAX_CHILDREN", "-1", "whole number"),
    ("GATEWAY_CHANGES_PER_MINUTE", "0", "from 1 to"),
    ("GATEWAY_COUNTERS", "redis", "auto, memory, sqlite"),
    ("GATEWAY_QUEUE_SECONDS", "-1", "0 or above"),
    ("GATEWAY_QUEUE_SIZE", "many", "whole number"),
    ("GATEWAY_COMPLETION_TOKENS", "0", "from 1 to 1000000"),
    ("GATEWAY_STREAM_USAGE", "perhaps", "on or off"),
    ("GATEWAY_ALLOW_OPEN", "maybe", "on or off"),
    ("GATEWAY_QUERY_TOKEN", "2", "on or off"),
    ("GATEWAY_MAX_BODY_MB", "0", "above 0"),
    ("GATEWAY_MAX_BODIES_MB", "0", "above 0"),
    ("GATEWAY_MAX_HEADER_KB", "0", "from 1 to 1024"),
    ("GATEWAY_CONNECT_TIMEOUT", "soon", "above 0"),
    ("GATEWAY_FIRST_BYTE_TIMEOUT", "inf", "above 0"),
    ("GATEWAY_CHUNK_TIMEOUT", "nan", "above 0"),
    ("GATEWAY_DRAIN_DELAY", "-1", "0 or above"),
    ("GATEWAY_DRAIN_SECONDS", "-1", "0 or above"),
    ("GATEWAY_TRUSTED_PROXIES", "10.0.0.1/8", "CIDRs"),
    ("GATEWAY_TRUSTED_PROXIES", "all", "CIDRs"),
    ("GATEWAY_PASS_THROUGH", "files,/batches", "must be names below /v1/"),
    ("GATEWAY_PASS_THROUGH", "files/", "must be names below /v1/"),
    ("GATEWAY_PASS_THROUGH", "Files", "in lower case"),
    ("GATEWAY_PASS_THROUGH", "*", "without `*`"),
    ("GATEWAY_PASS_THROUGH", "..", "must be names below /v1/"),
    ("GATEWAY_PASS_THROUGH", "v1/files", "without `v1/`"),
    ("GATEWAY_PASS_THROUGH", "files,organization/projects", "is for admins alone"),
    ("GATEWAY_PASS_THROUGH", "model", "is for admins alone"),
    ("GATEWAY_ALLOWED_HOSTS", "a.test:80", "without ports"),
    ("GATEWAY_CORS_ORIGINS", "*", "exact origins"),
    ("GATEWAY_CORS_ORIGINS", "https://*.example", "exact origins"),
    ("GATEWAY_CORS_ORIGINS", "https://a.example/path", "exact origins"),
    ("GATEWAY_LOG_FORMAT", "xml", "auto, console, json"),
    ("GATEWAY_LOG_LEVEL", "loud", "debug, info, warning, error"),
]


@pytest.mark.parametrize(("name", "text", "reason"), REFUSED)
def test_each_setting_refuses_what_does_not_fit(name: str, text: str, reason: str) -> None:
    (problem,) = problems(**{name: text})
    assert problem.startswith(f"{name}: ")
    assert reason in problem
    assert name not in SECRETS or text not in problem


def test_every_setting_is_tested_here() -> None:
    assert {name for name, *_ in READ} == {spec.name for spec in SPECS}
    free = {"GATEWAY_HOST", "GATEWAY_TOKENS_FILE", "GATEWAY_DATA_DIR", "GATEWAY_BACKEND"}
    assert {name for name, *_ in REFUSED} == {spec.name for spec in SPECS} - free


@given(st.dictionaries(st.sampled_from([spec.name for spec in SPECS]), st.text(max_size=30), max_size=5))
def test_no_text_makes_loading_fail_otherwise(values: dict[str, str]) -> None:
    for problem in problems(**values):
        assert any(problem.startswith(name) for name in (*values, "GATEWAY_UPSTREAM_URL"))


def test_all_problems_are_reported_at_once() -> None:
    found = problems(
        GATEWAY_PORT="x", GATEWAY_WORKERS="0", GATEWAY_HOTS="1", GATEWAY_BACKEND="openai", OPENAI_API_KEY="a b"
    )
    assert [problem.partition(":")[0] for problem in found] == [
        "GATEWAY_HOTS",
        "OPENAI_API_KEY",
        "GATEWAY_PORT",
        "GATEWAY_WORKERS",
        "GATEWAY_UPSTREAM_URL",
    ]


def test_a_wrong_upstream_is_one_problem() -> None:
    assert len(problems(GATEWAY_BACKEND="openai", GATEWAY_UPSTREAM_URL="nonsense")) == 1


def test_the_first_key_that_is_not_empty_counts() -> None:
    assert settings.load({"FREEGPT_API_KEY": " ", "OPENAI_API_KEY": "two"}).environment_key == "two"
    assert settings.load({"FREEGPT_API_KEY": "one", "OPENAI_API_KEY": "two"}).environment_key == "one"
    assert settings.load({"FREEGPT_API_KEY": "one", "GATEWAY_UPSTREAM_API_KEY": "up"}).secrets == ("one", "up")


@pytest.mark.parametrize("name", ["GATEWAY_TOKENS_FILE", "GATEWAY_DATA_DIR"])
def test_the_home_of_an_unknown_user_is_a_problem(name: str) -> None:
    (problem,) = problems(**{name: "~nobody-of-this-name/x"})
    assert problem.startswith(f"{name}: ")


@pytest.mark.parametrize(("workers", "counters"), [("1", "memory"), ("2", "sqlite")])
def test_several_workers_count_in_a_file(workers: str, counters: str) -> None:
    assert settings.load({"GATEWAY_WORKERS": workers}).counters == counters


def test_several_workers_cannot_count_in_memory() -> None:
    assert "several need sqlite" in problems(GATEWAY_WORKERS="2", GATEWAY_COUNTERS="memory")[0]
