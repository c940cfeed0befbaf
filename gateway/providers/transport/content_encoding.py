"""Decompresses bodies in steps: no step yields more than ``MAX_STEP_BYTES``, however small its input was."""

import sys
import zlib
from collections.abc import Callable, Sequence
from typing import Protocol

import brotli  # type: ignore[import-untyped]

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MAX_STEP_BYTES = 64 * 1024
MAX_ENCODINGS = 3
_BROTLI_LIMIT = 16 * 1024
"""Brotli stops behind the block of its output in which this is reached. The first block has 32 KiB, the next would have 64."""
_MAX_ZSTD_WINDOW_LOG = 23
"""RFC 9659: a content encoding uses windows of 8 MiB at most."""
_GZIP = zlib.MAX_WBITS | 16


class UnknownEncoding(Exception):
    """Tells of a content encoding that cannot be read."""


class Corrupt(Exception):
    """Tells of a body that is not in its encoding, or not to its end."""


class Decoder(Protocol):
    """Decompresses one body."""

    def feed(self, data: bytes) -> None:
        """Takes compressed bytes. What was fed before must have been read to its end."""

    def read(self) -> bytes:
        """Returns at most ``MAX_STEP_BYTES``, ``b""`` where more input is needed. Raises Corrupt."""

    def finish(self) -> None:
        """Raises Corrupt where the body is incomplete."""


class _Zlib(Decoder):
    """Decompresses gzip, of one or more members, and deflate, with zlib's header or without."""

    def __init__(self, is_gzip: bool) -> None:
        self._is_gzip = is_gzip
        self._input = b""
        self._decompressor = zlib.decompressobj(_GZIP) if is_gzip else None
        self._is_empty = True
        self._has_more = False
        """Whether the last step stopped because of its limit: more may come without any input."""

    def feed(self, data: bytes) -> None:
        self._input += data
        self._is_empty = self._is_empty and not data

    def read(self) -> bytes:
        while self._input or self._has_more:
            if self._decompressor is None and not self._choose_deflate():
                return b""
            data = self._step()
            if data:
                return data
        return b""

    def finish(self) -> None:
        if not self._is_empty and (self._decompressor is None or not self._decompressor.eof):
            raise Corrupt

    def _choose_deflate(self) -> bool:
        """Chooses by the two bytes of zlib's header; many servers send deflate without it."""
        if len(self._input) < 2:
            return False
        has_header = self._input[0] & 15 == 8 and int.from_bytes(self._input[:2], "big") % 31 == 0
        self._decompressor = zlib.decompressobj(zlib.MAX_WBITS if has_header else -zlib.MAX_WBITS)
        return True

    def _step(self) -> bytes:
        if self._decompressor is None or self._decompressor.eof:
            if not self._is_gzip:
                raise Corrupt
            self._decompressor = zlib.decompressobj(_GZIP)
        try:
            data = self._decompressor.decompress(self._input, MAX_STEP_BYTES)
        except zlib.error as error:
            raise Corrupt from error
        self._input = self._decompressor.unused_data if self._decompressor.eof else self._decompressor.unconsumed_tail
        self._has_more = len(data) == MAX_STEP_BYTES and not self._decompressor.eof
        return data


class _Brotli(Decoder):
    def __init__(self) -> None:
        self._decompressor = brotli.Decompressor()
        self._input = b""
        self._is_empty = True
        self._may_have_more = False
        """Whether the last step has yielded something: the next one may, too, without any input."""

    def feed(self, data: bytes) -> None:
        self._input += data
        self._is_empty = self._is_empty and not data

    def read(self) -> bytes:
        while self._input or self._may_have_more:
            if self._decompressor.is_finished():
                if self._input:
                    raise Corrupt
                return b""
            data, self._input = (self._input, b"") if self._decompressor.can_accept_more_data() else (b"", self._input)
            try:
                found = self._decompressor.process(data, output_buffer_limit=_BROTLI_LIMIT)
            except brotli.error as error:
                raise Corrupt from error
            self._may_have_more = bool(found)
            if found:
                return bytes(found)
        return b""

    def finish(self) -> None:
        if not self._is_empty and not self._decompressor.is_finished():
            raise Corrupt


class _Zstd(Decoder):
    """Decompresses one frame or more."""

    def __init__(self) -> None:
        self._decompressor = self._create()
        self._input = b""
        self._is_empty = True

    def feed(self, data: bytes) -> None:
        self._input += data
        self._is_empty = self._is_empty and not data

    def read(self) -> bytes:
        while self._input or not (self._decompressor.needs_input or self._decompressor.eof):
            if self._decompressor.eof:
                self._decompressor = self._create()
            data, self._input = self._input, b""
            try:
                found = self._decompressor.decompress(data, MAX_STEP_BYTES)
            except zstd.ZstdError as error:
                raise Corrupt from error
            if self._decompressor.eof:
                self._input = self._decompressor.unused_data
            if found:
                return found
        return b""

    def finish(self) -> None:
        if not self._is_empty and not self._decompressor.eof:
            raise Corrupt

    @staticmethod
    def _create() -> zstd.ZstdDecompressor:
        return zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _MAX_ZSTD_WINDOW_LOG})


class _Chain(Decoder):
    """Decompresses a body that was compressed twice: ``outer`` reads what came, ``inner`` what that yields."""

    def __init__(self, outer: Decoder, inner: Decoder) -> None:
        self._outer, self._inner = outer, inner

    def feed(self, data: bytes) -> None:
        self._outer.feed(data)

    def read(self) -> bytes:
        while not (found := self._inner.read()):
            if not (data := self._outer.read()):
                return b""
            self._inner.feed(data)
        return found

    def finish(self) -> None:
        self._outer.finish()
        self._inner.finish()


_DECODERS: dict[str, Callable[[], Decoder]] = {
    "gzip": lambda: _Zlib(is_gzip=True),
    "x-gzip": lambda: _Zlib(is_gzip=True),
    "deflate": lambda: _Zlib(is_gzip=False),
    "br": _Brotli,
    "zstd": _Zstd,
}


def decoder_for(values: Sequence[str]) -> Decoder | None:
    """Returns the decoder for the values of ``Content-Encoding``, None where the body is not encoded.

    Raises UnknownEncoding, also for more than ``MAX_ENCODINGS``.
    """
    names = [name for value in values for part in value.split(",") if (name := part.strip(" \t").lower())]
    names = [name for name in names if name != "identity"]
    if len(names) > MAX_ENCODINGS or any(name not in _DECODERS for name in names):
        raise UnknownEncoding
    decoder: Decoder | None = None
    for name in reversed(names):
        inner = _DECODERS[name]()
        decoder = inner if decoder is None else _Chain(decoder, inner)
    return decoder
