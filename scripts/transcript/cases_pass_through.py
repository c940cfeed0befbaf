"""With an upstream: what is passed on piece by piece, and the lists of models."""

from scripts.transcript import fixtures
from scripts.transcript.fixtures import ADMIN
from scripts.transcript.session import Session
from scripts.transcript.upstream import Script, answer, events, json_answer

SHAPED = {"error": {"message": "Not today.", "type": "own_type", "param": None, "code": "own_code"}}
"""An error in OpenAI's shape."""

_MODELS = {
    "object": "list",
    "data": [{"id": "real-model", "object": "model", "created": 5, "owned_by": "me", "x": 1}, {"id": "gpt-4o-mini"}],
}
_FILE = {"id": "file-1", "object": "file", "model": "real-model"}


def record_pass_through(session: Session) -> None:
    form = (
        '--frontier\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
        '--frontier\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\nline\r\n--frontier--\r\n'
    )
    multipart = "Content-Type: multipart/form-data; boundary=frontier"
    session.behind("upload", json_answer(_FILE), "POST /v1/files", form, multipart, key=ADMIN)
    session.behind(
        "upload, refused", json_answer(SHAPED, "400 Bad Request"), "POST /v1/files", form, multipart, key=ADMIN
    )
    session.behind(
        "upload of a limited token", json_answer(_FILE), "POST /v1/files", form, multipart, key=fixtures.MODELS
    )
    _files(session)
    _other(session)


def _files(session: Session) -> None:
    content = answer(
        "200 OK",
        ["Content-Type: text/plain", "Content-Disposition: attachment", "Content-Range: bytes 0-4/9"],
        b"line\n",
    )
    session.behind("file", content, "GET /v1/files/file-1/content?x=1", None, "Range: bytes=0-4", key=ADMIN)
    session.behind(
        "file, head",
        Script([b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\n"]),
        "HEAD /v1/files/file-1/content",
        key=ADMIN,
    )
    session.behind(
        "file, not changed",
        Script([b'HTTP/1.1 304 Not Modified\r\nETag: "v"\r\n\r\n']),
        "GET /v1/files/file-1",
        None,
        'If-None-Match: "v"',
        key=ADMIN,
    )
    session.behind(
        "file in chunks",
        Script([b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"]),
        "GET /v1/files/file-1/content",
        key=ADMIN,
    )
    session.behind(
        "file, cut short",
        Script([b"HTTP/1.1 200 OK\r\nContent-Length: 19\r\n\r\ndata: abc"], waits_for=1),
        "GET /v1/files/file-1/content",
        key=ADMIN,
    )
    session.behind("file, deleted", json_answer({"deleted": True}), "DELETE /v1/files/file-1", key=ADMIN)


def _other(session: Session) -> None:
    session.behind(
        "JSON elsewhere", json_answer(_FILE), "POST /v1/images/generations", {"model": "nice", "prompt": "x"}, key=ADMIN
    )
    session.behind("JSON without a model", json_answer(_FILE), "POST /v1/batches", {"input_file_id": "x"}, key=ADMIN)
    session.behind(
        "JSON without a model, limited",
        json_answer(_FILE),
        "POST /v1/batches",
        {"input_file_id": "x"},
        key=fixtures.MODELS,
    )
    session.behind("patch", json_answer(_FILE), "PATCH /v1/things/1", {"a": 1}, key=ADMIN)
    session.behind("put without a body", json_answer(_FILE), "PUT /v1/things/1", key=ADMIN)
    session.behind("events elsewhere", events("data: a\n\n", "data: b\n\n"), "GET /v1/things/events", key=ADMIN)
    session.behind(
        "speech",
        answer("200 OK", ["Content-Type: audio/mpeg"], b"\x00\x01"),
        "POST /v1/audio/speech",
        {"model": "nice", "input": "x"},
        key=ADMIN,
    )
    session.behind("not found", answer("404 Not Found", [], b""), "GET /v1/things/2", key=ADMIN)


def record_models(session: Session) -> None:
    for name, script in {
        "list": json_answer(_MODELS),
        "empty list": json_answer({"object": "list", "data": []}),
        "no list": json_answer({"object": "list"}),
        "ids that are numbers": json_answer({"data": [{"id": 5}]}),
        "no JSON": answer("200 OK", ["Content-Type: text/plain"], b"Hello"),
        "refused": json_answer(SHAPED, "403 Forbidden"),
    }.items():
        session.behind(f"models: {name}", script, "GET /v1/models", key=ADMIN)
    for model in ("nice", "gone", "real-model", "none", "gpt-4o-mini"):
        session.behind(f"model {model}", json_answer(_MODELS), f"GET /v1/models/{model}", key=ADMIN)
    session.behind("models of a limited token", json_answer(_MODELS), "GET /v1/models", key=fixtures.MODELS)
    session.behind("models of a test token", json_answer(_MODELS), "GET /v1/models", key=fixtures.TEST)
