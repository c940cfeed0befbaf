"""Where the commands find the gateway's files, and its address, whatever else is wrong."""

from pathlib import Path

import pytest

from gateway.cli import paths
from gateway.config.settings import ConfigurationError


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_command_line_finds_the_token_file_whatever_else_is_wrong(tmp_path: Path) -> None:
    assert paths.data_paths({"GATEWAY_PORT": "x"}).tokens_file == Path("api_tokens.json")
    (tmp_path / "gateway.toml").write_text('tokens_file = "from-toml.json"\n')
    (tmp_path / ".env").write_text("GATEWAY_CONFIG=gateway.toml\n")
    assert paths.data_paths({}).tokens_file == Path("from-toml.json")
    assert paths.data_paths({"GATEWAY_TOKENS_FILE": " /x.json "}).tokens_file == Path("/x.json")
    assert paths.data_paths({"GATEWAY_TOKENS_FILE": "'/x.json'"}).tokens_file == Path("/x.json")
    with pytest.raises(ConfigurationError):
        paths.data_paths({"GATEWAY_CONFIG": "absent.toml"})


def test_an_env_file_that_is_not_utf_8_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"GATEWAY_HOST=\xff\n")
    with pytest.raises(ConfigurationError, match=r"\.env: cannot be read"):
        paths.data_paths({})


@pytest.mark.parametrize(
    ("values", "url"),
    [
        ({}, "http://127.0.0.1:8000"),
        ({"GATEWAY_PORT": "9000"}, "http://127.0.0.1:9000"),
        ({"GATEWAY_HOST": "0.0.0.0", "GATEWAY_PORT": "9000"}, "http://127.0.0.1:9000"),
        ({"GATEWAY_HOST": "::"}, "http://[::1]:8000"),
        ({"GATEWAY_HOST": "gw.test", "GATEWAY_PORT": '"81"'}, "http://gw.test:81"),
        ({"GATEWAY_PORT": "0"}, "http://127.0.0.1:PORT"),
        ({"GATEWAY_PORT": "tcp://10.0.0.1:80"}, "http://127.0.0.1:8000"),
        ({"GATEWAY_PORT": "x", "GATEWAY_HOST": "gw.test"}, "http://127.0.0.1:8000"),
    ],
)
def test_the_address_for_clients_is_that_of_the_settings(values: dict[str, str], url: str) -> None:
    assert paths.client_url(values) == url


def test_the_address_for_clients_may_be_in_any_source(tmp_path: Path) -> None:
    (tmp_path / "gateway.toml").write_text('host = "10.0.0.1"\n')
    (tmp_path / ".env").write_text("GATEWAY_PORT=2\n")
    assert paths.client_url({"GATEWAY_CONFIG": "gateway.toml"}) == "http://10.0.0.1:2"
