"""What a middleware is: a step that every request meets before its endpoint, and, if it likes, once more at its end."""

from collections.abc import Awaitable
from typing import TypeAlias

from gateway.http.context import RequestContext
from gateway.http.response import Response

Outcome: TypeAlias = Response | Awaitable[Response | None] | None
"""What a step says: None to pass the request on, a response that ends its way, or an awaitable of one of them.

Most steps decide at once. A coroutine for each of them would take longer than what they do.
"""


class Middleware:
    """A step of the pipeline. A subclass overrides one of the methods or both; the pipeline calls no other."""

    def before(self, ctx: RequestContext) -> Outcome:
        """Looks at the request on its way in, and passes it on. Raises GatewayError to refuse it."""
        return None

    def after(self, ctx: RequestContext, status: int) -> None:
        """Is called once at the end of every request, whatever has happened, in the reverse order of the pipeline.

        It is synchronous, so that a cancellation cannot come between. ``status`` is 499 for a client that left.
        """
