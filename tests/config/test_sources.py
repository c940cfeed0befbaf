"""The sources of settings: the environment, the env file, the TOML file and the files of secrets."""

from decimal import Decimal
from pathlib import Path

import pytest

from gateway.config import settings
from gateway.config.settings import ConfigurationError
from tests.support.settings import SECRETS, problems


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_may_be_in_a_file(name: str, tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("sk-from-a-file\n")
    assert settings.load({f"{name}_FILE": str(path)}).secrets == ("sk-from-a-file",)
    assert problems(**{name: "sk-x", f"{name}_FILE": str(path)}) == [
        f"{name}: is given twice, by itself and by {name}_FILE; keep one"
    ]


@pytest.mark.parametrize("damage", ["absent", "directory", "not text"])
def test_a_secret_file_that_cannot_be_read_is_a_problem(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "secret"
    if damage == "directory":
        path.mkdir()
    elif damage == "not text":
        path.write_bytes(b"\xff")
    (problem,) = problems(FREEGPT_API_KEY_FILE=str(path))
    assert problem.startswith("FREEGPT_API_KEY_FILE: cannot be read")


def test_the_environment_beats_the_env_file_beats_the_toml_file(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(
        "GATEWAY_PORT=2\nGATEWAY_WORKERS=2\nGATEWAY_CONFIG=gateway.toml\nexport GATEWAY_HOST='b'\n"
    )
    (tmp_path / "gateway.toml").write_text('port = 3\nworkers = 3\nhost = "c"\nbackend = "c"\n')
    found = settings.load({"GATEWAY_PORT": "1", "GATEWAY_HOST": "a"}, overrides={"GATEWAY_HOST": "line"})
    assert (found.port, found.workers, found.host, found.backend) == (1, 2, "line", "c")


def test_values_of_the_env_file_are_literal(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("OPENAI_API_KEY='sk-${HOME}-$x'\nSOMEBODY_ELSES\n")
    assert settings.load({"HOME": "/root"}).environment_key == "sk-${HOME}-$x"


@pytest.mark.parametrize("line", ["FREEGPT_API_KEY='sk-not-closed", "FREEGPT_API_KEY: sk-yaml", "FREEGPT_API_KEY"])
def test_a_mistake_in_the_line_of_a_key_does_not_open_the_gateway(tmp_path: Path, line: str) -> None:
    (tmp_path / ".env").write_text(f"# mine\n{line}\n")
    with pytest.raises(ConfigurationError, match=r"\.env, line 2: is not NAME=value"):
        settings.load({})


def test_an_empty_key_file_does_not_open_the_gateway(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(" \n")
    with pytest.raises(ConfigurationError, match=r"FREEGPT_API_KEY_FILE: .*key is empty"):
        settings.load({"FREEGPT_API_KEY_FILE": str(tmp_path / "key")})


def test_a_named_env_file_replaces_the_usual_one(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("GATEWAY_PORT=2\n")
    (tmp_path / "other").write_text("GATEWAY_PORT=3\n")
    assert settings.load({}, env_file=tmp_path / "other").port == 3
    with pytest.raises(ConfigurationError, match=r"--env-file: .*absent is not a file"):
        settings.load({}, env_file=tmp_path / "absent")


def test_an_env_file_that_is_not_utf_8_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"GATEWAY_HOST=\xff\n")
    with pytest.raises(ConfigurationError, match=r"\.env: cannot be read"):
        settings.load({})


def test_toml_values_have_types_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "gateway.toml").write_text(
        'allow_open = true\nquery_token = false\ncors_origins = ["http://a", "http://b"]\n'
        'max_body_mb = 1.5\n[model_aliases]\n"gpt-4" = "x"\nb = "y"\n'
    )
    found = settings.load({"GATEWAY_CONFIG": "gateway.toml"})
    assert (found.allow_open, found.query_token, found.max_body_bytes) == (True, False, 1_572_864)
    assert found.cors_origins == {"http://a", "http://b"}
    assert found.model_aliases == {"gpt-4": "x", "b": "y"}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("port = ", "GATEWAY_CONFIG: gateway.toml: Invalid value"),
        ('upstream_api_key = "sk-secret"', "gateway.toml: upstream_api_key: is not a setting"),
        ('freegpt_api_key = "sk-secret"', "gateway.toml: freegpt_api_key: is not a setting"),
        ("prot = 1", "gateway.toml: prot: is not a setting; did you mean GATEWAY_PORT?"),
        ("port = 'x'", "GATEWAY_PORT: must be a whole number"),
    ],
)
def test_a_wrong_toml_file_is_a_problem(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "gateway.toml").write_text(text)
    (found,) = problems(GATEWAY_CONFIG="gateway.toml")
    assert found.startswith(problem)
    assert "sk-secret" not in found


def test_an_unknown_name_is_reported_with_the_nearest() -> None:
    assert problems(GATEWAY_PROT="1") == ["GATEWAY_PROT: is not a setting; did you mean GATEWAY_PORT?"]
    assert problems(GATEWAY_QQQQQQQQQQQQQQQQ="") == [
        "GATEWAY_QQQQQQQQQQQQQQQQ: is not a setting; see .env.example for the list"
    ]
    assert problems(GATEWAY_PORT_FILE="x")[0].startswith("GATEWAY_PORT_FILE: is not a setting")
    assert problems(OPENAI_BASE_URL="http://x", FREEGPT_MODEL="y") == []


@pytest.mark.parametrize("name", ["FREEGPT_APIKEY", "freegpt_api_kye", "gateway_port"])
def test_a_misspelt_name_is_reported(name: str) -> None:
    assert problems(**{name: "x"})[0].startswith(f"{name}: is not a setting; did you mean")


def test_prices_are_read_exactly(tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text('port = 81\n[prices."my-model"]\ninput = 0.1\noutput = 2\n')
    found = settings.load({"GATEWAY_CONFIG": str(file)})
    assert found.port == 81
    assert found.prices == {"my-model": {"input": Decimal("0.1"), "output": 2}}
