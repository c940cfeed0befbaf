"""Fixtures for tests of the management API."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.token_api import TokenApi, gateway_with_api


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[TokenApi]:
    async with gateway_with_api(tmp_path) as found:
        yield found
