"""Runs the application's start-up and shutdown: the ASGI lifespan protocol, version 2.0."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Literal

from ostler.errors import StartupError
from ostler.logging import setup as log_setup
from ostler.worker.asgi import Application, Message
from ostler.worker.tracebacks import one_line

logger = logging.getLogger("ostler.error.worker")


class Lifespan:
    """Runs the application's lifespan beside the server: `startup` before serving, `shutdown` after."""

    def __init__(self, app: Application, mode: Literal["auto", "on", "off"]) -> None:
        self.state: dict[str, Any] = {}
        """State that the application sets for its requests; each request's scope gets a copy."""
        self._app = app
        self._mode = mode
        self._inbox: asyncio.Queue[Message] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None
        self._phase: Literal["startup", "serving", "shutdown"] = "startup"
        self._answer: asyncio.Future[str | None] | None = None
        self._has_raised = False

    async def startup(self) -> None:
        """Wait until the application has started up.

        Raises:
            StartupError: it reported a failure, or it raised in mode `on`.
        """
        if self._mode == "off":
            return
        logger.info("Waiting for application startup.")
        self._task = asyncio.get_running_loop().create_task(self._run())
        failure = await self._ask({"type": "lifespan.startup"})
        if failure is not None:
            logger.error("Application startup failed. Exiting.")
            raise StartupError(f"application startup failed: {failure}")
        self._phase = "serving"
        logger.info("Application startup complete.")

    async def shutdown(self) -> None:
        """Wait until the application has shut down; a failure is logged and has no other effect."""
        if self._task is None or self._has_raised:
            return
        self._phase = "shutdown"
        logger.info("Waiting for application shutdown.")
        # An application that has returned is not asked, and has nothing to do; the lines are uvicorn's.
        failure = None if self._task.done() else await self._ask({"type": "lifespan.shutdown"})
        if failure is None:
            logger.info("Application shutdown complete.")
        else:
            logger.error("Application shutdown failed. Exiting.")

    async def cancel(self, patience: float) -> None:
        """Cancel the application's task if it still runs, and wait for its end for `patience` seconds."""
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait((self._task,), timeout=patience)

    async def _ask(self, message: Message) -> str | None:
        """Send one message and return the application's answer: None for success, else the failure."""
        self._answer = asyncio.get_running_loop().create_future()
        self._inbox.put_nowait(message)
        answer = await self._answer
        log_setup.revive()  # many applications set up their logging in the start-up
        return answer

    async def _run(self) -> None:
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self.state}
        try:
            await self._app(scope, self._inbox.get, self._send)
        except BaseException as exc:
            if isinstance(exc, asyncio.CancelledError) and (self._answer is None or self._answer.done()):
                raise  # the server has cancelled it, and does not wait for its answer any more
            self._raised(exc)
        finally:
            # An application that returns without an answer needs no start-up and no shutdown.
            self._settle(None)

    def _raised(self, exc: BaseException) -> None:
        self._has_raised = True
        if self._answer is None or self._answer.done():
            # After a "failed" message, the exception is the same failure.
            if self._phase == "serving":
                logger.error("Exception in 'lifespan' protocol\n", exc_info=exc)
            return
        if self._phase == "startup" and self._mode == "auto" and isinstance(exc, Exception):
            logger.info("ASGI 'lifespan' protocol appears unsupported.")
            logger.debug("What it raised, in case it was meant to support it:", exc_info=exc)
            self._settle(None)
            return
        logger.error("Exception in 'lifespan' protocol\n", exc_info=exc)
        self._settle(one_line(exc))

    async def _send(self, message: Message) -> None:
        kind = message["type"]
        if kind == "lifespan.shutdown.failed" and self._phase == "serving":
            return  # a stop cancelled it in its start-up, and it reports that (Starlette does)
        allowed = (f"lifespan.{self._phase}.complete", f"lifespan.{self._phase}.failed")
        if kind not in allowed or self._answer is None or self._answer.done():
            raise RuntimeError(f"lifespan message {kind!r} is out of order: the phase is {self._phase!r}")
        if kind.endswith(".failed"):
            text = str(message.get("message") or "")
            if text:
                logger.error(text)
            lines = text.strip().splitlines()
            self._settle(lines[-1].strip() if lines else "the application gave no reason")
        else:
            self._settle(None)

    def _settle(self, failure: str | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(failure)
