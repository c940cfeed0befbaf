"""Counts the bodies of requests that have authenticated, until the requests end."""

from multidict import istr

from gateway.http.body_memory import BodyAccount, BodyMemory
from gateway.http.context import RequestContext
from gateway.http.middleware.base import Middleware

COUNTED_DIGITS = 5
"""A body whose length has fewer digits is not counted: a connection costs more."""
_CONTENT_LENGTH = istr("Content-Length")


class BodyLimit(Middleware):
    """Gives a request the account that its body is counted in. Public routes read small bodies only, which have a deadline."""

    def __init__(self, memory: BodyMemory) -> None:
        self._memory = memory

    def before(self, ctx: RequestContext) -> None:
        """Opens the account."""
        length = ctx.request.headers.get(_CONTENT_LENGTH)
        if ctx.principal is not None and (length is None or len(length) >= COUNTED_DIGITS):
            ctx.request.body_account = BodyAccount(self._memory, ctx.principal.rate_key)

    def after(self, ctx: RequestContext, status: int) -> None:
        """Gives back what the body used."""
        account = ctx.request.body_account
        if account is not None:
            account.release()
