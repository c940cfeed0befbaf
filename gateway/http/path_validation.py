"""Says which request paths are invalid. Pure.

Two servers in a row may read an odd path differently: one sees ``/v1/../admin``, the next ``/admin``. So a path has exactly one
valid spelling here. That holds for the decoded path, too: ``/v1/engines/x%2F..%2Fadmin`` is ``/v1/engines/admin`` to a server
that decodes first.
"""

import re
from urllib.parse import unquote

_PLAIN = re.compile(r"(?:/[A-Za-z0-9_~!$&'()*+,=:@-][A-Za-z0-9_~!$&'()*+,=:@.-]*)+")
_ABSOLUTE = re.compile(r"https?://([A-Za-z0-9._:\[\]-]+)(?=[/?]|\Z)", re.IGNORECASE)
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})?")
_WITH_ADDRESS = ("/api/user/key/", "/api/user/usage/")
"""Paths whose last segment is an e-mail address, which may contain any of these characters. They never go upstream."""
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")


def origin_form(target: str, host: str) -> str:
    """Returns path and query of an absolute target, ``http://host/path``, that names the same host as the header ``Host``.

    RFC 9112 3.2.2 requires servers to take it. Any other target is returned as it is: it is meant for somebody else.
    """
    found = _ABSOLUTE.match(target)
    if found is None or not host or found[1].lower() != host.lower():
        return target
    rest = target[found.end() :]
    return rest if rest.startswith("/") else f"/{rest}"


def problem_with(path: str) -> str | None:
    """Returns what is wrong with a raw path, as the end of the sentence "the path …"; None for a valid one."""
    if _PLAIN.fullmatch(path):
        return None
    if not path.startswith("/"):
        return "does not begin with a slash"
    if not path.isascii() or not path.isprintable() or " " in path:
        return "holds characters that must be percent-encoded"
    for mark in ("\\", ";", "#"):
        if mark in path:
            return f"holds a {mark!r}"
    return _problem_with_segments(path) or _problem_with_escapes(path) or _problem_with_segments(unquote(path))


def problem_with_passed(path: str) -> str | None:
    """Returns what is wrong with a valid path that is sent upstream. There, an escaped slash may become one that separates."""
    return "holds an escaped '/'" if "%2f" in path or "%2F" in path else None


def _problem_with_segments(path: str) -> str | None:
    """Looks at the path as it is, and again decoded. No escape is left then, because an escaped ``%`` is refused."""
    segments = path.split("/")[1:]
    if path != "/" and "" in segments:
        return "ends with a slash" if "" not in segments[:-1] else "holds an empty segment (//)"
    if "." in segments or ".." in segments:
        return "holds a dot segment"
    return None


def _problem_with_escapes(path: str) -> str | None:
    try:
        unquote(path, errors="strict")
    except UnicodeDecodeError:
        return "holds escapes that are not UTF-8"
    for match in _ESCAPE.finditer(path):
        digits = match.group(1)
        if digits is None:
            return "holds a % that begins no escape"
        char = chr(int(digits, 16))
        if char in _UNRESERVED:
            return f"spells {char!r} as %{digits}"
        if char in "/\\%;?#" and not (char == "/" and _may_contain_slash(path)) and not path.startswith(_WITH_ADDRESS):
            return f"holds an escaped {char!r}"
        if ord(char) < 32 or ord(char) == 127:
            return "holds an escaped control character"
    return None


def _may_contain_slash(path: str) -> bool:
    """Names of models contain slashes, and clients escape them where a name is one segment."""
    return path.startswith(("/v1/models/", "/v1/engines/", "/engines/", "/openai/deployments/"))
