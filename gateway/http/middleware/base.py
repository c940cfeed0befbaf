"""What a middleware is: a step that every request meets before its endpoint, and, if it likes, once more at its end."""

from gateway.http.context import RequestContext
from gateway.http.response import Response


class Middleware:
    """A step of the pipeline. A subclass overrides one of the methods or both; the pipeline calls no other."""

    async def before(self, ctx: RequestContext) -> Response | None:
        """Looks at the request on its way in. Returns None to pass it on, or a response that ends its way here.

        Raises GatewayError to refuse it.
        """

    def after(self, ctx: RequestContext, status: int) -> None:
        """Is called once at the end of every request, whatever has happened, in the reverse order of the pipeline.

        It is synchronous, so that a cancellation cannot come between. ``status`` is 499 for a client that left.
        """
