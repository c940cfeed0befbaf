"""Says how long uploaded sound is, without decoding it. Pure.

What a header says about the length can be anything. That of uncompressed sound follows from its bytes; any other is between what
the bytes are at a high and at a low rate.
"""

import struct
from typing import NamedTuple

HEAD_BYTES = 4096
"""How much of a file's beginning is looked at."""
LOW_RATE = 2_000
"""Bytes a second of speech that is compressed as far as is usual: 16 kbit/s."""
HIGH_RATE = 40_000
"""Bytes a second of music that is compressed as little as is usual: 320 kbit/s."""
_SAMPLE_RATES = range(8_000, 192_001)
_SAMPLE_BITS = frozenset({8, 16, 24, 32, 64})
_UNCOMPRESSED = frozenset({1, 3})
"""WAV's formats of whole numbers and of floats."""
_CHUNK = struct.Struct("<4sI")
_FORMAT = struct.Struct("<HHIIHH")


class SoundLength(NamedTuple):
    """Whole seconds. ``most`` is what is charged where nobody knows better."""

    least: int = 0
    most: int = 0


NO_SOUND = SoundLength()


def sound_length(beginning: bytes, size: int) -> SoundLength:
    """Returns the length of a file with ``size`` bytes, of which ``beginning`` has the first ``HEAD_BYTES``."""
    if size <= 0:
        return NO_SOUND
    if (exact := _wav_seconds(beginning, size)) is not None:
        return SoundLength(exact, exact)
    return SoundLength(_rounded_up(size, HIGH_RATE), _rounded_up(size, LOW_RATE))


def _wav_seconds(beginning: bytes, size: int) -> int | None:
    """Returns the seconds of uncompressed WAV; None for anything else. All bytes behind the header of the data are sound."""
    if beginning[:4] != b"RIFF" or beginning[8:12] != b"WAVE":
        return None
    rate, at = 0, 12
    while at + _CHUNK.size <= len(beginning):
        name, length = _CHUNK.unpack_from(beginning, at)
        at += _CHUNK.size
        if name == b"data":
            return _rounded_up(max(size - at, 1), rate) if rate else None
        if name == b"fmt ":
            rate = _bytes_a_second(beginning[at : at + _FORMAT.size])
        at += length + length % 2
    return None


def _bytes_a_second(header: bytes) -> int:
    """Returns how many bytes a second of the sound has; 0 where it is compressed, or not as sound is."""
    if len(header) < _FORMAT.size:
        return 0
    kind, channels, samples, _rate, _block, bits = _FORMAT.unpack(header)
    is_usual = kind in _UNCOMPRESSED and 1 <= channels <= 8 and samples in _SAMPLE_RATES and bits in _SAMPLE_BITS
    return int(samples * channels * bits // 8) if is_usual else 0


def _rounded_up(size: int, rate: int) -> int:
    return -(-size // rate)
