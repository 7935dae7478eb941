"""`ostler.Server`: a server embedded in another program, in its event loop or in a thread."""

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
from ostler.embed.config import set_environment
from ostler.embed.signal_capture import SignalCapture
from ostler.embed.startup import Startup
from ostler.errors import BindError
from ostler.ipc.contract import HURRY_GRACE
from ostler.ipc.drain_delay import NOTICE, DrainDelay, StopStep
from ostler.logging import setup as log_setup
from ostler.records import record
from ostler.settings.declarations import Settings
from ostler.system import controlling_terminal, sockets
from ostler.system.sockets import Listener
from ostler.worker import application, event_loops, server
from ostler.worker.server_state import ServerState

logger = logging.getLogger("ostler.error.worker")


class Server:
    """Serves one application in this process, once.

    `await serve()` serves in the running event loop, `run()` in a new one. `started` can be awaited, tested,
    or waited for from another thread. `stop()` may be called from any thread at any time. At the end the
    process is as before, except for the configuration of ostler's loggers and the variables of `env_file`.

    Args:
        config: the settings, an `ostler.Config` or `ostler.Settings`. Settings about workers have no effect.
        signals: whether SIGINT and SIGTERM stop the server, if it serves in the main thread.
        configure_logging: whether to configure ostler's loggers as the settings say. No other logger is
            changed.

    Attributes:
        config: the settings that were given.
        started: whether the server has started: `await server.started`, `server.started.wait(timeout)` from
            another thread, or `if server.started`.

    Raises:
        TypeError: `config` is something else, such as the application itself.
    """

    def __init__(self, config: Settings, *, signals: bool = True, configure_logging: bool = True) -> None:
        if not isinstance(config, Settings):
            raise TypeError(f"expected ostler.Config(app, ...), not {type(config).__name__}")
        self.config = config
        self.started = Startup()
        self._signals = signals
        self._configure_logging = configure_logging
        self._listeners: list[Listener] = []
        self._addresses: list[object] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._server: server.Server | None = None
        self._used = False
        self._stopping = False
        self._stopping_now = False
        self._stream_grace: float | None = None
        self._drain_delay = DrainDelay()
        self._drain_timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<ostler.Server {self.config.app!r} started={bool(self.started)} stop={self._stopping}>"

    @property
    def sockets(self) -> tuple[socket.socket, ...]:
        """The listening sockets; empty before they are bound. They are closed when the server drains."""
        return tuple(listener.socket for listener in self._listeners)

    @property
    def port(self) -> int | None:
        """The TCP port on which the server listens; None on a Unix socket, and before it is bound."""
        found = (name[1] for name in self._addresses if isinstance(name, tuple))
        return next(found, None)

    @property
    def servers(self) -> list[Bound]:
        """The listening sockets in uvicorn's form: `server.servers[0].sockets[0].getsockname()`."""
        return [Bound((sock,)) for sock in self.sockets]

    @property
    def should_exit(self) -> bool:
        """Whether `stop()` or `stop_now()` was called; setting it to True calls `stop()`, as in uvicorn."""
        return self._stopping

    @should_exit.setter
    def should_exit(self, value: bool) -> None:
        if value:
            self.stop()

    @property
    def force_exit(self) -> bool:
        """Whether `stop_now()` was called; setting it to True calls it, as in uvicorn."""
        return self._stopping_now

    @force_exit.setter
    def force_exit(self, value: bool) -> None:
        if value:
            self.stop_now()

    def stop(self) -> None:
        """Stop gracefully: finish the requests in flight, shut the application down, end `serve()`.

        Returns at once. May be called from any thread, from a signal handler, before `serve()` and
        repeatedly.
        """
        self._stopping = True
        self._schedule_stop()

    def stop_now(self) -> None:
        """Stop at once: cancel the requests in flight, and skip the application's shutdown.

        Returns at once. May be called from any thread, from a signal handler, before `serve()` and
        repeatedly.
        """
        self._stopping = self._stopping_now = True
        self._schedule_stop()

    def run(self, sockets: Sequence[socket.socket] | None = None) -> None:
        """Serve in a new event loop until a signal or `stop()`; the setting `loop` says of which kind.

        A signal that stopped the server is not raised again: the program is the server's.

        Args:
            sockets: as for `serve`.

        Raises:
            StartupError: as `serve` does.
            BindError: as `serve` does.
            SettingsError: as `serve` does.
            RuntimeError: an event loop already runs in this thread, or this server has served before.
        """
        import_guard.refuse("ostler.Server.run()")
        if asyncio._get_running_loop() is not None:
            raise RuntimeError("an event loop runs in this thread: await server.serve() instead of run()")
        set_environment(self.config)
        loop = event_loops.new_event_loop(self.config)
        asyncio.set_event_loop(loop)
        try:
            loop.run_until_complete(self._serve_with_signals(sockets))
        finally:
            event_loops.close(loop)

    async def serve(self, sockets: Sequence[socket.socket] | None = None) -> None:
        """Start the application, serve until a signal or `stop()`, drain, and shut the application down.

        In the main thread SIGINT and SIGTERM drain the server, and a second SIGINT stops it at once. When the
        server has ended, the signal is raised again, so that the program reacts as it would without a server.
        If the task is cancelled, the server drains before the task ends; if it is cancelled again, the server
        stops at once.

        Args:
            sockets: bound sockets to serve on instead of the addresses in the settings. They are closed at
                the end.

        Raises:
            StartupError: the application could not be imported, or its lifespan start-up failed.
            BindError: the server cannot listen on an address.
            SettingsError: the HTTP parser that the settings name is not installed.
            RuntimeError: this server has served before.
        """
        capture = await self._serve_with_signals(sockets)
        if capture is not None:
            capture.pass_on()

    async def _serve_with_signals(self, given: Sequence[socket.socket] | None) -> SignalCapture | None:
        """Serve while signals are captured; return the capture, whose signals have not been passed on yet."""
        if self._used:
            raise RuntimeError("an ostler.Server serves once: make another one")
        self._used = True
        self._loop = asyncio.get_running_loop()
        capture = None
        if self._signals and threading.current_thread() is threading.main_thread():
            capture = SignalCapture(self._on_signal)
        with capture or contextlib.nullcontext():
            await self._stop_if_cancelled(self._loop.create_task(self._serve(given)))
        return capture

    async def _stop_if_cancelled(self, work: asyncio.Task[None]) -> None:
        """Wait until `work` ends. If cancelled meanwhile, stop; if cancelled again, stop at once."""
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
            if self._stopping:
                return
            if self._configure_logging:
                log_setup.configure(self.config)
            else:
                log_setup.link_areas()
            self._listen(given)
            with _app_dir_on_path(self.config):
                await self._serve_application()
        except Exception as exc:
            failure = exc
            raise
        finally:
            for listener in self._listeners:
                listener.end()
            for sock in given or ():
                sock.close()
            self.started.settle(up=False, failure=failure)

    async def _serve_application(self) -> None:
        set_environment(self.config)
        app = application.load(self.config)
        owns = all(listener.ends_with_us for listener in self._listeners)
        serving = server.Server(self.config, app, self.sockets, _Watcher(self), owns_sockets=owns)
        self._server = serving
        self._stop_if_asked()  # a stop may have come before there was a server
        try:
            await serving.serve()
        finally:
            self._server = None
            if self._drain_timer is not None:
                self._drain_timer.cancel()
            await serving.clear()

    def _listen(self, given: Sequence[socket.socket] | None) -> None:
        tls.check(self.config, os.getcwd())
        if given is None:
            self._listeners = sockets.open_listeners(self.config)
        else:
            self._listeners = [Listener(_let_listen(sock, self.config.backlog), ours=False) for sock in given]
        self._addresses = [sock.getsockname() for sock in self.sockets]
        if given is None:
            hint = "(Press CTRL+C to quit)"
            scheme = "https" if tls.wanted(self.config) else "http"
            for listener in self._listeners:
                logger.info("Ostler running on %s %s", listener.url(scheme), hint)

    # --- stopping ---

    def _schedule_stop(self) -> None:
        """Have the loop stop the server; from any thread or a signal handler."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: the server has ended
                self._loop.call_soon_threadsafe(self._stop_if_asked)

    def _stop_if_asked(self) -> None:
        """Stop the server as `stop()` or `stop_now()` has asked; in the loop."""
        if self._server is not None and self._stopping_now:
            self._server.stop_now()
        elif self._server is not None and self._stopping:
            self._server.withdraw()
            self._server.stop(stream_grace=self._stream_grace)

    def _on_signal(self, number: int) -> None:
        """Stop as the command does: withdraw first if there is a drain delay; at a second SIGINT, at once."""
        if number == signal.SIGINT and self._stopping:
            self.stop_now()
            return
        if number == signal.SIGINT and controlling_terminal.in_foreground():
            self._stream_grace = HURRY_GRACE
        step = self._drain_delay.stop(self.config.drain_delay, serving=bool(self.started))
        if step is StopStep.WITHDRAW and self._loop is not None:
            self._loop.call_soon_threadsafe(self._withdraw)
        else:
            self.stop()

    def _withdraw(self) -> None:
        if self._server is None or not self._server.withdraw():
            self.stop()
            return
        logger.info(NOTICE, self.config.drain_delay)
        assert self._loop is not None
        self._drain_timer = self._loop.call_later(self.config.drain_delay, self.stop)


@record
class Bound:
    """One listener in uvicorn's form: an object that has the listener's sockets."""

    sockets: tuple[socket.socket, ...]


class _Watcher:
    """A `server.Watcher` that reports the start, and stops the server at a limit.

    No arbiter could start a worker in its place.
    """

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


def _let_listen(sock: socket.socket, backlog: int) -> socket.socket:
    """Return `sock`, which is bound, listening.

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
def _app_dir_on_path(settings: Settings) -> Iterator[None]:
    """Put the setting `app_dir` on `sys.path`, as the command does, if the application is to be imported."""
    if not isinstance(settings.app, str):
        yield
        return
    entry = os.path.join(os.getcwd(), settings.app_dir)
    sys.path.insert(0, entry)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # the application has removed it
            sys.path.remove(entry)
