"""Connections to upstreams: TLS that is verified, proxies, several addresses, and a limit for everything together."""

import asyncio
import base64
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.core.upstream_errors import UpstreamTimeout, UpstreamUnreachable
from gateway.providers.transport.base import Timeouts, TransportRequest
from gateway.providers.transport.http1_client import Http1Transport
from tests.support.serving import serving
from tests.support.tls import Certificates, create_certificates
from tests.support.upstream import always, answer, read_request, running_upstream

LONG = Timeouts(30, 30, 30)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return create_certificates(tmp_path_factory.mktemp("certificates"))


def to_loopback(_host: str, port: int, *_: Any) -> list[tuple[Any, ...]]:
    """A DNS server for which every name is this machine."""
    return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]


class SecureUpstream:
    """Answers over TLS. ``names`` has the server names that clients have sent."""

    def __init__(self, certificates: Certificates) -> None:
        self.names: list[str | None] = []
        self.port = 0
        self._context = certificates.server
        self._context.sni_callback = lambda _socket, name, _context: self.names.append(name)

    @asynccontextmanager
    async def run(self) -> AsyncIterator["SecureUpstream"]:
        async with serving(self._serve, self._context) as self.port:
            yield self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while (received := await read_request(reader)) is not None:
            writer.write(answer(received.target.encode()))


class ForwardProxy:
    """A proxy as companies have them: it connects to this machine, whatever name it is asked for. ``asked`` has the heads."""

    def __init__(self, refusal: bytes = b"", excess: bytes = b"") -> None:
        self.asked: list[bytes] = []
        self.port = 0
        self._refusal, self._excess = refusal, excess

    @asynccontextmanager
    async def run(self) -> AsyncIterator["ForwardProxy"]:
        async with serving(self._serve) as self.port:
            yield self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.asked.append(head)
        if self._refusal:
            writer.write(self._refusal)
            return
        method, target, _ = head.split(b" ", 2)
        if method != b"CONNECT":
            writer.write(answer(b"by proxy"))
            await reader.read()
            return
        onward, back = await asyncio.open_connection("127.0.0.1", int(target.rpartition(b":")[2]))
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n" + self._excess)
        await asyncio.gather(relay(reader, back), relay(onward, writer))


async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
    except ConnectionError:
        pass
    finally:
        writer.close()


async def get(
    url: str, environ: Mapping[str, str] | None = None, context: ssl.SSLContext | None = None, times: int = 1
) -> bytes:
    transport = Http1Transport(LONG, to_loopback, environ or {}, context)
    try:
        body = b""
        for _ in range(times):
            response = await transport.send(TransportRequest("GET", url, {"X-Own": "a"}))
            body = await response.read(1000)
            response.close()
        return body
    finally:
        await transport.aclose()


async def test_a_certificate_of_a_known_authority_for_the_right_name_is_accepted(certificates: Certificates) -> None:
    async with SecureUpstream(certificates).run() as upstream:
        url = f"https://upstream.example:{upstream.port}/a"
        assert await get(url, context=certificates.client(), times=3) == b"/a"
        assert upstream.names == ["upstream.example"]
        assert await get(f"https://127.0.0.1:{upstream.port}/b", context=certificates.client()) == b"/b"


@pytest.mark.parametrize("host", ["other.example", "upstream.example.com", "a.upstream.example"])
async def test_a_certificate_for_another_name_is_refused(certificates: Certificates, host: str) -> None:
    async with SecureUpstream(certificates).run() as upstream:
        with pytest.raises(UpstreamUnreachable, match="its certificate is not accepted"):
            await get(f"https://{host}:{upstream.port}/", context=certificates.client())


async def test_an_authority_that_nobody_knows_is_refused_unless_ssl_cert_file_names_it(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with SecureUpstream(certificates).run() as upstream:
        url = f"https://upstream.example:{upstream.port}/"
        with pytest.raises(UpstreamUnreachable, match="its certificate is not accepted"):
            await get(url)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificates.authority))
        assert await get(url) == b"/"


async def test_an_upstream_that_speaks_no_tls_is_unreachable() -> None:
    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer(b"plain"))
        await reader.read()

    async with serving(plain) as port:
        with pytest.raises(UpstreamUnreachable, match="the TLS handshake failed"):
            await get(f"https://upstream.example:{port}/")


async def test_an_http_upstream_is_asked_through_the_proxy_with_its_whole_url() -> None:
    async with ForwardProxy().run() as proxy:
        environ = {"HTTP_PROXY": f"http://user:secret@127.0.0.1:{proxy.port}"}
        assert await get("http://upstream.example:8080/v1?a", environ) == b"by proxy"
        (head,) = proxy.asked
        assert head.startswith(b"GET http://upstream.example:8080/v1?a HTTP/1.1\r\nHost: upstream.example:8080\r\n")
        assert b"Proxy-Authorization: Basic " + base64.b64encode(b"user:secret") in head


async def test_an_https_upstream_is_reached_through_a_tunnel_and_the_proxy_sees_nothing(
    certificates: Certificates,
) -> None:
    async with SecureUpstream(certificates).run() as upstream, ForwardProxy().run() as proxy:
        environ = {"https_proxy": f"http://user:secret@127.0.0.1:{proxy.port}"}
        url = f"https://upstream.example:{upstream.port}/a"
        assert await get(url, environ, certificates.client(), times=3) == b"/a"
        (head,) = proxy.asked
        assert head.startswith(b"CONNECT upstream.example:%d HTTP/1.1\r\n" % upstream.port)
        assert b"Proxy-Authorization: Basic " in head and b"X-Own" not in head
        with pytest.raises(UpstreamUnreachable, match="its certificate is not accepted"):
            await get(f"https://other.example:{upstream.port}/a", environ, certificates.client())


async def test_no_proxy_is_reached_directly() -> None:
    async with running_upstream(always(answer(b"direct"))) as upstream, ForwardProxy().run() as proxy:
        environ = {"ALL_PROXY": f"http://127.0.0.1:{proxy.port}", "NO_PROXY": "upstream.example"}
        assert await get(f"http://upstream.example:{upstream.port}/", environ) == b"direct"
        assert not proxy.asked


REFUSALS = {
    b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n": "the proxy answered 407",
    b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno": "the proxy answered 403",
    b"SSH-2.0-x\r\n\r\n": "not valid HTTP",
    b"HTTP/1.1 200 OK": "not valid HTTP",
    b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000: "not valid HTTP",
    b"HTTP/1.1 200 OK\r\n\r\nfirst": "not valid HTTP",
    b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\n\r\n": "not valid HTTP",
}


@pytest.mark.parametrize("refusal", REFUSALS)
async def test_a_proxy_that_opens_no_tunnel_is_an_error(refusal: bytes) -> None:
    async with ForwardProxy(refusal).run() as proxy:
        with pytest.raises(UpstreamUnreachable, match=REFUSALS[refusal]):
            await get("https://upstream.example/", {"ALL_PROXY": f"http://127.0.0.1:{proxy.port}"})


async def test_the_next_address_is_tried_while_the_first_does_not_answer_or_refuses() -> None:
    """Nothing answers at the first address: its connections are dropped because its backlog is full."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.2", 0))
        port = silent.getsockname()[1]
        silent.listen(0)
        waiting = [socket.socket() for _ in range(3)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(("127.0.0.2", port))

        async def second(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(answer(b"second"))
            await reader.read()

        def two(_host: str, _port: int, *_: Any) -> list[tuple[Any, ...]]:
            hosts = ("127.0.0.3", "127.0.0.2", "127.0.0.1")
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port)) for host in hosts]

        async with serving(second, port=port), aclosing(Http1Transport(LONG, two, {})) as transport:
            async with asyncio.timeout(10):
                response = await transport.send(TransportRequest("GET", f"http://upstream.example:{port}/", {}))
                assert await response.read(100) == b"second"
        for one in waiting:
            one.close()


async def test_the_limit_for_connecting_includes_the_handshake_and_the_proxy() -> None:
    async def silent(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with serving(silent) as port:
        for environ in ({}, {"ALL_PROXY": f"http://127.0.0.1:{port}"}):
            async with aclosing(Http1Transport(Timeouts(0.2, 30, 30), to_loopback, environ)) as transport:
                with pytest.raises(UpstreamTimeout, match="no connection could be made in time"):
                    await transport.send(TransportRequest("GET", f"https://upstream.example:{port}/", {}))


async def test_certificates_come_from_a_folder_as_well(
    certificates: Certificates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenSSL finds a certificate in ``SSL_CERT_DIR`` by the hash of its subject."""
    process = await asyncio.create_subprocess_exec(
        "openssl", "x509", "-hash", "-noout", "-in", str(certificates.authority), stdout=asyncio.subprocess.PIPE
    )
    name = (await process.communicate())[0].decode().strip()
    (tmp_path / f"{name}.0").write_bytes(certificates.authority.read_bytes())
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    async with SecureUpstream(certificates).run() as upstream:
        assert await get(f"https://upstream.example:{upstream.port}/") == b"/"
