"""``/openapi.json`` and ``/docs``: what this API offers, from files of the gateway's own."""

from functools import cached_property
from importlib import resources

import msgspec

from gateway import __version__
from gateway.http.context import RequestContext
from gateway.http.openapi import render
from gateway.http.response import Response

_FOLDER = resources.files("gateway.http.openapi")


class OpenApiEndpoints:
    """Both are the same for everybody. The files are read at start, because reading blocks the event loop."""

    def __init__(self) -> None:
        description = (_FOLDER / "openapi.json").read_bytes()
        # The file has a placeholder, so that the version is written down in one place alone.
        self._openapi = description.replace(b"GATEWAY_VERSION", __version__.encode())
        self._style = (_FOLDER / "docs.css").read_text(encoding="utf-8")

    async def openapi(self, ctx: RequestContext) -> Response:
        headers = {"Content-Type": "application/json", "Cache-Control": "no-cache"}
        return Response(200, headers, self._openapi)

    async def page(self, ctx: RequestContext) -> Response:
        headers = {
            "Content-Type": "text/html; charset=utf-8",
            "Cache-Control": "no-cache",
            "Content-Security-Policy": render.content_security_policy(self._style),
            "Referrer-Policy": "no-referrer",
        }
        return Response(200, headers, self._page)

    @cached_property
    def _page(self) -> bytes:
        return render.render_page(msgspec.json.decode(self._openapi), self._style)
