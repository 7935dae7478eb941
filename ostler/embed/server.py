"""A server inside of somebody else's program: in a loop that runs already, or in a thread."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Sequence

from ostler import import_guard, tls
from ostler.embed.signal_capture import Captured
from ostler.embed.startup import Started
from ostler.errors import BindError
from ostler.logging import setup as log_setup
from ostler.records import record
from ostler.settings.declarations import Settings
from ostler.system import sockets
from ostler.system.sockets import Listener
from ostler.worker import application, event_loops, server
from ostler.worker.server_state import ServerState

logger = logging.getLogger("ostler.error")


class Server:
    """Serves one application in this process, once: `await serve()` in a running loop, `run()` in a new one.

    `started` can be awaited, tested, or waited for from another thread; `stop()` may be called from any
    thread at any time. Nothing of the process is left changed at the end but the logging of ostler.

    Args:
        config: an `ostler.Config` or `ostler.Settings`; what concerns workers does not count.
        signals: heed SIGINT and SIGTERM while serving in the main thread.
        configure_logging: set ostler's loggers up, as the settings say; no other logger is touched.
    """

    def __init__(self, config: Settings, *, signals: bool = True, configure_logging: bool = True) -> None:
        if not isinstance(config, Settings):
            raise TypeError(f"expected ostler.Config(app, ...), not {type(config).__name__}")
        self.config = config
        self.started = Started()
        self._signals = signals
        self._configure_logging = configure_logging
        self._listeners: list[Listener] = []
        self._addresses: list[object] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._server: server.Server | None = None
        self._begun = False
        self._stop = False
        self._now = False
        self._withdrawn = False

    def __repr__(self) -> str:
        return f"<ostler.Server {self.config.app!r} started={bool(self.started)} stop={self._stop}>"

    @property
    def sockets(self) -> tuple[socket.socket, ...]:
        """The listening sockets, once they are bound; closed when the server drains."""
        return tuple(listener.socket for listener in self._listeners)

    @property
    def port(self) -> int | None:
        """The TCP port that is listened on, once it is bound; None on a Unix socket."""
        found = (name[1] for name in self._addresses if isinstance(name, tuple))
        return next(found, None)

    @property
    def servers(self) -> list[Bound]:
        """The listening sockets as uvicorn has them: `servers[0].sockets[0].getsockname()`."""
        return [Bound((sock,)) for sock in self.sockets]

    @property
    def should_exit(self) -> bool:
        """Whether the server was asked to stop; setting it to True asks, as with uvicorn."""
        return self._stop

    @should_exit.setter
    def should_exit(self, value: bool) -> None:
        if value:
            self.stop()

    @property
    def force_exit(self) -> bool:
        """Whether the server was asked to stop at once; setting it to True asks, as with uvicorn."""
        return self._now

    @force_exit.setter
    def force_exit(self, value: bool) -> None:
        if value:
            self.stop_now()

    def stop(self) -> None:
        """Drain: finish what is in flight, shut the application down, and return from `serve()`."""
        self._stop = True
        self._tell()

    def stop_now(self) -> None:
        """End at once: what is in flight is cancelled, and the application not asked to shut down."""
        self._stop = self._now = True
        self._tell()

    def run(self, sockets: Sequence[socket.socket] | None = None) -> None:
        """Serve in a new event loop, of the kind that the settings ask for, until a signal or `stop()`.

        Raises:
            RuntimeError: an event loop runs in this thread already.
            OstlerError: as `serve` does.
        """
        import_guard.refuse("ostler.Server.run()")
        if asyncio._get_running_loop() is not None:
            raise RuntimeError("an event loop runs in this thread: await server.serve() instead of run()")
        loop = event_loops.new_event_loop(self.config)
        asyncio.set_event_loop(loop)
        try:
            # What ended the server has been heeded: nobody else is to hear of it.
            loop.run_until_complete(self._serve_heeding(sockets))
        finally:
            event_loops.close(loop)

    async def serve(self, sockets: Sequence[socket.socket] | None = None) -> None:
        """Start up, serve until a signal or `stop()`, drain, shut down.

        In the main thread SIGINT and SIGTERM let it drain, a second SIGINT ends it at once; once it has
        ended, the signal is raised again, for the effect on the program that it would have had without a
        server. A task that is cancelled drains before it ends; cancelled once more, it stops at once.
        `sockets` are bound ones to serve on in place of what the settings say; they are closed at the end.

        Raises:
            StartupError: the application could not be imported, or its lifespan start-up failed.
            BindError: an address cannot be listened on.
            SettingsError: the HTTP parser that is asked for is not installed.
            RuntimeError: this server has served before.
        """
        captured = await self._serve_heeding(sockets)
        if captured is not None:
            captured.pass_on()

    async def _serve_heeding(self, given: Sequence[socket.socket] | None) -> Captured | None:
        if self._begun:
            raise RuntimeError("an ostler.Server serves once: make another one")
        self._begun = True
        self._loop = asyncio.get_running_loop()
        captured = None
        if self._signals and threading.current_thread() is threading.main_thread():
            captured = Captured(self._ordered)
        with captured or contextlib.nullcontext():
            await self._unless_cancelled(self._loop.create_task(self._serve(given)))
        return captured

    async def _unless_cancelled(self, work: asyncio.Task[None]) -> None:
        """Wait for the work's end; being cancelled is an order to stop, and then another to stop at once."""
        cancelled: asyncio.CancelledError | None = None
        while not work.done():
            try:
                await asyncio.wait((work,))
            except asyncio.CancelledError as exc:
                if cancelled is None:
                    self.stop()
                else:
                    self.stop_now()
                cancelled = exc
        if cancelled is not None:
            if not work.cancelled():
                work.exception()
            raise cancelled
        work.result()

    async def _serve(self, given: Sequence[socket.socket] | None) -> None:
        failure = None
        try:
            if self._stop:
                return
            if self._configure_logging:
                log_setup.configure(self.config)
            self._listen(given)
            with _on_path(self.config):
                await self._serve_application()
        except Exception as exc:
            failure = exc
            raise
        finally:
            for listener in self._listeners:
                listener.close()
            for sock in given or ():
                sock.close()
            self.started.settle(up=False, failure=failure)

    async def _serve_application(self) -> None:
        app = application.load_or_say_why(self.config)
        serving = server.Server(self.config, app, self.sockets, _Watcher(self))
        self._server = serving
        self._apply()
        try:
            await serving.serve()
        finally:
            self._server = None
            await serving.clear()

    def _listen(self, given: Sequence[socket.socket] | None) -> None:
        tls.check(self.config, os.getcwd())
        if given is None:
            self._listeners = sockets.open_listeners(self.config)
        else:
            self._listeners = [Listener(_listening(sock, self.config.backlog)) for sock in given]
        self._addresses = [sock.getsockname() for sock in self.sockets]
        if given is None:
            hint = "(Press CTRL+C to quit)"
            scheme = "https" if tls.wanted(self.config) else "http"
            for listener in self._listeners:
                logger.info("Ostler running on %s %s", listener.url(scheme), hint)

    # --- orders, from any thread or a signal handler ---

    def _tell(self) -> None:
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: it has ended already
                self._loop.call_soon_threadsafe(self._apply)

    def _apply(self) -> None:
        """In the loop: pass on what was asked for, also before there was a server to ask."""
        if self._server is not None and self._now:
            self._server.stop_now()
        elif self._server is not None and self._stop:
            self._server.stop()

    def _ordered(self, number: int) -> None:
        """A signal: withdraw first where the settings have a drain delay, as `ostler` does."""
        if number == signal.SIGINT and self._stop:
            self.stop_now()
        elif self.config.drain_delay and not self._withdrawn and self.started and self._loop is not None:
            self._withdrawn = True
            self._loop.call_soon_threadsafe(self._withdraw)
        else:
            self.stop()

    def _withdraw(self) -> None:
        if self._server is None or not self._server.withdraw():
            self.stop()
            return
        text = "Draining in %g s: until then, health checks say 503 and requests are served"
        logger.info(text, self.config.drain_delay)
        assert self._loop is not None
        self._loop.call_later(self.config.drain_delay, self.stop)


@record
class Bound:
    """What uvicorn has for each listener: an object with its sockets."""

    sockets: tuple[socket.socket, ...]


class _Watcher:
    """Watches for an embedded server (`server.Watcher`), which stops at a limit: nobody can replace it."""

    def __init__(self, embedded: Server) -> None:
        self._embedded = embedded

    def ready(self, server_state: ServerState) -> None:
        self._embedded.started.settle(up=True)

    def ticked(self, lag: float) -> None:
        pass

    def stopping(self) -> None:
        pass

    def retire(self, reason: str) -> None:
        logger.info("%s Shutting down.", reason)
        self._embedded.stop()


def _listening(sock: socket.socket, backlog: int) -> socket.socket:
    """Let a socket that somebody has bound listen, unless it does.

    Raises:
        BindError: it cannot listen.
    """
    try:
        if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            sock.listen(backlog)
    except OSError as exc:
        raise BindError(f"cannot listen on the socket that was given: {exc.strerror}") from exc
    return sock


@contextlib.contextmanager
def _on_path(settings: Settings) -> Iterator[None]:
    """Let the application be imported from where `ostler` would; what is already there needs no path."""
    if not isinstance(settings.app, str):
        yield
        return
    entry = os.path.join(os.getcwd(), settings.app_dir)
    sys.path.insert(0, entry)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # the application has tidied up itself
            sys.path.remove(entry)
