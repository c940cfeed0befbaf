"""The yardstick: the least that an aiohttp relay can do. No credentials, no limits, no log, one session.

It stands alone on purpose (nothing of the gateway is imported): it stays the same when the gateway changes.
"""

import argparse
from collections.abc import AsyncIterator

import uvloop
from aiohttp import ClientResponse, ClientSession, ClientTimeout, TCPConnector, web

UPSTREAM = web.AppKey("upstream", str)
SESSION = web.AppKey("session", ClientSession)


async def client_session(app: web.Application) -> AsyncIterator[None]:
    # aiohttp's own defaults (100 connections, 300 s in all) would cut long streams short.
    connector = TCPConnector(limit=0)
    async with ClientSession(connector=connector, timeout=ClientTimeout(total=None)) as session:
        app[SESSION] = session
        yield


async def relay(request: web.Request) -> web.StreamResponse:
    url = request.app[UPSTREAM] + request.rel_url.raw_path_qs
    headers = {"Content-Type": request.headers.get("Content-Type", "application/octet-stream")}
    body = await request.read()
    async with request.app[SESSION].request(request.method, url, data=body or None, headers=headers) as answer:
        if answer.content_type == "text/event-stream":
            return await pipe(request, answer)
        return web.Response(body=await answer.read(), status=answer.status, content_type=answer.content_type)


async def pipe(request: web.Request, answer: ClientResponse) -> web.StreamResponse:
    response = web.StreamResponse(status=answer.status, headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    async for chunk in answer.content.iter_any():
        await response.write(chunk)
    await response.write_eof()
    return response


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--upstream", required=True, help="scheme, host and port; the path is the client's")
    options = parser.parse_args()
    app = web.Application()
    app[UPSTREAM] = options.upstream
    app.cleanup_ctx.append(client_session)
    app.router.add_route("*", "/{path:.*}", relay)
    loop = uvloop.new_event_loop()
    web.run_app(app, host="127.0.0.1", port=options.port, access_log=None, print=None, loop=loop)


if __name__ == "__main__":
    main()
