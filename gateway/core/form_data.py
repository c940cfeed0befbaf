"""Reads forms, ``multipart/form-data``, and writes them anew, so that an upstream reads what was checked. Pure.

Readers of forms differ in what they make of a name that appears twice, of charsets, of nested forms and of odd delimiters. So a
form has one spelling here, and what goes upstream is written by ``FormBody`` with a delimiter of its own.
"""

import re
import secrets
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

import msgspec

from gateway.core.errors import BadRequest
from gateway.core.json_body import MAX_MODEL_LENGTH, JsonObject, is_model_name, parse_object
from gateway.core.sound_length import HEAD_BYTES, NO_SOUND, SoundLength, sound_length

FORM = "multipart/form-data"
MAX_PARTS = 256
MAX_PART_HEAD_BYTES = 8 * 1024
MAX_TEXT_BYTES = 1024 * 1024
"""How long all parts without a file may be together."""

_BOUNDARY = re.compile(r"""multipart/form-data\s*;\s*boundary=(?:"([^"]{1,70})"|([^\s";,]{1,70}))\s*""", re.IGNORECASE)
_BOUNDARY_CHARACTERS = re.compile(r"[0-9A-Za-z'()+_,./:=? -]*[0-9A-Za-z'()+_,./:=?-]")
_PARAMETER = re.compile(rb""";[ \t]*(name|filename|filename\*)=(?:"((?:[^"\\\r\n]|\\[^\r\n])*)"|([^\s";,\\]+))[ \t]*""")
_NAME = re.compile(r"[A-Za-z0-9_.:\[\]-]{1,200}")
_MEDIA_TYPE = re.compile(
    rb"""[A-Za-z0-9!#$&^_.+-]+/[A-Za-z0-9!#$&^_.+-]+(?:[ \t]*;[ \t]*[\w-]+=(?:[\w.+-]+|"[\w .+-]*"))*"""
)
_PLAIN_TEXT = re.compile(rb"""text/plain(?:\s*;\s*charset="?(?:utf-?8|us-ascii)"?)?""", re.IGNORECASE)
_SHORT_NUMBER = re.compile(r"[0-9]{1,9}")
_IDENTITY = frozenset({b"7bit", b"8bit", b"binary"})


class FormPart(NamedTuple):
    """One part. ``disposition`` and ``content_type`` are as the client wrote them; its value is from ``start`` to ``end``."""

    name: str
    disposition: bytes
    content_type: bytes | None
    is_file: bool
    start: int
    end: int


class FormStorage(Protocol):
    """Keeps the bytes of a form while it is checked and sent."""

    def read(self, start: int, end: int) -> AsyncIterator[bytes]:
        """Yields the bytes from ``start`` to ``end``."""


class FormBody:
    """A checked form as the body of a request. It can be read more than once."""

    def __init__(self, parts: Sequence[FormPart], texts: Sequence[tuple[str, str]], storage: FormStorage) -> None:
        """``texts`` are names and values of all parts without a file."""
        self.texts = texts
        self._parts = parts
        self._storage = storage
        self._boundary = secrets.token_hex(24).encode()
        self._model = _read_model(parts, texts)
        self.sound = NO_SOUND
        """The length of the sound in it, where somebody has measured that."""

    @property
    def model(self) -> str | None:
        """The name in the part ``model``, None without one."""
        return self._model

    @property
    def fields(self) -> JsonObject:
        """The texts by their names, as if they had come as JSON. Whole numbers are numbers."""
        values = {name: int(text) if _SHORT_NUMBER.fullmatch(text) else text for name, text in self.texts}
        return parse_object(msgspec.json.encode(values))

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers that tell how to read it."""
        size = sum(len(one) if isinstance(one, bytes) else one[1] - one[0] for one in self._pieces())
        return {"Content-Type": f"{FORM}; boundary={self._boundary.decode()}", "Content-Length": str(size)}

    def with_model(self, model: str) -> "FormBody":
        """Returns the form with another model."""
        texts = [(name, value) for name, value in self.texts if name != "model"]
        form = FormBody(self._parts, [("model", model), *texts], self._storage)
        form.sound = self.sound
        return form

    async def measure_sound(self) -> None:
        """Sets ``sound`` by the files in the form. Raises what the storage raises."""
        found: list[SoundLength] = []
        for part in filter(lambda part: part.is_file, self._parts):
            end = min(part.start + HEAD_BYTES, part.end)
            beginning = b"".join([chunk async for chunk in self._storage.read(part.start, end)])
            found.append(sound_length(beginning, part.end - part.start))
        self.sound = SoundLength(sum(each.least for each in found), sum(each.most for each in found))

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yields the form. Raises what the storage raises."""
        for piece in self._pieces():
            if isinstance(piece, bytes):
                yield piece
            else:
                async for chunk in self._storage.read(*piece):
                    yield chunk

    def _pieces(self) -> Iterator[bytes | tuple[int, int]]:
        if self._model is not None:
            yield self._head(b'form-data; name="model"', None)
            yield self._model.encode() + b"\r\n"
        for part in self._parts:
            if part.name != "model":
                yield self._head(part.disposition, part.content_type)
                yield part.start, part.end
                yield b"\r\n"
        yield b"--%s--\r\n" % self._boundary

    def _head(self, disposition: bytes, content_type: bytes | None) -> bytes:
        kind = b"" if content_type is None else b"Content-Type: %s\r\n" % content_type
        return b"--%s\r\nContent-Disposition: %s\r\n%s\r\n" % (self._boundary, disposition, kind)


class FormParser:
    """Finds the parts of a form that arrives in chunks. It keeps no more of it than the head of a part."""

    def __init__(self, content_type: str) -> None:
        """``content_type`` is the header of the request. Raises BadRequest where it names no delimiter, or a charset."""
        found = _BOUNDARY.fullmatch(content_type.strip())
        boundary = (found[1] or found[2]) if found is not None else ""
        if not _BOUNDARY_CHARACTERS.fullmatch(boundary):
            raise _invalid("its Content-Type must be multipart/form-data with one boundary and nothing else")
        self.parts: list[FormPart] = []
        self._delimiter = b"\r\n--" + boundary.encode()
        self._buffer = bytearray(b"\r\n")  # the first delimiter has no line end before it
        self._base = -2
        """Where the buffer begins in the form."""
        self._open: FormPart | None = None
        self._is_in_head = False
        self._is_complete = False

    def feed(self, chunk: bytes) -> None:
        """Takes the next chunk. Raises BadRequest."""
        if not self._is_complete:
            self._buffer += chunk
            while self._step():
                pass

    def finish(self) -> list[FormPart]:
        """Returns the parts. Raises BadRequest where the form has no end."""
        if not self._is_complete:
            raise _invalid("it ends too early")
        return self.parts

    def _step(self) -> bool:
        """Returns whether there may be more to find in the buffer."""
        return not self._is_complete and (self._read_head() if self._is_in_head else self._read_content())

    def _read_content(self) -> bool:
        at = self._buffer.find(self._delimiter)
        if at < 0:
            if self._open is None and len(self._buffer) >= len(self._delimiter):
                raise _invalid("it does not begin with its delimiter")
            self._drop(max(0, len(self._buffer) - len(self._delimiter)))
            return False
        end = at + len(self._delimiter)
        mark = bytes(self._buffer[end : end + 2])
        if len(mark) < 2:
            return False
        if mark not in (b"--", b"\r\n") or (self._open is None and at > 0):
            raise _invalid("a delimiter is followed, or preceded, by something else")
        if self._open is not None:
            self.parts.append(self._open._replace(end=self._base + at))
        self._is_complete, self._is_in_head = mark == b"--", mark != b"--"
        self._drop(end)  # the line end stays: it may be that of an empty head
        return True

    def _read_head(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        if (end if end >= 0 else len(self._buffer)) > MAX_PART_HEAD_BYTES or len(self.parts) >= MAX_PARTS:
            raise _invalid(
                f"it has more than {MAX_PARTS} parts, or a part with a head above {MAX_PART_HEAD_BYTES} bytes"
            )
        if end < 0:
            return False
        self._open = _parse_head(bytes(self._buffer[2:end]), self._base + end + 4)
        self._is_in_head = False
        self._drop(end + 4)
        return True

    def _drop(self, count: int) -> None:
        del self._buffer[:count]
        self._base += count


def _parse_head(head: bytes, start: int) -> FormPart:
    headers: dict[bytes, bytes] = {}
    for line in head.split(b"\r\n"):
        written, colon, value = line.partition(b":")
        key = written.lower()
        if not colon or key in headers or key != key.strip() or b"\n" in line or b"\r" in line or b"\0" in line:
            raise _invalid("a part has an invalid head")
        headers[key] = value.strip()
    if headers.get(b"content-transfer-encoding", b"binary").lower() not in _IDENTITY:
        raise _invalid("a part has a Content-Transfer-Encoding")
    content_type = headers.get(b"content-type")
    if content_type is not None and not _MEDIA_TYPE.fullmatch(content_type):
        raise _invalid("a part has an invalid Content-Type")
    if content_type is not None and content_type.lower().startswith(b"multipart/"):
        raise _invalid("a part holds another multipart body")
    name, disposition, is_file = _parse_disposition(headers.get(b"content-disposition", b""))
    if name == "model" and (is_file or not (content_type is None or _PLAIN_TEXT.fullmatch(content_type))):
        raise _invalid("`model` must be plain text in UTF-8, without a file name")
    return FormPart(name, disposition, content_type, is_file, start, start)


def _parse_disposition(value: bytes) -> tuple[str, bytes, bool]:
    kind, _, _ = value.partition(b";")
    parameters: dict[bytes, bytes] = {}
    at = len(kind)
    while at < len(value) and (found := _PARAMETER.match(value, at)) is not None and found[1] not in parameters:
        parameters[found[1]] = found[2] if found[2] is not None else found[3]
        at = found.end()
    name = parameters.get(b"name", b"").decode("latin-1")
    if kind.strip().lower() != b"form-data" or at < len(value) or not _NAME.fullmatch(name):
        raise _invalid('a part needs exactly `Content-Disposition: form-data; name="…"`, and a file name at most')
    written = b'form-data; name="%s"' % name.encode()
    if b"filename" in parameters:
        written += b'; filename="%s"' % parameters[b"filename"]
    if b"filename*" in parameters:
        written += b"; filename*=%s" % parameters[b"filename*"].replace(b'"', b"").replace(b" ", b"%20")
    return name, written, len(parameters) > 1


def _read_model(parts: Sequence[FormPart], texts: Sequence[tuple[str, str]]) -> str | None:
    if sum(part.name == "model" for part in parts) > 1:
        raise BadRequest("The form has the part `model` twice.", code="duplicate_key", param="model")
    for part in parts:
        if part.name != "model" and part.name.casefold().split("[")[0].replace("_", "") in ("model", "charset"):
            raise _invalid(
                f"the part {part.name[:100]!r} is not allowed: `model` must be written so, and the charset is UTF-8"
            )
    model = dict(texts).get("model")
    if model is not None and not (0 < len(model) <= MAX_MODEL_LENGTH and is_model_name(model)):
        rule = f"`model` must be one name of at most {MAX_MODEL_LENGTH} printable characters, without a comma."
        raise BadRequest(rule, code="invalid_value", param="model")
    return model


async def read_texts(parts: Sequence[FormPart], storage: FormStorage) -> list[tuple[str, str]]:
    """Returns names and values of all parts without a file. Raises BadRequest for too long ones, or for one that is not UTF-8."""
    found: list[tuple[str, str]] = []
    own = [part for part in parts if not part.is_file]
    if sum(part.end - part.start for part in own) > MAX_TEXT_BYTES:
        raise _invalid(f"the parts without a file have more than {MAX_TEXT_BYTES} bytes")
    for part in own:
        value = b"".join([chunk async for chunk in storage.read(part.start, part.end)])
        try:
            found.append((part.name, value.decode()))
        except UnicodeDecodeError:
            raise _invalid(f"the part `{part.name}` is not UTF-8") from None
    return found


def _invalid(reason: str) -> BadRequest:
    return BadRequest(f"We could not read the form in your request: {reason}.", code="invalid_form")
