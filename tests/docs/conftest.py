"""Fixtures for tests of the guides."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.docs.guides import GuideGateway, guide_gateway
from tests.support.gateway import (
    KEY,
)


@pytest.fixture
async def empty(tmp_path: Path) -> AsyncIterator[GuideGateway]:
    """Nothing is configured yet."""
    async with guide_gateway(tmp_path) as found:
        yield found


@pytest.fixture
async def with_key(tmp_path: Path) -> AsyncIterator[GuideGateway]:
    """There is an environment key."""
    async with guide_gateway(tmp_path, FREEGPT_API_KEY=KEY) as found:
        yield found
