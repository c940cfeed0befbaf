"""A middleware that overrides nothing does nothing."""

from gateway.http.middleware.base import Middleware
from tests.support.connection import context as make_context


async def test_the_base_passes_every_request_on() -> None:
    ctx = make_context()
    middleware = Middleware()
    assert middleware.before(ctx) is None
    middleware.after(ctx, 200)
