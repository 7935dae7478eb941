"""Starts requests as eager asyncio tasks (Python 3.12 and newer), so that the loop does not queue each.

A usual task waits in the loop's queue for its first step, and most requests need only that one step. Here,
the requests that one turn of the loop has read wait in a list. In the next turn all of them begin, one after
the other, in eager tasks: the loop does not queue these, and a task that completes in its first step is not
registered among those that wait. The requests do not begin while they are read: responses that are written
together wake their clients once, and an app in the parser's call stack could make the parser read on.

No more than MOST_A_TURN begin in one turn. Between two turns the loop accepts new connections, which on a
busy server would else wait until all that was read is answered.
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


MOST_A_TURN = 16
"""Requests that begin in one turn."""


class Runnable(Protocol):
    """A request that an app answers in a task."""

    task: asyncio.Task[None] | None

    def run(self, app: Application) -> Coroutine[Any, Any, None]:
        """Let the app answer. The coroutine sets `task` in its first step, if that is None."""


class BeginsRequests(Protocol):
    """Begins requests in another way than each in a usual task."""

    def add(self, request: Runnable, app: Application) -> None:
        """Let `app` begin to answer, but not yet: the request is still being read."""

    def remove(self, request: Runnable) -> None:
        """Do not begin `request`, if it has not begun."""


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
        """Make tasks in copies of `context`.

        That is done with `make_task`, or with `make_usual_task` while the application has set a task factory.
        """
        self._loop = loop
        self._context = context
        self._make_task = make_task
        self._make_usual_task = make_usual_task
        self._waiting: list[tuple[Runnable, Application]] = []
        """For the next turn."""
        self._beginning: list[tuple[Runnable, Application]] = []
        """Of turns before; the last one first."""
        self._soon = False
        """Whether the next turn begins some."""

    def add(self, request: Runnable, app: Application) -> None:
        """Let `app` begin to answer once all that this turn has brought is read."""
        if not self._soon:
            self._begin_soon()
        self._waiting.append((request, app))

    def remove(self, request: Runnable) -> None:
        """Do not begin `request`, if it has not begun."""
        for pairs in (self._waiting, self._beginning):
            pairs[:] = [pair for pair in pairs if pair[0] is not request]

    def _begin_soon(self) -> None:
        self._soon = True
        # A copy: an app may run the loop within its own step (nest_asyncio), and no context is entered twice.
        self._loop.call_soon(self._begin, context=self._context.copy())

    def _begin(self) -> None:
        self._soon = False
        beginning = self._beginning
        self._waiting.reverse()
        beginning[:0] = self._waiting
        self._waiting.clear()
        make_task = self._make_task if self._loop.get_task_factory() is None else self._make_usual_task
        try:
            left = MOST_A_TURN
            while beginning and left:
                request, app = beginning.pop()
                request.task = make_task(request.run(app))
                left -= 1
        finally:
            # The rest, also if a signal handler has raised an exception.
            if beginning and not self._soon:
                self._begin_soon()


class HeldRequest:
    """Keeps the one request that is added, for a task that exists already to run it."""

    def __init__(self) -> None:
        self.run: Coroutine[Any, Any, None] | None = None
        """Lets the app answer the request; None while there is none."""

    def add(self, request: Runnable, app: Application) -> None:
        """Keep `request`, to be answered by `app`."""
        self.run = request.run(app)

    def remove(self, request: Runnable) -> None:
        """Drop the request."""
        if self.run is not None:
            self.run.close()
            self.run = None


def eager_tasks(
    loop: asyncio.AbstractEventLoop, context: Context, make_usual_task: MakeTask, *, fresh: bool
) -> EagerTasks | None:
    """Return what begins the requests of one server; None where `make_usual_task` is to make their tasks.

    Each request runs in a copy of `context`, or in an empty context if `fresh`.
    """
    # Another event loop than asyncio's and uvloop's may make tasks in its own way.
    if sys.version_info >= (3, 12) and type(loop).__module__.partition(".")[0] in ("asyncio", "uvloop"):

        def make_in_fresh_context(coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
            return asyncio.Task(coroutine, loop=loop, context=Context(), eager_start=True)

        make_task = make_in_fresh_context if fresh else partial(asyncio.Task, loop=loop, eager_start=True)
        return EagerTasks(loop, context, make_task=make_task, make_usual_task=make_usual_task)
    return None
