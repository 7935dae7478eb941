"""Runs the first step of a coroutine at once; a task that is made later runs the rest.

A usual task waits for the loop's next turn before it runs its first step, and a turn of a busy server is
long. An eager task (Python 3.12 and newer) begins at once, but it goes on one turn later than what it waits
for. A task that is made after the first step begins in the turn in which that is done, right after it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Begun(Generic[T]):
    """A coroutine whose first step has been run. Await it once, in a task."""

    def __init__(self, coroutine: Coroutine[Any, Any, T]) -> None:
        """Run the first step of `coroutine`. There is no current task meanwhile.

        Raises:
            StopIteration: the coroutine has ended with its first step; `value` is what it returned.
            Exception: what its first step has raised.
        """
        self._coroutine = coroutine
        self._awaited: asyncio.Future[Any] | None = coroutine.send(None)

    def __await__(self) -> Generator[Any, Any, T]:
        return self  # type: ignore[return-value]  # it has what a coroutine that awaits it uses

    def __iter__(self) -> Begun[T]:
        return self

    def __next__(self) -> Any:
        """Go on; return what the task is to wait for."""
        awaited, self._awaited = self._awaited, None
        if awaited is not None and not awaited.done():
            return awaited
        return self._coroutine.send(None)

    def throw(self, *error: Any) -> Any:
        """Raise an exception where the coroutine waits."""
        return self._coroutine.throw(*error)

    def close(self) -> None:
        """End the coroutine where it waits."""
        self._coroutine.close()
