"""The implementations of the transport: every test of the contract runs with each of them."""

from collections.abc import Callable

import pytest

from gateway.providers.transport.aiohttp_client import AiohttpTransport
from gateway.providers.transport.base import Timeouts, Transport
from gateway.providers.transport.http1_client import Http1Transport

Implementation = Callable[[Timeouts], Transport]


@pytest.fixture(params=[Http1Transport, AiohttpTransport])
def create(request: pytest.FixtureRequest) -> Implementation:
    """Creates a transport."""
    implementation: Implementation = request.param
    return implementation
