"""What platforms and slips of the hand put into settings: corrected with a warning, or refused with the fix."""

from pathlib import Path

import pytest

from gateway.config import settings
from gateway.config.corrections import Warned
from tests.support.settings import problems

KUBERNETES = {
    "GATEWAY_PORT": "tcp://10.0.0.1:8000",
    "GATEWAY_SERVICE_HOST": "10.0.0.1",
    "GATEWAY_SERVICE_PORT": "8000",
    "GATEWAY_SERVICE_PORT_HTTP": "8000",
    "GATEWAY_PORT_8000_TCP": "tcp://10.0.0.1:8000",
    "GATEWAY_PORT_8000_TCP_ADDR": "10.0.0.1",
    "GATEWAY_PORT_8000_TCP_PROTO": "tcp",
    "GATEWAY_PORT_8000_TCP_PORT": "8000",
    "GATEWAY_DNS_PORT_53_UDP": "udp://10.0.0.3:53",
    "GATEWAY_REDIS_PORT": "tcp://[fd00::1]:6379",
    "GATEWAY_REDIS_SERVICE_HOST": "fd00::1",
    "FREEGPT_API_PORT": "tcp://10.0.0.4:80",
}


def remarks(**values: str) -> list[str]:
    return [str(warned) for warned in settings.load(values).warnings]


def test_the_service_links_of_kubernetes_are_ignored_with_one_warning() -> None:
    found = settings.load({**KUBERNETES, "GATEWAY_HOST": "0.0.0.0"})
    assert (found.port, found.host) == (8000, "0.0.0.0")
    (warned,) = found.warnings
    assert set(warned.setting.split(", ")) == set(KUBERNETES)
    assert "enableServiceLinks: false" in warned.remark


def test_a_port_of_the_env_file_counts_beside_a_service_link(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("GATEWAY_PORT=9000\n")
    assert settings.load({"GATEWAY_PORT": "tcp://10.0.0.1:8000"}).port == 9000
    (tmp_path / ".env").write_text("GATEWAY_PORT=tcp://10.0.0.1:8000\n")
    assert problems()[0].startswith("GATEWAY_PORT: must be a whole number"), "no platform writes an env file"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("GATEWAY_PORT", "tcp"),
        ("GATEWAY_SERVICE_HOST", "my-host.example"),
        ("GATEWAY_HOST_PORT", "8000"),
        ("GATEWAY_PORT_8000", "x"),
    ],
)
def test_what_only_resembles_a_service_link_is_still_refused(name: str, value: str) -> None:
    assert problems(**{name: value})


@pytest.mark.parametrize("quoted", ['"sk-abc"', "'sk-abc'", "“sk-abc”", ' " sk-abc " '])
@pytest.mark.parametrize("name", ["FREEGPT_API_KEY", "OPENAI_API_KEY", "GATEWAY_UPSTREAM_API_KEY"])
def test_quotes_around_a_key_are_removed_with_a_warning(name: str, quoted: str) -> None:
    found = settings.load({name: quoted})
    assert found.secrets == ("sk-abc",)
    assert found.warnings == (Warned(name, "the quotes around the value were removed; write it without quotes"),)


def test_quotes_around_any_setting_are_removed(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("sk-file")
    quoted = {
        "GATEWAY_WORKERS": '"2"',
        "GATEWAY_TOKENS_FILE": "'/x/y.json'",
        "FREEGPT_API_KEY_FILE": f'"{tmp_path / "key"}"',
    }
    found = settings.load(quoted)
    assert (found.workers, found.tokens_file, found.environment_key) == (2, Path("/x/y.json"), "sk-file")
    assert len(found.warnings) == 3
    assert settings.load({"SOMEBODY_ELSES": '"x"'}).warnings == ()


@pytest.mark.parametrize(
    ("url", "used"),
    [
        ("http://up:1/v1/chat/completions", "http://up:1/v1"),
        ("http://up:1/v1/chat/completions/", "http://up:1/v1"),
        ("http://up:1/v1/models", "http://up:1/v1"),
        ("https://up/api/v1/responses", "https://up/api/v1"),
        ("https://up/v1//audio/speech", "https://up/v1"),
    ],
)
def test_the_path_of_an_endpoint_at_the_end_of_the_upstream_is_removed(url: str, used: str) -> None:
    found = settings.load({"GATEWAY_UPSTREAM_URL": url})
    assert found.upstream_url == used
    assert [warned.remark.rpartition(" ")[2] for warned in found.warnings] == [used]


def test_an_upstream_without_a_path_is_used_with_a_warning() -> None:
    found = settings.load({"GATEWAY_UPSTREAM_URL": "http://127.0.0.1:11434/"})
    assert found.upstream_url == "http://127.0.0.1:11434"
    assert "set it to http://127.0.0.1:11434/v1" in found.warnings[0].remark
    assert remarks(GATEWAY_UPSTREAM_URL="https://up/v1beta/openai") == []


@pytest.mark.parametrize(
    ("values", "is_own"),
    [
        ({"GATEWAY_UPSTREAM_URL": "http://127.0.0.1:8000/v1"}, True),
        ({"GATEWAY_UPSTREAM_URL": "http://localhost:8000/v1", "GATEWAY_HOST": "0.0.0.0"}, True),
        ({"GATEWAY_UPSTREAM_URL": "http://gw.test/v1", "GATEWAY_HOST": "gw.test", "GATEWAY_PORT": "80"}, True),
        ({"GATEWAY_UPSTREAM_URL": "http://127.0.0.1:8001/v1"}, False),
        ({"GATEWAY_UPSTREAM_URL": "http://127.0.0.1:8000/v1", "GATEWAY_HOST": "192.0.2.1"}, False),
        ({"GATEWAY_UPSTREAM_URL": "http://127.0.0.1:8000/v1", "GATEWAY_PORT": "0"}, False),
    ],
)
def test_the_gateway_cannot_be_its_own_upstream(values: dict[str, str], is_own: bool) -> None:
    assert any("is the address of this gateway itself" in problem for problem in problems(**values)) is is_own


@pytest.mark.parametrize(
    ("host", "fix"),
    [
        ("[::1]", "::1, without brackets"),
        ("[::]:8000", "::, without brackets and port (that is GATEWAY_PORT)"),
        ("127.0.0.1:8000", "127.0.0.1, without brackets and port"),
        ("http://127.0.0.1", "127.0.0.1, without http://"),
        ("http://localhost:80/", "localhost, without brackets and port"),
        ("*", "0.0.0.0 stands for all of IPv4"),
        ("two words", "must be an address such as"),
    ],
)
def test_an_address_to_listen_on_is_refused_with_the_way_to_write_it(host: str, fix: str) -> None:
    (problem,) = problems(GATEWAY_HOST=host)
    assert fix in problem


@pytest.mark.parametrize("host", ["::1", "::", "0.0.0.0", "localhost", "gateway.test", "fe80::1%eth0"])
def test_an_address_to_listen_on_is_taken_as_it_is(host: str) -> None:
    assert settings.load({"GATEWAY_HOST": host}).host == host


@pytest.mark.parametrize(
    ("key", "mistake"),
    [
        ("Bearer sk-abc", "without `Bearer`"),
        ('"sk-abc', "without quotes"),
        ("sk-abc’", "without quotes"),
        ("${FREEGPT_API_KEY}", "is the name of a variable"),
        ("$KEY", "is the name of a variable"),
        ("{{ vault.key }}", "is the name of a variable"),
        ("$(KEY)", "is the name of a variable"),
    ],
)
def test_a_key_that_cannot_be_meant_is_refused(key: str, mistake: str) -> None:
    assert [mistake in problem for problem in problems(FREEGPT_API_KEY=key)] == [True]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("FREEGPT_KEY", "FREEGPT_API_KEY?"),
        ("FREE_GPT_API_KEY", "FREEGPT_API_KEY?"),
        ("FREEGPT_API_TOKEN", "FREEGPT_API_KEY?"),
        ("FREEGPT_KEY_FILE", "FREEGPT_API_KEY?"),
        ("freegpt_key", "FREEGPT_API_KEY?"),
        ("freegpt_api_key", "FREEGPT_API_KEY, in capitals?"),
        ("openai_api_key", "OPENAI_API_KEY, in capitals?"),
        ("Gateway_Config", "GATEWAY_CONFIG, in capitals?"),
        ("GATEWAY_API_KEY", "FREEGPT_API_KEY, which clients send, or GATEWAY_UPSTREAM_API_KEY"),
        ("GATEWAY_KEY", "FREEGPT_API_KEY, which clients send, or GATEWAY_UPSTREAM_API_KEY"),
    ],
)
def test_a_key_under_another_name_does_not_leave_the_gateway_open(name: str, meant: str) -> None:
    (problem,) = problems(**{name: "sk-abc"})
    assert meant in problem
