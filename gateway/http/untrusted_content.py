"""Makes an upstream's response harmless in a browser: it comes from the gateway's own origin. Pure.

Whatever is not JSON or an event stream is sandboxed. What a browser might run, or is unknown, is a download.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from urllib.parse import quote, unquote

from gateway.core.escaping import is_shown
from gateway.http.response import EVENT_STREAM

JSON = "application/json"
DATA_TYPES = frozenset({JSON, EVENT_STREAM})
"""What no browser runs: such a response needs nothing, unless it has a file name."""
UNKNOWN = "application/octet-stream"
SANDBOX = "sandbox; default-src 'none'"
"""The Content-Security-Policy of a document that may do nothing and load nothing."""

_CONTENT_TYPE = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+/[!#$%&'*+.^_`|~0-9A-Za-z-]+)[ \t]*(;[ -+\--~\t]*)?")
"""One media type with its parameters. A comma could begin a second one, and browsers would take that."""
_SHOWN_INLINE = re.compile(
    r"audio/[a-z0-9.-]+|video/[a-z0-9.-]+|image/(?:png|jpeg|gif|webp|avif|bmp)|text/(?:plain|csv|vtt)"
    r"|application/(?:json|jsonl|x-ndjson|octet-stream)"
)
_FILE_NAME = re.compile(r"""filename(\*?)[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|([^;\s"]+))""", re.IGNORECASE)
_MAX_NAME_LENGTH = 200


def response_headers(content_type: str, headers: Mapping[str, str]) -> Mapping[str, str]:
    """Returns the headers to send with an upstream's response, the content type among them."""
    rest = {name: value for name, value in headers.items() if name.lower() != "content-disposition"}
    disposition = next((value for name, value in headers.items() if name.lower() == "content-disposition"), "")
    return {**rest, **_content_headers(content_type, disposition)}


@lru_cache(maxsize=256)
def _content_headers(content_type: str, disposition: str) -> Mapping[str, str]:
    found = _CONTENT_TYPE.fullmatch(content_type)
    media_type = found[1].lower() if found else UNKNOWN
    shown = {"Content-Type": content_type if found else UNKNOWN}
    if media_type not in DATA_TYPES:
        shown["Content-Security-Policy"] = SANDBOX
    is_download = media_type != EVENT_STREAM and not _SHOWN_INLINE.fullmatch(media_type)
    if is_download or disposition:
        kind = "inline" if not is_download and disposition.lower().startswith("inline") else "attachment"
        shown["Content-Disposition"] = kind + _file_name(disposition)
    return MappingProxyType(shown)


def _file_name(disposition: str) -> str:
    """Returns the parameters for the file's name, empty where there is none that can be used."""
    names = {star: quoted or plain for star, quoted, plain in _FILE_NAME.findall(disposition)}
    name = names.get("", "")
    if "*" in names:
        name = unquote(names["*"].rpartition("'")[2], errors="replace")
    name = "".join(char if is_shown(char) and char not in '/\\:"<>|?*;%' else "_" for char in name)
    name = name.strip(". ")[:_MAX_NAME_LENGTH]
    if not name:
        return ""
    if name.isascii():
        return f'; filename="{name}"'
    return (
        f"; filename=\"{name.encode('ascii', 'replace').decode().replace('?', '_')}\"; filename*=UTF-8''{quote(name)}"
    )
