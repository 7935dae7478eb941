"""Drains a server: stops accepting, finishes what is in flight, and cancels what is left past the grace."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Coroutine, Sequence
from typing import Any

from ostler.ipc.contract import HURRY_CANCEL, HURRY_FINISH, HURRY_LINGER
from ostler.system.stop_listening import HANDSHAKE_TIME
from ostler.worker.accept.acceptor import Acceptor
from ostler.worker.server_state import ServerState

logger = logging.getLogger("ostler.error.worker")

CANCEL_GRACE = 0.5
"""Seconds that what was cancelled has to clean up."""

_NOTICEABLE = 0.1
"""Seconds after which a drain logs what it waits for."""


class ServerDrain:
    """One server's drain. `await run()` once the server is to stop.

    Under `--reload` (`ServerState.turning_away`) all is shorter: what waits in the queues is left for the
    new code, and streams, which may never end, are cancelled.
    """

    def __init__(
        self, server_state: ServerState, acceptors: Sequence[Acceptor], stop_now: asyncio.Future[None]
    ) -> None:
        """`stop_now` is done as soon as nothing more is to be finished."""
        self._server_state = server_state
        self._loop = server_state.loop
        self._acceptors = acceptors
        self._stop_now = stop_now
        self._changed = asyncio.Event()
        self._logged = ""
        """What the drain waits for, as it was last logged."""
        self._streams: asyncio.TimerHandle | None = None
        self._listening: asyncio.TimerHandle | None = None
        """Closes the queues, when the kernel has completed the handshakes that are under way."""
        self._refused = False
        """No new handshake begins."""

    async def run(self, *, stream_grace: float | None = None) -> None:
        """Stop accepting and finish what is in flight; past the grace, cancel what is left and count it.

        `stream_grace` is how many seconds streams have; None gives them the whole grace.
        """
        server_state = self._server_state
        self._leave_queues()
        if self._stop_now.done():
            self._close_queues()
            self._abort()
            return
        if server_state.turning_away:
            server_state.leave()
            self._loop.call_later(HURRY_LINGER, server_state.end_streams)
        else:
            server_state.drain()
            if stream_grace is not None:
                self._end_streams_in(stream_grace)
        server_state.on_change = self._changed.set
        grace = HURRY_FINISH if server_state.turning_away else server_state.settings.timeout_graceful_shutdown
        notice = self._loop.call_later(_NOTICEABLE, self._log_wait)
        try:
            await self._within(grace, self._until_empty())
        finally:
            notice.cancel()
            if self._streams is not None:
                self._streams.cancel()
            self._close_queues()
        if self._stop_now.done():
            self._abort()
        elif self._busy():
            await self._cancel()

    def _leave_queues(self) -> None:
        """Take what waits in the queues, unless new code answers it, and begin to close them.

        While any process listens, the kernel completes handshakes. Where another one serves on, they are left
        to that. Where none does, the last ones are waited for. Where nobody can know (the sockets are another
        program's, or the arbiter was killed), the queues are closed at once: what came in the meantime would
        be reset if this is the last process that has them.
        """
        server_state = self._server_state
        for acceptor in self._acceptors:
            if server_state.turning_away:
                acceptor.close()
            elif server_state.ends_listening:
                acceptor.refuse_new()
            else:
                acceptor.finish()
                if not server_state.supervised:
                    acceptor.close()
        self._refused = server_state.ends_listening
        if not server_state.turning_away and (server_state.ends_listening or server_state.supervised):
            self._listening = self._loop.call_later(HANDSHAKE_TIME, self._wait_for_handshakes)

    def _wait_for_handshakes(self) -> None:
        """Close the queues; but if a worker learns only now that all of ostler stops, after another wait."""
        server_state = self._server_state
        if server_state.ends_listening and not self._refused and not server_state.turning_away:
            self._leave_queues()
        else:
            self._close_queues()

    def _close_queues(self) -> None:
        if self._listening is None:
            return
        self._listening.cancel()
        self._listening = None
        for acceptor in self._acceptors:
            if self._server_state.ends_listening:
                acceptor.end()
            else:
                acceptor.close()
        self._changed.set()

    def _end_streams_in(self, seconds: float) -> None:
        """End streams in so many seconds, and again those that begin later."""

        def end() -> None:
            self._server_state.end_streams()
            self._end_streams_in(seconds)

        self._streams = self._loop.call_later(seconds, end)

    async def abort(self) -> None:
        """Cut every connection and cancel every task, and wait until they are gone, for CANCEL_GRACE."""
        self._server_state.on_change = self._changed.set
        self._abort()
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._until_empty(), CANCEL_GRACE)

    async def _cancel(self) -> None:
        cancelled = self._server_state.cancel()
        for acceptor in self._acceptors:
            acceptor.abort()
        hurried = self._server_state.turning_away
        if cancelled and not hurried:
            logger.error("Cancel %d running request(s), timeout graceful shutdown exceeded", cancelled)
        await self._within(HURRY_CANCEL if hurried else CANCEL_GRACE, self._until_empty())
        self._abort()

    def _abort(self) -> None:
        for acceptor in self._acceptors:
            acceptor.abort()
        self._server_state.abort()

    def _log_wait(self) -> None:
        """Log what the drain waits for, in uvicorn's words, and each but once."""
        server_state = self._server_state
        if not self._connected() and not server_state.in_flight:
            return
        waiting_for = "connections to close" if self._connected() else "background tasks to complete"
        if waiting_for != self._logged:
            self._logged = waiting_for
            # A worker that drains for its successor is not stopped sooner by Ctrl+C.
            hint = " (CTRL+C to force quit)" if server_state.withdrawn else ""
            logger.info("Waiting for %s.%s", waiting_for, hint)

    async def _within(self, seconds: float, work: Coroutine[Any, Any, None]) -> None:
        """Do the work; give it up after `seconds`, or as soon as the server is to stop now."""
        over: asyncio.Future[None] = self._loop.create_future()

        def give_up(_: object = None) -> None:
            if not over.done():
                over.set_result(None)

        timer = self._loop.call_later(seconds, give_up)
        self._stop_now.add_done_callback(give_up)
        try:
            await run_until(over, work)
        finally:
            timer.cancel()

    def _busy(self) -> bool:
        """Whether anything is left: a connection, or an application that works on after its response."""
        return self._listening is not None or self._connected() or bool(self._server_state.in_flight)

    def _connected(self) -> bool:
        """Whether a client is connected; a PROXY header or TLS handshake need not be complete."""
        pending = any(acceptor.pending for acceptor in self._acceptors)
        return pending or bool(self._server_state.connections)

    async def _until_empty(self) -> None:
        while True:
            await asyncio.gather(*(acceptor.settled() for acceptor in self._acceptors))
            if not self._busy():
                return
            if self._logged:
                self._log_wait()
            self._changed.clear()
            await self._changed.wait()


async def run_until(end: asyncio.Future[None], work: Coroutine[Any, Any, None]) -> None:
    """Run `work` in a task, and cancel it when `end` is done first; raise what it raises by itself."""
    task = asyncio.get_running_loop().create_task(work)
    try:
        await asyncio.wait((task, end), return_when=asyncio.FIRST_COMPLETED)
    except asyncio.CancelledError:
        task.cancel()
        raise
    if not task.done():
        task.cancel()
        await asyncio.wait((task,), timeout=CANCEL_GRACE)
    elif not task.cancelled():
        task.result()
