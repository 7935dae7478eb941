"""Starts the tasks of requests without a turn of the loop for each (Python 3.12 and newer).

A task that is made as usual waits in the loop's queue for its first step, and most requests need no other
step. Here the requests of one turn wait in a list of ours. The next turn starts them all, one after the
other, in eager tasks: the loop does not queue these, and asyncio does not note those that end in their first
step among the tasks that wait. They do not start as they are read: answers that leave together wake their
clients up once, and an application in the parser's call stack could make it parse on.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from contextvars import Context
from functools import partial
from typing import Any, Protocol

from ostler.worker.asgi import Application

MakeTask = Callable[[Coroutine[Any, Any, None]], "asyncio.Task[None]"]


class StartableRequest(Protocol):
    """A request that an application answers in a task."""

    task: asyncio.Task[None] | None

    def run(self, app: Application) -> Coroutine[Any, Any, None]:
        """Let the application answer."""


class EagerTasks:
    """Starts requests in the loop's next turn, in the order in which they came."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        context: Context,
        *,
        make_task: MakeTask,
        make_usual_task: MakeTask,
    ) -> None:
        """Make tasks in copies of `context`.

        Args:
            loop: the loop of the tasks.
            context: what the tasks see of context variables.
            make_task: makes an eager task.
            make_usual_task: makes a task where the application has set a task factory on the loop.
        """
        self._loop = loop
        self._context = context
        self._make_task = make_task
        self._make_usual_task = make_usual_task
        self._waiting: list[tuple[StartableRequest, Application]] = []
        """Those that the next turn starts."""
        self._beginning: list[tuple[StartableRequest, Application]] = []
        """Those that this turn has still to start; the last one first."""

    def add(self, request: StartableRequest, app: Application) -> None:
        """Let `app` start to answer once everything that this turn has brought is read."""
        if not self._waiting:
            self._begin_soon()
        self._waiting.append((request, app))

    def remove(self, request: StartableRequest) -> bool:
        """Do not start `request`; return whether it had not started yet."""
        for pairs in (self._waiting, self._beginning):
            for pair in pairs:
                if pair[0] is request:
                    pairs.remove(pair)
                    return True
        return False

    def _begin_soon(self) -> None:
        # A copy: an app may run the loop within its own step (nest_asyncio), and no context is entered twice.
        self._loop.call_soon(self._begin, context=self._context.copy())

    def _begin(self) -> None:
        beginning = self._beginning
        self._waiting.reverse()
        beginning[:0] = self._waiting
        self._waiting.clear()
        make_task = self._make_task if self._loop.get_task_factory() is None else self._make_usual_task
        try:
            while beginning:
                request, app = beginning.pop()
                request.task = make_task(request.run(app))
        finally:
            if beginning:  # a signal's handler has raised something, which must not cost the other requests
                self._begin_soon()


def eager_tasks(
    loop: asyncio.AbstractEventLoop, context: Context, make_usual_task: MakeTask, *, fresh: bool
) -> EagerTasks | None:
    """Return what starts the requests of one server, or None where only `make_usual_task` can.

    Each request runs in a copy of `context`, or in an empty context if `fresh`.
    """
    # A loop of any other kind may have a way of its own to make tasks.
    if sys.version_info >= (3, 12) and type(loop).__module__.partition(".")[0] in ("asyncio", "uvloop"):

        def make_in_fresh_context(coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
            return asyncio.Task(coroutine, loop=loop, context=Context(), eager_start=True)

        make_task = make_in_fresh_context if fresh else partial(asyncio.Task, loop=loop, eager_start=True)
        return EagerTasks(loop, context, make_task=make_task, make_usual_task=make_usual_task)
    return None
