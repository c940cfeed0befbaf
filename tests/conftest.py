"""Fixtures for every test."""

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "default", deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
settings.load_profile("default")


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The developer's own keys and settings are no part of a test."""
    for name in list(os.environ):
        if name.startswith(("GATEWAY_", "FREEGPT_", "OPENAI_")) and name != "GATEWAY_TEST_CAMPAIGN":
            monkeypatch.delenv(name)
    yield
