"""Deadlines: silence ends a connection, progress does not."""

import asyncio

import pytest

from gateway.server.deadlines import CHECKS_WITHOUT_PROGRESS, ReadDeadline, WriteDeadline


class Buffer(asyncio.Transport):
    """A transport of which only the bytes that wait in it count."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size, self.is_aborted = size, False

    def get_write_buffer_size(self) -> int:
        return self.size

    def abort(self) -> None:
        self.is_aborted = True


@pytest.fixture
def emptied() -> list[str]:
    return []


def deadline(buffer: Buffer, emptied: list[str]) -> WriteDeadline:
    return WriteDeadline(buffer, 60.0, lambda: emptied.append("empty"))


def test_a_client_that_takes_nothing_is_disconnected(emptied: list[str]) -> None:
    buffer = Buffer(100)
    write = deadline(buffer, emptied)
    for _ in range(CHECKS_WITHOUT_PROGRESS):
        assert not buffer.is_aborted
        write.expire()
    assert buffer.is_aborted


def test_a_byte_within_the_time_is_progress(emptied: list[str]) -> None:
    buffer = Buffer(100)
    write = deadline(buffer, emptied)
    for _ in range(10):
        for _ in range(CHECKS_WITHOUT_PROGRESS - 1):
            write.expire()
        buffer.size -= 1
        write.expire()
    assert not buffer.is_aborted


def test_a_buffer_that_was_emptied_and_filled_again_is_progress(emptied: list[str]) -> None:
    buffer = Buffer(100)
    write = deadline(buffer, emptied)
    for _ in range(10):
        write.resumed += 1
        write.expire()
    assert not buffer.is_aborted


def test_it_tells_when_nothing_is_left(emptied: list[str]) -> None:
    buffer = Buffer(100)
    write = deadline(buffer, emptied)
    buffer.size = 0
    write.expire()
    assert emptied == ["empty"]
    assert not buffer.is_aborted


def test_each_check_sets_the_time_of_the_next(emptied: list[str]) -> None:
    write = deadline(Buffer(100), emptied)
    before = write.ends_at
    write.expire()
    assert write.ends_at >= before


def test_a_late_head_is_told() -> None:
    told: list[str] = []
    ReadDeadline(0.0, lambda: told.append("late")).expire()
    assert told == ["late"]
