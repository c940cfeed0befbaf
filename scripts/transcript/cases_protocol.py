"""HTTP itself: versions, malformed requests, bodies in every form, headers sent twice, several requests on a connection."""

import gzip
import json

from scripts.transcript import wire
from scripts.transcript.cases_open import HELLO
from scripts.transcript.session import Section, Session

_BODY = json.dumps(HELLO).encode()
_LENGTH = f"Content-Length: {len(_BODY)}"


def record(section: Section) -> None:
    with section.serving("small bodies", {"GATEWAY_MAX_BODY_MB": "0.01"}) as session:
        _versions(session)
        _malformed(session)
        _bodies(session)
        _several(session)


def _post(*headers: str, body: bytes = _BODY, version: str = "1.1", target: str = "/v1/chat/completions") -> bytes:
    lines = [f"POST {target} HTTP/{version}", "Host: localhost", "Content-Type: application/json", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def _versions(session: Session) -> None:
    session.raw("HTTP/1.0", b"GET /healthz HTTP/1.0\r\n\r\n")
    session.raw("HTTP/1.0, kept", b"GET /healthz HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    session.raw("HTTP/1.0, head", b"HEAD /healthz HTTP/1.0\r\n\r\n")
    session.raw("HTTP/1.0, stream", _post(_LENGTH, version="1.0"))
    streamed = json.dumps({**HELLO, "stream": True}).encode()
    session.raw("HTTP/1.0, event stream", _post(f"Content-Length: {len(streamed)}", body=streamed, version="1.0"))
    session.raw("HTTP/1.1, to be closed", b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    session.raw(
        "event stream, to be closed", _post(f"Content-Length: {len(streamed)}", "Connection: close", body=streamed)
    )
    session.raw("HTTP/1.1 without a host", b"GET /healthz HTTP/1.1\r\n\r\n")
    session.raw("open mode without a host", b"GET /v1/models HTTP/1.1\r\n\r\n")
    session.raw("two hosts", b"GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
    session.raw("HTTP/2.0", b"GET /healthz HTTP/2.0\r\nHost: localhost\r\n\r\n")
    session.raw("HTTP/0.9", b"GET /healthz\r\n\r\n")
    session.raw("the preface of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")


def _malformed(session: Session) -> None:
    for name, data in {
        "no HTTP": b"nonsense\r\n\r\n",
        "TLS": b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n",
        "a header without a colon": b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nnonsense\r\n\r\n",
        "a space before the colon": b"GET /healthz HTTP/1.1\r\nHost : localhost\r\n\r\n",
        "a NUL in a header": b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: a\x00b\r\n\r\n",
        "a folded header": b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: a\r\n b\r\n\r\n",
        "bare line ends": b"GET /healthz HTTP/1.1\nHost: localhost\n\n",
        "a space in the path": b"GET /heal thz HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "bytes in the path": b"GET /heal\xffthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "a method of many letters": b"A" * 60 + b" /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "a long target": b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "a long header": b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 9000 + b"\r\n\r\n",
        "a fragment": b"GET /healthz#part HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "two lengths": _post("Content-Length: 5", "Content-Length: 6"),
        "the same length twice": _post(_LENGTH, _LENGTH),
        "a length below 0": _post("Content-Length: -1"),
        "a length that is no number": _post("Content-Length: 0x10"),
        "length and chunks": _post(_LENGTH, "Transfer-Encoding: chunked", body=wire.chunked(_BODY)),
        "chunks twice": _post("Transfer-Encoding: chunked, chunked", body=wire.chunked(_BODY)),
        "another transfer encoding": _post("Transfer-Encoding: gzip", body=b""),
        "gzip and chunks": _post("Transfer-Encoding: gzip, chunked", body=wire.chunked(_BODY)),
        "a chunk without a size": _post("Transfer-Encoding: chunked", body=b"zz\r\nabc\r\n0\r\n\r\n"),
        "a chunk that is too long": _post("Transfer-Encoding: chunked", body=b"3\r\nabcdef\r\n0\r\n\r\n"),
    }.items():
        session.raw(f"malformed: {name}", data)


def _bodies(session: Session) -> None:
    session.raw("chunked", _post("Transfer-Encoding: chunked", body=wire.chunked(_BODY[:10], _BODY[10:])))
    session.raw(
        "chunked with an extension",
        _post("Transfer-Encoding: chunked", body=b"%x;a=b\r\n%s\r\n0\r\n\r\n" % (len(_BODY), _BODY)),
    )
    session.raw(
        "chunked with a trailer",
        _post("Transfer-Encoding: chunked", body=wire.chunked(_BODY)[:-2] + b"X-Trailer: a\r\n\r\n"),
    )
    session.raw("no length", _post(body=b""))
    session.raw("too large", _post("Content-Length: 20000", body=b" " * 20000))
    session.raw("too large, announced only", _post("Content-Length: 20000", body=b""))
    session.raw("too large in chunks", _post("Transfer-Encoding: chunked", body=wire.chunked(b" " * 20000)))
    session.raw("just small enough", _post("Content-Length: 10485", body=_BODY.ljust(10485)))
    session.raw("one too many", _post("Content-Length: 10486", body=_BODY.ljust(10486)))
    packed = gzip.compress(_BODY, mtime=0)
    session.raw("compressed", _post(f"Content-Length: {len(packed)}", "Content-Encoding: gzip", body=packed))
    session.raw("identity", _post(_LENGTH, "Content-Encoding: identity"))
    session.raw("another encoding", _post(_LENGTH, "Content-Encoding: my-own"))
    session.expecting("told to go on", _post(_LENGTH, "Expect: 100-continue", body=b""), _BODY)
    session.raw("expectation with the body", _post(_LENGTH, "Expect: 100-continue"))
    session.raw("expectation, too large", _post("Content-Length: 20000", "Expect: 100-continue", body=b""))
    session.raw("another expectation", _post(_LENGTH, "Expect: something"))
    session.raw("expectation, HTTP/1.0", _post(_LENGTH, "Expect: 100-continue", version="1.0"))
    session.raw("expectation, unknown path", _post(_LENGTH, "Expect: 100-continue", target="/nothing"))
    session.raw("get with a body", b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc")
    large = b'{"name":"%s"}' % (b"x" * 70_000)
    session.raw("too large for /api", _post(f"Content-Length: {len(large)}", body=large, target="/api/tokens"))
    session.raw("the type sent twice", _post(_LENGTH, "Content-Type: text/plain"))


def _several(session: Session) -> None:
    get = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    session.raw("three on one connection", get, _post(_LENGTH), get)
    session.raw("an error between two", get, wire.request("GET", "/nothing"), get)
    session.raw("a stream, then another", _post(_LENGTH), get)
    with session.connect() as connection:
        connection.send(get + get)
        first, second = connection.read_reply("GET"), connection.read_reply("GET")
        session.section.exchange("two at once: the first", get + get, first)
        session.section.exchange("two at once: the second", b"", second)
