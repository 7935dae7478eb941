"""Tasks that begin without a turn of the loop for each (Python 3.12 and newer).

A task that is made as usual waits in the loop's queue for its first step, and most requests need no other.
Here the requests of one turn wait in a list of ours; the next turn begins them all, one after the other, in
tasks that nobody need queue, or note among those that wait. They do not begin as they are read: answers that
leave together wake their clients up once, and an app in the parser's call stack could make it parse on.
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


class Request(Protocol):
    """What an app answers in a task."""

    task: asyncio.Task[None] | None

    def run(self, app: Application) -> Coroutine[Any, Any, None]:
        """Let the app answer."""


class EagerTasks:
    """Begins requests in the loop's next turn, in the order in which they came."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        context: Context,
        *,
        make_task: MakeTask,
        make_usual_task: MakeTask,
    ) -> None:
        """Make tasks with `make_task`, or with the usual one where the application has set a task factory.

        That is done in `context`.
        """
        self._loop = loop
        self._context = context
        self._make_task = make_task
        self._make_usual_task = make_usual_task
        self._waiting: list[tuple[Request, Application]] = []
        """For the next turn."""
        self._beginning: list[tuple[Request, Application]] = []
        """Of this turn; the last one first."""

    def add(self, request: Request, app: Application) -> None:
        """Let `app` begin to answer once all that this turn has brought is read."""
        if not self._waiting:
            self._begin_soon()
        self._waiting.append((request, app))

    def remove(self, request: Request) -> bool:
        """Do not begin `request`; return whether it was still to begin."""
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
            if beginning:  # a signal's handler has raised something: that is not for the others to pay
                self._begin_soon()


def eager_tasks(
    loop: asyncio.AbstractEventLoop, context: Context, make_usual_task: MakeTask, *, fresh: bool
) -> EagerTasks | None:
    """Return what begins the requests of one service, or None where `make_usual_task` has to do.

    Each runs in a copy of `context`, or in an empty one if `fresh`.
    """
    # A loop of the user's own may make tasks in its own way.
    if sys.version_info >= (3, 12) and type(loop).__module__.partition(".")[0] in ("asyncio", "uvloop"):

        def make_in_fresh_context(coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
            return asyncio.Task(coroutine, loop=loop, context=Context(), eager_start=True)

        make_task = make_in_fresh_context if fresh else partial(asyncio.Task, loop=loop, eager_start=True)
        return EagerTasks(loop, context, make_task=make_task, make_usual_task=make_usual_task)
    return None
