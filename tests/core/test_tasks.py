"""Background tasks: none dies in silence, and those that must live do."""

import asyncio

import pytest

from gateway.core import tasks
from gateway.core.tasks import BackgroundTasks


async def test_a_watcher_survives_a_bad_moment(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tasks, "RESTART_SECONDS", 0.0)
    looks: list[int] = []
    seen_again = asyncio.Event()

    async def watch() -> None:
        looks.append(len(looks))
        if len(looks) == 1:
            raise MemoryError("a bad moment")
        seen_again.set()
        await asyncio.Event().wait()

    group = BackgroundTasks()
    group.keep(watch, "watch")
    await asyncio.wait_for(seen_again.wait(), 5)
    await group.aclose()
    assert looks == [0, 1]
    assert "a bad moment" in caplog.text


async def test_a_task_that_fails_is_told_at_once(caplog: pytest.LogCaptureFixture) -> None:
    async def fail() -> None:
        raise ValueError("seen")

    group = BackgroundTasks()
    group.start(fail(), "fail")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert "seen" in caplog.text
    await group.aclose()


async def test_closing_waits_for_what_runs() -> None:
    ended: list[bool] = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append(True)

    group = BackgroundTasks()
    group.start(work(), "work")
    await asyncio.sleep(0)
    await group.aclose()
    assert ended == [True]
