"""Worker classes for gunicorn: `gunicorn -k ostler.gunicorn.Worker main:app`.

gunicorn is the supervisor, and each of its workers is an ostler server. gunicorn is not a dependency of
ostler, so nothing else in ostler imports this package.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import logging
import os
import signal
import sys
import traceback
from collections.abc import Mapping
from dataclasses import replace
from types import FrameType, MappingProxyType
from typing import ClassVar, NoReturn

from gunicorn.arbiter import Arbiter
from gunicorn.workers import base

from ostler.errors import OstlerError, StartupError
from ostler.gunicorn.access_log import GunicornAccessLog
from ostler.gunicorn.settings import GunicornCredentials, load
from ostler.ipc.contract import IGNORED_BY_WORKERS, STACK_SIGNAL, WORKER_EXIT_MARGIN
from ostler.logging import setup as log_setup
from ostler.settings.declarations import Settings
from ostler.system.signals import forgive_full_wakeup
from ostler.worker import application, event_loops
from ostler.worker.asgi import Application, Receive, Scope, Send
from ostler.worker.http.cycle import service_unavailable
from ostler.worker.server import Server, tick_seconds
from ostler.worker.server_state import ServerState
from ostler.worker.signal_handlers import SignalHandlers

_STDERR = 2


class Worker(base.Worker):  # type: ignore[misc]  # gunicorn has no types
    """A gunicorn worker that serves ASGI applications, on uvloop and httptools where they are installed.

    Settings that gunicorn does not have come from `CONFIG_KWARGS`, from `OSTLER_*` variables or from TOML
    keys. `CONFIG_KWARGS` also overrides gunicorn's own settings.
    """

    CONFIG_KWARGS: ClassVar[Mapping[str, object]] = MappingProxyType({})
    """Settings of ostler by name, for subclasses to set; uvicorn's worker class has the same attribute."""

    def init_process(self) -> None:
        """Set up logging, settings, event loop and signals, then let gunicorn import the application.

        Raises:
            SystemExit: a setting is wrong (3); it has been logged.
        """
        _forward_log(self.log.error_log)
        try:
            self._configure()
            # Made current before the application is imported: what it creates at import uses this loop.
            self._loop = event_loops.new_event_loop(self._settings)
        except OstlerError as exc:
            self._fail(exc, Arbiter.WORKER_BOOT_ERROR)
        asyncio.set_event_loop(self._loop)
        self._signal_handlers = _GunicornSignalHandlers(self, self._settings)
        super().init_process()

    def _configure(self) -> None:
        loaded, warnings = load(self.cfg, self.max_requests, self.CONFIG_KWARGS)
        # gunicorn's logger writes the access log; the settings of either can switch it off.
        self._access_log = GunicornAccessLog(self) if loaded.access_log else None
        # `workers` is what a WSGI application reads as `wsgi.multiprocess`.
        self._settings = replace(loaded, access_log=False, workers=max(1, self.cfg.workers))
        if self.age == 1:  # the first worker: the others have the same settings
            for warning in warnings:
                self.log.warning("%s", warning)

    def init_signals(self) -> None:
        """Install ostler's handlers: gunicorn's raise SystemExit in the code that the signal interrupts."""
        for number in self.SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        self._signal_handlers.install()

    def load_wsgi(self) -> None:
        """Load the ASGI application.

        Raises:
            SystemExit: the object that was loaded is no application (4); it has been logged.
        """
        try:
            found = self.app.wsgi()
        except SyntaxError as exc:
            if not self.cfg.reload:
                raise
            # As gunicorn's own workers do: serve the traceback, and wait for the next change.
            self.log.exception(exc)
            if self.reloader is not None and exc.filename is not None:
                self.reloader.add_extra_file(exc.filename)
            found = _error_application("".join(traceback.format_exception(exc)))
        try:
            name = getattr(self.app, "app_uri", None) or "the application"
            self.wsgi = application.as_asgi3(found, self._settings, name)
        except StartupError as exc:
            self._fail(exc, Arbiter.APP_LOAD_ERROR)

    def run(self) -> NoReturn:
        """Serve until a signal, a limit or a change of the code stops the worker.

        Raises:
            SystemExit: always; 0, or 3 if the application's start-up failed.
        """
        try:
            self._loop.run_until_complete(self._serve())
        except OstlerError as exc:
            self._fail(exc, Arbiter.WORKER_BOOT_ERROR)
        finally:
            self._signal_handlers.over()
            event_loops.close(self._loop)
        sys.exit(0)

    async def _serve(self) -> None:
        heartbeat = _GunicornHeartbeat(self, self._settings, self._signal_handlers, self._access_log)
        sockets = [listener.sock for listener in self.sockets]
        credentials = GunicornCredentials(self._settings, self.cfg) if self.cfg.is_ssl else None
        server = Server(self._settings, self.wsgi, sockets, heartbeat, credentials=credentials)
        self._signal_handlers.drain(server)
        self._loop.add_reader(self.PIPE[0], heartbeat.on_pipe_readable)  # gunicorn's reloader writes there
        await server.serve()

    def handle_abort(self, sig: int, frame: FrameType | None) -> None:
        """On SIGABRT, gunicorn's time-out: log the stacks of all threads, call the hooks, and exit."""
        self.alive = False
        self.log.critical("Worker (pid:%s) is aborted; its stacks:\n%s", os.getpid(), _stacks(frame))
        self.cfg.worker_abort(self)
        self.leave(1)

    def leave(self, code: int) -> NoReturn:
        """Call the hook worker_exit() and exit at once: the interrupted code could catch a SystemExit."""
        self.log.info("Worker exiting (pid: %s)", os.getpid())
        try:
            self.tmp.close()
            self.cfg.worker_exit(self, self)
        except Exception:  # noqa: BLE001  # a user's hook raises anything
            self.log.warning("Exception during worker exit:\n%s", traceback.format_exc())
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError, RuntimeError, AttributeError):
                stream.flush()
        os._exit(code)

    def _fail(self, exc: OstlerError, code: int) -> NoReturn:
        self.log.error("%s", exc)
        sys.exit(code)


class H11Worker(Worker):
    """The same worker on asyncio and h11, which are pure Python; like uvicorn's UvicornH11Worker."""

    CONFIG_KWARGS: ClassVar[Mapping[str, object]] = MappingProxyType({"loop": "asyncio", "http": "h11"})


class _GunicornSignalHandlers(SignalHandlers):
    """Handlers for the signals that gunicorn's arbiter sends to a worker; they also call gunicorn's hooks."""

    def __init__(self, worker: Worker, settings: Settings) -> None:
        super().__init__(settings, _STDERR, supervised=True, leave=lambda: worker.leave(0))
        self._worker = worker
        self._interrupted = False
        self._startup = settings.timeout_worker_startup

    def install(self, *, terminal: bool = False) -> None:
        """Install the handlers; if gunicorn has a time-out, set the deadline of the start-up."""
        worker = self._worker
        faulthandler.enable(self._stacks)
        faulthandler.register(STACK_SIGNAL, self._stacks, all_threads=True, chain=False)
        # `pkill -HUP gunicorn` reaches the workers as well, but is meant for the master.
        for number in IGNORED_BY_WORKERS:
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, self._on_stop)
        signal.signal(signal.SIGQUIT, self._on_quit)
        signal.signal(signal.SIGINT, self._on_quit)
        signal.signal(signal.SIGABRT, worker.handle_abort)
        signal.signal(signal.SIGUSR1, worker.handle_usr1)
        signal.signal(signal.SIGWINCH, worker.handle_winch)
        for number in (signal.SIGTERM, signal.SIGUSR1):
            signal.siginterrupt(number, False)
        # gunicorn does not watch a worker before its first heartbeat.
        if worker.cfg.timeout:
            self.set_deadline(self._startup)

    def drain(self, server: Server) -> None:
        """Let orders to stop drain this server, which runs on the running loop."""
        self._loop = asyncio.get_running_loop()
        # For its side effect: every signal now wakes the loop (signal.set_wakeup_fd).
        self._loop.add_signal_handler(signal.SIGUSR1, self._worker.handle_usr1, signal.SIGUSR1, None)
        forgive_full_wakeup()
        self._server = server

    def ready(self) -> None:
        """Take back the deadline of the start-up, which has succeeded."""
        if not self._draining:
            faulthandler.cancel_dump_traceback_later()

    def over(self) -> None:
        """Give hooks and threads as long as gunicorn's graceful time-out, now that the server has ended."""
        self._over = True
        self.set_deadline(self._grace + WORKER_EXIT_MARGIN)

    def _on_stop(self, number: int, frame: FrameType | None) -> None:
        self._worker.alive = False
        super()._on_stop(number, frame)

    def _on_quit(self, number: int, frame: FrameType | None) -> None:
        self._worker.alive = False
        if not self._interrupted:
            self._interrupted = True
            self._worker.cfg.worker_int(self._worker)
        self._on_stop_now(number, frame)


class _GunicornHeartbeat:
    """Touches gunicorn's heartbeat file from the event loop, from the start of serving until the end.

    A `server.Watcher`. It has a timer of its own, because gunicorn also watches a worker while its
    application shuts down, when the server no longer calls `ticked`.
    """

    def __init__(
        self,
        worker: Worker,
        settings: Settings,
        signal_handlers: _GunicornSignalHandlers,
        access_log: GunicornAccessLog | None,
    ) -> None:
        self._worker = worker
        self._signal_handlers = signal_handlers
        self._access_log = access_log
        self._period = tick_seconds(settings)
        self._server_state: ServerState | None = None
        self._orphaned = False

    def ready(self, server_state: ServerState) -> None:
        """Send the first heartbeat: the server accepts connections."""
        self._server_state = server_state
        self._signal_handlers.ready()
        if self._access_log is not None and self._access_log.wanted:
            server_state.app = self._access_log.wrap(server_state.app)
            server_state.overloaded = self._access_log.wrap(service_unavailable)
        self._beat(server_state.loop)

    def _beat(self, loop: asyncio.AbstractEventLoop) -> None:
        worker = self._worker
        worker.notify()
        if worker.ppid != os.getppid() and not self._orphaned:
            self._orphaned = True
            worker.log.info("Parent changed, shutting down: %s", worker)
            self._signal_handlers.stop()
        loop.call_later(self._period, self._beat, loop)

    def on_pipe_readable(self) -> None:
        """Stop if gunicorn's reloader has seen a change: it then writes to gunicorn's pipe."""
        os.read(self._worker.PIPE[0], 64)
        if self._worker.alive:
            return
        self._signal_handlers.stop()
        # Idle connections are closed at once: the developer waits for the new code.
        for connection in tuple(self._server_state.connections if self._server_state is not None else ()):
            connection.cancel()

    def ticked(self, lag: float) -> None:
        """Do nothing: the heartbeat has its own timer."""

    def stopping(self) -> None:
        """Do nothing: gunicorn has asked for the stop."""

    def retire(self, reason: str) -> None:
        """Drain, because a limit is reached; gunicorn then forks another worker."""
        self._worker.log.info("%s Terminating process.", reason)
        self._signal_handlers.stop()


class _ForwardingHandler(logging.Handler):
    """Passes records to gunicorn's logger, which applies its own filters and handlers."""

    def __init__(self, target: logging.Logger) -> None:
        super().__init__()
        self._target = target

    def emit(self, record: logging.LogRecord) -> None:
        self._target.handle(record)


def _forward_log(target: logging.Logger) -> None:
    general = logging.getLogger("ostler")
    if not general.handlers:  # otherwise gunicorn's logconfig has configured ostler's loggers
        general.addHandler(_ForwardingHandler(target))
        general.setLevel(target.level)
        general.propagate = False
    log_setup.link_areas()


def _stacks(interrupted: FrameType | None) -> str:
    """Return the stacks of all threads; of this thread, the stack that the signal interrupted."""
    here = sys._getframe()
    frames = [interrupted if frame is here else frame for frame in sys._current_frames().values()]
    return "\n\n".join(
        "".join(traceback.format_stack(frame)).rstrip() for frame in frames if frame is not None
    )


def _error_application(text: str) -> Application:
    """Return an application that answers every request with `text` and status 500."""
    body = text.encode()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError("the application has a syntax error")
        headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 500, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return app
