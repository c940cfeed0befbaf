"""Reads the form of a request: into a temporary file if it is large, so that its model can stand behind the file."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gateway.core.errors import StoreUnavailable
from gateway.core.form_data import FormBody, FormParser, read_texts
from gateway.core.threads import Threads
from gateway.http.body_memory import BodyAccount, BodyMemory
from gateway.http.context import RequestContext
from gateway.storage.spool import Spool

FORM_BYTES = 1024 * 1024
"""What a form may have besides a file of the largest size: OpenAI's clients upload large files in parts of exactly 64 MiB."""
MAX_FORMS_BYTES = 2 * 1024 * 1024 * 1024
"""How long the forms of all requests in a process may be together. A tree of tokens has a quarter."""


class FormReader:
    """``max_body`` is for the files of one form, in bytes."""

    def __init__(self, max_body: int) -> None:
        self._limit = max_body + FORM_BYTES
        self._space = BodyMemory(MAX_FORMS_BYTES, 0)
        self._threads = Threads("forms", 4)

    @asynccontextmanager
    async def read(self, ctx: RequestContext) -> AsyncIterator[FormBody]:
        """Yields the form, which can be read in the block.

        Raises BadRequest for a form that can be read in two ways, StoreUnavailable where there is no space for it, RateLimited
        and BodyMemoryExceeded for too many forms at once, and what ``Request.chunks`` raises.
        """
        request = ctx.request
        parser = FormParser(request.headers.get("Content-Type", ""))
        request.prepare_chunks(self._limit)
        account = BodyAccount(self._space, ctx.caller.rate_key)
        try:
            async with Spool(self._threads) as spool:
                async for chunk in request.chunks(self._limit):
                    account.add(len(chunk))
                    parser.feed(chunk)
                    await _write(spool, chunk)
                parts = parser.finish()
                yield FormBody(parts, await read_texts(parts, spool), spool)
        finally:
            account.release()


async def _write(spool: Spool, chunk: bytes) -> None:
    try:
        await spool.write(chunk)
    except OSError:
        raise StoreUnavailable("There is no space for the form at the moment.") from None
