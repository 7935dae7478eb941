"""A coroutine whose first step has run, and whose rest a task runs."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from ostler.worker.accept.first_step import Begun


async def rest(coroutine: Coroutine[Any, Any, str]) -> str:
    """Run the first step at once, and the rest in a task; return what the coroutine returns."""
    begun = Begun(coroutine)

    async def await_it() -> str:
        return await begun

    return await asyncio.get_running_loop().create_task(await_it())


def test_the_first_step_runs_at_once_and_the_rest_in_the_task() -> None:
    steps = []

    async def coroutine() -> str:
        steps.append(asyncio.current_task())
        await asyncio.sleep(0)
        steps.append(asyncio.current_task())
        await asyncio.sleep(0.001)
        steps.append(asyncio.current_task())
        return "done"

    async def main() -> None:
        begun = Begun(coroutine())
        # What runs here runs in the task of the caller.
        assert steps == [asyncio.current_task()]

        async def await_it() -> str:
            return await begun

        task = asyncio.get_running_loop().create_task(await_it())
        assert await task == "done"
        assert steps[1:] == [task, task]

    asyncio.run(main())


def test_what_is_done_when_the_task_begins_is_not_waited_for() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        future = loop.create_future()

        async def coroutine() -> str:
            text: str = await future
            return text

        begun = Begun(coroutine())
        loop.call_soon(future.set_result, "done")
        turns: list[str] = []
        loop.call_soon(lambda: loop.call_soon(turns.append, "next turn"))

        async def await_it() -> str:
            return await begun + "".join(turns)

        assert await loop.create_task(await_it()) == "done"

    asyncio.run(main())


def test_an_exception_is_raised_in_the_coroutine_that_waits_for_it() -> None:
    async def main() -> None:
        future = asyncio.get_running_loop().create_future()

        async def coroutine() -> str:
            try:
                await future
            except TimeoutError:
                await asyncio.sleep(0)
                return "too late"
            return "in time"

        asyncio.get_running_loop().call_later(0.001, future.set_exception, TimeoutError())
        assert await rest(coroutine()) == "too late"

    asyncio.run(main())


def test_cancelling_the_task_cancels_what_the_first_step_waits_for() -> None:
    cancelled = []

    async def main() -> None:
        future = asyncio.get_running_loop().create_future()

        async def coroutine() -> str:
            try:
                await future
            except asyncio.CancelledError:
                cancelled.append(future.cancelled())
                raise
            return "done"

        task = asyncio.get_running_loop().create_task(rest(coroutine()))
        asyncio.get_running_loop().call_later(0.001, task.cancel)
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert cancelled == [True]


def test_a_coroutine_that_ends_in_its_first_step_leaves_nothing_to_await() -> None:
    async def returns() -> str:
        return "done"

    async def fails() -> str:
        raise ConnectionResetError

    with pytest.raises(StopIteration) as ended:
        Begun(returns())
    assert ended.value.value == "done"
    with pytest.raises(ConnectionResetError):
        Begun(fails())
