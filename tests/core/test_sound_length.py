"""How long sound is, by its bytes."""

import io
import struct
import wave

import pytest

from gateway.core.sound_length import HEAD_BYTES, NO_SOUND, SoundLength, sound_length


def wav(seconds: float, rate: int = 16_000, channels: int = 1, width: int = 2) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(channels)
        sound.setsampwidth(width)
        sound.setframerate(rate)
        sound.writeframes(bytes(int(seconds * rate) * channels * width))
    return file.getvalue()


def length(data: bytes) -> SoundLength:
    return sound_length(data[:HEAD_BYTES], len(data))


@pytest.mark.parametrize(("rate", "channels", "width"), [(8_000, 1, 1), (16_000, 1, 2), (44_100, 2, 2), (48_000, 2, 3)])
def test_wav_is_measured_exactly(rate: int, channels: int, width: int) -> None:
    assert length(wav(3, rate, channels, width)) == (3, 3)
    assert length(wav(3.01, rate, channels, width)) == (4, 4)


def test_chunks_before_the_sound_are_no_sound() -> None:
    data = wav(2)
    noted = data[:12] + struct.pack("<4sI", b"LIST", 5) + b"abcde\0" + data[12:]
    assert length(noted) == (2, 2)


def test_a_header_that_says_less_than_there_is_changes_nothing() -> None:
    data = bytearray(wav(5))
    at = data.index(b"data") + 4
    data[at : at + 4] = bytes(4)
    assert length(bytes(data)) == (5, 5)
    data[28:32] = b"\xff" * 4  # the bytes a second
    assert length(bytes(data)) == (5, 5)


@pytest.mark.parametrize(("at", "value"), [
    (20, struct.pack("<H", 0x55)), (24, struct.pack("<I", 10**9)), (24, bytes(4)), (22, struct.pack("<H", 60_000)),
    (34, bytes(2)), (8, b"AVI "), (0, b"RIFX"), (12, b"LIST"),
])  # fmt: skip
def test_what_is_no_plain_wav_is_estimated_by_its_size(at: int, value: bytes) -> None:
    """Compressed, at a rate that no sound has, or without a format."""
    data = bytearray(wav(10))
    data[at : at + len(value)] = value
    assert length(bytes(data)) == (-(-len(data) // 40_000), -(-len(data) // 2_000))


def test_whatever_has_bytes_has_a_length() -> None:
    assert sound_length(b"", 0) == NO_SOUND
    assert length(b"x") == (1, 1)
    assert length(b"ID3" + bytes(80_000)) == (3, 41)
    assert length(b"RIFF....WAVEfmt ") == (1, 1)
    assert length(wav(0)) == (1, 1)
