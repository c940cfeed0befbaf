"""What schemathesis is told of this API that its description cannot say. Loaded by its command line, not by pytest."""

import itertools
from typing import Any

import schemathesis

_ONE = "authorization"
_OTHERS = {"x-api-key", "x-api-token", "api-token", "api-key", "x-goog-api-key"}
_addresses = itertools.count()


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: dict[str, Any]) -> None:
    """Of the credentials that a description offers as alternatives one is sent, as each of our callers has to; and each
    request comes from another address, so that the limit of the public routes does not hide what is behind it."""
    headers = case.headers
    if any(name.lower() == _ONE for name in headers) or any(
        name.lower() == _ONE for name in kwargs.get("headers") or {}
    ):
        for name in [name for name in headers if name.lower() in _OTHERS]:
            del headers[name]
        case.query.pop("token", None)
    number = next(_addresses)
    headers["X-Forwarded-For"] = f"198.51.{number // 256 % 256}.{number % 256}"
