"""What a reload changes is told by the settings' names, and without secrets."""

import dataclasses
from pathlib import Path

from gateway.cli.difference import NEEDS_RESTART, NOT_COMPARED, difference, setting_name, with_reloadable
from gateway.config.settings import SPECS, Settings
from tests.support.gateway import load_settings


def test_every_field_has_the_name_of_a_setting() -> None:
    fields = {field.name for field in dataclasses.fields(Settings)} - NOT_COMPARED
    names = {setting_name(field) for field in fields}
    assert names - {"prices"} == {spec.name for spec in SPECS} - {"OPENAI_API_KEY"}
    assert fields >= NEEDS_RESTART


def test_values_are_told_and_secrets_are_not(tmp_path: Path) -> None:
    before = load_settings(tmp_path, GATEWAY_MODEL_ALIASES="a=b", GATEWAY_UPSTREAM_API_KEY="upstream-one")
    after = load_settings(
        tmp_path,
        GATEWAY_MODEL_ALIASES="a=b,c=d",
        GATEWAY_UPSTREAM_API_KEY="upstream-two",
        FREEGPT_API_KEY="environment-key",
        GATEWAY_CORS_ORIGINS="https://b.example,https://a.example",
        GATEWAY_PASS_THROUGH=",".join(f"name{number}" for number in range(100)),
    )
    told = {change.setting: str(change) for change in difference(before, after)}
    assert told["GATEWAY_MODEL_ALIASES"] == "GATEWAY_MODEL_ALIASES: {'a': 'b'} -> {'a': 'b', 'c': 'd'}"
    assert told["GATEWAY_UPSTREAM_API_KEY"] == "GATEWAY_UPSTREAM_API_KEY: (secret) -> (another secret)"
    assert told["FREEGPT_API_KEY"] == "FREEGPT_API_KEY: (none) -> (secret)"
    assert told["GATEWAY_CORS_ORIGINS"].endswith("-> ['https://a.example', 'https://b.example']")
    assert told["GATEWAY_PASS_THROUGH"].endswith("…")
    assert len(told) == 5
    back = {change.setting: str(change) for change in difference(after, before)}
    assert back["FREEGPT_API_KEY"] == "FREEGPT_API_KEY: (secret) -> (none)"


def test_what_needs_a_restart_stays(tmp_path: Path) -> None:
    before = load_settings(tmp_path, GATEWAY_PORT="1234")
    after = load_settings(tmp_path, GATEWAY_PORT="4321", GATEWAY_QUERY_TOKEN="off")
    assert {change.setting: change.needs_restart for change in difference(before, after)} == {
        "GATEWAY_PORT": True,
        "GATEWAY_QUERY_TOKEN": False,
    }
    kept = with_reloadable(before, after)
    assert (kept.port, kept.query_token) == (1234, False)
    assert difference(before, before) == []
