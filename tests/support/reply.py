"""What a test sees of an HTTP response, whichever client has read it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

Headers = Sequence[tuple[str, str]]


@dataclass
class Reply:
    """One response. ``whole``: it ended as its framing says, not because the connection did."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes
    whole: bool

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)

    def json(self) -> Any:
        return msgspec.json.decode(self.body)


def check_error(reply: Reply, status: int, kind: str, code: str | int | None) -> dict[str, Any]:
    """Checks the one shape that every error has; one of an upstream may have more fields. Returns the error object."""
    assert (reply.status, reply.header("Content-Type")) == (status, "application/json"), reply
    assert (reply.header("x-request-id") or "").startswith("req_"), reply.headers
    assert reply.whole, reply
    content = reply.json()
    assert set(content) == {"error"}
    error = content["error"]
    assert set(error) >= {"message", "type", "param", "code"}
    assert (error["type"], error["code"]) == (kind, code), error
    assert isinstance(error["message"], str)
    assert error["message"]
    assert error["param"] is None or isinstance(error["param"], str)
    return dict(error)
