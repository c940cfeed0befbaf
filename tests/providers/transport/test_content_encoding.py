"""Decompression: every encoding, in pieces of every size, and never more at once than a step may yield."""

import gzip
import sys
import zlib
from collections.abc import Callable

import brotli
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.providers.transport.content_encoding import (
    MAX_STEP_BYTES,
    Corrupt,
    Decoder,
    UnknownEncoding,
    decoder_for,
)

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


def raw_deflate(data: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-15)
    return compressor.compress(data) + compressor.flush()


COMPRESS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", gzip.compress),
    "x-gzip": ("x-gzip", gzip.compress),
    "gzip of two members": ("gzip", lambda data: gzip.compress(data[:5]) + gzip.compress(data[5:])),
    "deflate": ("deflate", zlib.compress),
    "deflate without zlib's header": ("deflate", raw_deflate),
    "br": ("br", brotli.compress),
    "zstd": ("zstd", zstd.compress),
    "zstd of two frames": ("zstd", lambda data: zstd.compress(data[:5]) + zstd.compress(data[5:])),
    "gzip, br": ("gzip, br", lambda data: brotli.compress(gzip.compress(data))),
    "three": ("deflate, zstd, GZIP", lambda data: gzip.compress(zstd.compress(zlib.compress(data)))),
    "identity among them": ("identity, gzip", gzip.compress),
}


def decode(values: list[str], data: bytes, size: int) -> bytes:
    decoder = decoder_for(values)
    assert decoder is not None
    found = [part for start in range(0, len(data), size) for part in steps(decoder, data[start : start + size])]
    decoder.finish()
    return b"".join(found)


def steps(decoder: Decoder, data: bytes) -> list[bytes]:
    decoder.feed(data)
    found = []
    while part := decoder.read():
        assert len(part) <= MAX_STEP_BYTES
        found.append(part)
    return found


@pytest.mark.parametrize("name", COMPRESS)
@settings(deadline=None, max_examples=25)
@given(st.binary(max_size=300), st.integers(1, 50), st.sampled_from([1, 1000, 5000]))
def test_what_was_compressed_is_decompressed(name: str, data: bytes, size: int, times: int) -> None:
    encoding, compress = COMPRESS[name]
    packed = compress(data * times)
    assert decode([encoding], packed, max(size, len(packed) // 500)) == data * times


@pytest.mark.parametrize("name", COMPRESS)
def test_a_body_that_grows_without_bound_comes_in_bounded_steps(name: str) -> None:
    encoding, compress = COMPRESS[name]
    packed = compress(bytes(20_000_000))
    assert len(packed) < 100_000
    assert len(decode([encoding], packed, len(packed))) == 20_000_000


@pytest.mark.parametrize("name", COMPRESS)
def test_a_body_that_breaks_off_is_corrupt(name: str) -> None:
    encoding, compress = COMPRESS[name]
    packed = compress(b"some text that is long enough " * 3)
    for end in (1, 2, len(packed) // 2, len(packed) - 1):
        with pytest.raises(Corrupt):
            decode([encoding], packed[:end], 7)


@pytest.mark.parametrize("name", COMPRESS)
@pytest.mark.parametrize("junk", [b"x", b"junk", b"\0\1"])
def test_what_is_no_such_body_is_corrupt(name: str, junk: bytes) -> None:
    encoding, compress = COMPRESS[name]
    for packed in (b"not compressed at all", compress(b"text") + junk):
        with pytest.raises(Corrupt):
            decode([encoding], packed, 1000)


def test_an_empty_body_is_complete() -> None:
    for encoding in ("gzip", "deflate", "br", "zstd", "gzip, br"):
        decoder = decoder_for([encoding])
        assert decoder is not None
        decoder.finish()


def test_a_window_that_no_content_encoding_needs_is_refused() -> None:
    compressor = zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: 27})
    packed = compressor.compress(b"x" * 100) + compressor.flush()
    with pytest.raises(Corrupt):
        decode(["zstd"], packed, 1000)


def test_several_lines_are_one_list() -> None:
    packed = brotli.compress(gzip.compress(b"text"))
    assert decode(["gzip", "br"], packed, 3) == b"text"


@pytest.mark.parametrize(
    "values", [["x"], ["gzip, x"], ["gzip;q=1"], ["gzip"] * 4, ["br, br, br, br"], ["compress"], ["zip"]]
)
def test_an_encoding_that_cannot_be_read_is_refused(values: list[str]) -> None:
    with pytest.raises(UnknownEncoding):
        decoder_for(values)


@pytest.mark.parametrize("values", [[], [""], ["identity"], [" , ,Identity"]])
def test_a_body_that_is_not_encoded_needs_no_decoder(values: list[str]) -> None:
    assert decoder_for(values) is None
