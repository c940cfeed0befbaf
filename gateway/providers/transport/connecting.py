"""Opens connections to upstreams: addresses, TCP, a proxy's tunnel, TLS. Everything together has one time limit."""

import asyncio
import re
import socket
import ssl
from collections.abc import Callable
from typing import cast

import aiohappyeyeballs

from gateway.core.threads import Threads
from gateway.core.upstream_errors import UpstreamFailed, UpstreamTimeout, UpstreamUnreachable
from gateway.providers.transport.addresses import Addresses
from gateway.providers.transport.http1_connection import Http1Connection
from gateway.providers.transport.proxies import Origin, Proxy

HAPPY_EYEBALLS_SECONDS = 0.25
"""RFC 8305: how long after the first address the second one is tried, while the first has not answered."""
MAX_TUNNEL_HEAD_BYTES = 64 * 1024
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([0-9]{3})[ \r]")

Create = Callable[[], Http1Connection]


class Connecting:
    """Opens connections. TLS takes certificates from where OpenSSL looks for them: ``SSL_CERT_FILE``, ``SSL_CERT_DIR``."""

    def __init__(self, addresses: Addresses, timeout: float, ssl_context: ssl.SSLContext | None = None) -> None:
        self._addresses = addresses
        self._timeout = timeout
        self._ssl_context = ssl_context
        self._threads = Threads("certificates")

    async def open(self, origin: Origin, proxy: Proxy | None, create: Create) -> Http1Connection:
        """Returns a connection that is ready for requests. Raises UpstreamUnreachable, UpstreamTimeout."""
        try:
            async with asyncio.timeout(self._timeout):
                return await self._open(origin, proxy, create)
        except (OSError, RuntimeError) as error:
            raise _translate(error) from error

    async def _open(self, origin: Origin, proxy: Proxy | None, create: Create) -> Http1Connection:
        context = await self._context() if origin.scheme == "https" else None
        sock = await self._connect(
            origin.host if proxy is None else proxy.host, origin.port if proxy is None else proxy.port
        )
        try:
            if proxy is not None and context is not None:
                return await _open_tunnel(sock, origin, proxy, context, create)
            name = origin.host if context is not None else None
            loop = asyncio.get_running_loop()
            _, connection = await loop.create_connection(create, sock=sock, ssl=context, server_hostname=name)
        except BaseException:
            sock.close()
            raise
        return connection

    async def _connect(self, host: str, port: int) -> socket.socket:
        addresses = await self._addresses.find(host, port)
        if not addresses:
            raise socket.gaierror(socket.EAI_NONAME, "no address")
        sock = await aiohappyeyeballs.start_connection(
            addresses, happy_eyeballs_delay=HAPPY_EYEBALLS_SECONDS, interleave=1
        )
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock

    async def _context(self) -> ssl.SSLContext:
        """Reads the certificates at the first use: that takes as long as some hundred requests, and most upstreams need none."""
        if self._ssl_context is None:
            self._ssl_context = await self._threads.run(create_ssl_context)
        return self._ssl_context

    def close(self) -> None:
        """Ends the thread that reads certificates."""
        self._threads.executor.shutdown(wait=False, cancel_futures=True)


def create_ssl_context() -> ssl.SSLContext:
    """Returns a context that verifies certificates and host names."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


class _Tunnel(asyncio.Protocol):
    """Asks a proxy for a connection to the upstream, and reads its answer."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self._received = b""
        self.answered: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.Transport, transport).write(self._request)

    def data_received(self, data: bytes) -> None:
        self._received += data
        is_whole = b"\r\n\r\n" in self._received or len(self._received) > MAX_TUNNEL_HEAD_BYTES
        if is_whole and not self.answered.done():
            self.answered.set_result(self._received)

    def connection_lost(self, _error: Exception | None) -> None:
        if not self.answered.done():
            self.answered.set_result(self._received)


async def _open_tunnel(
    sock: socket.socket, origin: Origin, proxy: Proxy, context: ssl.SSLContext, create: Create
) -> Http1Connection:
    loop = asyncio.get_running_loop()
    own = f"Proxy-Authorization: {proxy.authorization}\r\n" if proxy.authorization else ""
    request = f"CONNECT {origin.authority} HTTP/1.1\r\nHost: {origin.authority}\r\n{own}\r\n".encode()
    transport, tunnel = await loop.create_connection(lambda: _Tunnel(request), sock=sock)
    try:
        _check_tunnel(await tunnel.answered)
        connection = create()
        secure = await loop.start_tls(transport, connection, context, server_hostname=origin.host)
        if secure is None:
            raise ConnectionResetError
    except BaseException:
        transport.abort()
        raise
    connection.connection_made(secure)
    return connection


def _check_tunnel(answer: bytes) -> None:
    """Raises UpstreamUnreachable unless the proxy has opened the tunnel, and has sent nothing else."""
    found = _STATUS_LINE.match(answer)
    if found is None:
        raise UpstreamUnreachable("The upstream cannot be reached: the proxy's answer is not valid HTTP.")
    if not found[1].startswith(b"2"):
        raise UpstreamUnreachable(f"The upstream cannot be reached: the proxy answered {found[1].decode()}.")
    if not answer.endswith(b"\r\n\r\n") or answer.count(b"\r\n\r\n") > 1:
        raise UpstreamUnreachable("The upstream cannot be reached: the proxy's answer is not valid HTTP.")


def _translate(error: Exception) -> UpstreamFailed:
    """Returns our error for one of the system. It names the kind alone: texts of a library may quote the upstream's bytes."""
    match error:
        case TimeoutError():
            return UpstreamTimeout("The upstream took too long to answer: no connection could be made in time.")
        case socket.gaierror():
            return UpstreamUnreachable("The upstream cannot be reached: its name was not found.")
        case ssl.SSLCertVerificationError():
            return UpstreamUnreachable("The upstream cannot be reached: its certificate is not accepted.")
        case ssl.SSLError():
            return UpstreamUnreachable("The upstream cannot be reached: the TLS handshake failed.")
        case ConnectionRefusedError():
            return UpstreamUnreachable("The upstream cannot be reached: it refuses connections.")
        case _:
            return UpstreamUnreachable("The upstream cannot be reached: the network reports an error.")
