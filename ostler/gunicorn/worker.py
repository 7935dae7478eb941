"""Worker classes for gunicorn: `gunicorn -k ostler.gunicorn.Worker main:app`.

A front door of its own, beside the command line: gunicorn is the supervisor here, ostler what serves. It is
no dependency of ostler, and nothing in ostler imports this module.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import logging
import os
import signal
import ssl
import sys
import traceback
from collections.abc import Mapping
from dataclasses import replace
from types import FrameType, MappingProxyType
from typing import Any, ClassVar, NoReturn

from gunicorn import sock
from gunicorn.arbiter import Arbiter
from gunicorn.workers import base

from ostler.errors import OstlerError, SettingsError, StartupError
from ostler.gunicorn.access_log import Account
from ostler.settings.declarations import Settings, variables
from ostler.settings.sources import Sources
from ostler.system.signals import forgive_full_wakeup
from ostler.worker import application, event_loops
from ostler.worker.asgi import Application, Receive, Scope, Send
from ostler.worker.http.cycle import service_unavailable
from ostler.worker.server import Server, tick_seconds
from ostler.worker.server_state import ServerState
from ostler.worker.signal_handlers import IGNORED, MARGIN, STACK_SIGNAL, SignalHandlers
from ostler.worker.tls.credentials import Credentials

_STDERR = 2

_FOREIGN = ("app", "factory", "app_dir", "host", "port", "uds", "fd", "workers", "limit_max_requests_jitter")
"""Settings that mean nothing here, whose variables are left alone: gunicorn listens, loads and supervises."""

_NEVER = sys.maxsize
"""What gunicorn counts to when there is no limit of requests."""


class Worker(base.Worker):  # type: ignore[misc]  # gunicorn has no types
    """Serves ASGI applications under gunicorn, on uvloop and httptools where they are installed.

    Settings of ostler that gunicorn does not have come from `CONFIG_KWARGS`, which wins over gunicorn's, or
    from their `OSTLER_*` variables and TOML keys.
    """

    CONFIG_KWARGS: ClassVar[Mapping[str, object]] = MappingProxyType({})
    """Settings by their names, for subclasses; uvicorn's worker class has the same attribute."""

    def init_process(self) -> None:
        """Set up what has to stand before the application is imported, and go on as gunicorn does.

        Raises:
            SystemExit: a setting is wrong (3); it has been logged.
        """
        _forward_log(self.log.error_log)
        try:
            self._configure()
            # Current before the application is imported: what that makes for "the loop" is for this one.
            self._loop = event_loops.new_event_loop(self._settings)
        except OstlerError as exc:
            self._fail(exc, Arbiter.WORKER_BOOT_ERROR)
        asyncio.set_event_loop(self._loop)
        self._signal_handlers = _GunicornsOrders(self, self._settings)
        super().init_process()

    def _configure(self) -> None:
        cfg = self.cfg
        given = {**from_gunicorn(cfg, self.max_requests), **self.CONFIG_KWARGS}
        ours = {name: value for name, value in given.items() if value is not None}
        hidden = {variable for name in _FOREIGN for variable in variables(name)}
        environ = {name: value for name, value in os.environ.items() if name not in hidden}
        loaded = Sources(environ=environ, directory=os.getcwd(), values=ours).load(complete=False)
        # The lines are gunicorn's to write; whether there are any may be said in either place.
        self._account = Account(self) if loaded.settings.access_log else None
        # How many there are is what a WSGI application's `wsgi.multiprocess` tells of.
        self._settings = replace(loaded.settings, access_log=False, workers=max(1, cfg.workers))
        if self.age == 1:  # once is enough
            overruled = (f"OSTLER_{name.upper()}" for name in ours)
            for name in overruled:
                if name in environ:
                    self.log.warning("variable %s is ignored: under gunicorn its own setting counts", name)
            for warning in loaded.warnings:
                self.log.warning("%s", warning)

    def init_signals(self) -> None:
        """Install ostler's handlers instead of gunicorn's, which raise out of whatever code runs."""
        for number in self.SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        self._signal_handlers.install()

    def load_wsgi(self) -> None:
        """Load the application, which is an ASGI one here.

        Raises:
            SystemExit: what was found is no application (4); it has been logged.
        """
        try:
            found = self.app.wsgi()
        except SyntaxError as exc:
            if not self.cfg.reload:
                raise
            # As under gunicorn's own workers: show it, and wait for the next change.
            self.log.exception(exc)
            if self.reloader is not None and exc.filename is not None:
                self.reloader.add_extra_file(exc.filename)
            found = _failing("".join(traceback.format_exception(exc)))
        try:
            name = getattr(self.app, "app_uri", None) or "the application"
            self.wsgi = application.as_asgi3(found, self._settings, name)
        except StartupError as exc:
            self._fail(exc, Arbiter.APP_LOAD_ERROR)

    def run(self) -> NoReturn:
        """Serve until a signal, a limit or a change of the code asks for the end.

        Raises:
            SystemExit: always; 0, or 3 where the application's start-up failed.
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
        heart = _Heart(self, self._settings, self._signal_handlers, self._account)
        sockets = [listener.sock for listener in self.sockets]
        credentials = _GunicornsCredentials(self._settings, self.cfg) if self.cfg.is_ssl else None
        server = Server(self._settings, self.wsgi, sockets, heart, credentials=credentials)
        self._signal_handlers.drain(server)
        self._loop.add_reader(self.PIPE[0], heart.woken)  # gunicorn's reloader writes there
        await server.serve()

    def handle_abort(self, sig: int, frame: FrameType | None) -> None:
        """SIGABRT, gunicorn's time-out: log where it hangs, call the hooks, and be gone."""
        self.alive = False
        self.log.critical("Worker (pid:%s) is aborted; its stacks:\n%s", os.getpid(), _stacks(frame))
        self.cfg.worker_abort(self)
        self.leave(1)

    def leave(self, code: int) -> NoReturn:
        """End at once, with worker_exit(): a SystemExit could be swallowed by whatever code runs just now."""
        self.log.info("Worker exiting (pid: %s)", os.getpid())
        try:
            self.tmp.close()
            self.cfg.worker_exit(self, self)
        except Exception:  # noqa: BLE001 - a user's hook
            self.log.warning("Exception during worker exit:\n%s", traceback.format_exc())
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError, RuntimeError, AttributeError):
                stream.flush()
        os._exit(code)

    def _fail(self, exc: OstlerError, code: int) -> NoReturn:
        self.log.error("%s", exc)
        sys.exit(code)


class H11Worker(Worker):
    """The same on asyncio and h11: pure Python, as uvicorn's UvicornH11Worker."""

    CONFIG_KWARGS: ClassVar[Mapping[str, object]] = MappingProxyType({"loop": "asyncio", "http": "h11"})


def from_gunicorn(cfg: Any, max_requests: int) -> dict[str, object]:
    """Return what gunicorn's settings say, by the names of ostler's; None where they say nothing."""
    proxied = str(cfg.proxy_protocol).lower() not in ("off", "false", "none")
    return {
        "timeout_keep_alive": cfg.keepalive,
        "timeout_graceful_shutdown": _grace(cfg.graceful_timeout),
        # Sets the pace of the heart only; who judges is gunicorn.
        "timeout_worker_healthcheck": cfg.timeout or None,
        "limit_max_requests": max_requests if max_requests != _NEVER else None,
        "limit_request_head": _head_limit(cfg),
        "proxy_protocol": proxied,
        "forwarded_allow_ips": _peers(cfg, proxied),
        # From gunicorn 24 on, for its own asgi worker; where they are at their defaults, ours count.
        "loop": _unless(cfg, "asgi_loop", "auto"),
        "lifespan": _unless(cfg, "asgi_lifespan", "auto"),
        "root_path": _unless(cfg, "root_path", ""),
    }


def _grace(graceful_timeout: int) -> float:
    # gunicorn kills when its time-out is over: what is left of it then is for cancelling what still runs, and
    # for the application's shutdown.
    return graceful_timeout - min(MARGIN, graceful_timeout / 10)


def _head_limit(cfg: Any) -> int | None:
    # ostler has one limit for the whole head. It has to let pass what either of gunicorn's lets pass.
    needed: int = cfg.limit_request_line + cfg.limit_request_field_size
    return needed if needed > Settings.limit_request_head else None


def _peers(cfg: Any, proxied: bool) -> list[str]:
    """Whom to trust: peers over a Unix socket always, as gunicorn's documentation has it."""
    trusted = _entries(cfg.forwarded_allow_ips)
    if proxied:
        # Here one list is for both. A client that a PROXY header names is never trusted for "*".
        trusted = [*(entry for entry in trusted if entry != "*"), *_entries(cfg.proxy_allow_ips)]
    return [*trusted, "unix:"]


def _entries(value: Any) -> list[str]:
    return value.split(",") if isinstance(value, str) else [str(entry) for entry in value]


def _unless(cfg: Any, name: str, default: str) -> str | None:
    if name not in cfg.settings:
        return None
    value: str = cfg.settings[name].get()
    return None if value == default else value


class _GunicornsCredentials(Credentials):
    """gunicorn's own context instead of ours."""

    def __init__(self, settings: Settings, cfg: Any) -> None:
        self._cfg = cfg
        super().__init__(settings)

    def _make(self) -> ssl.SSLContext:
        return _tls(self._cfg)


def _tls(cfg: Any) -> ssl.SSLContext:
    """Return the context that gunicorn's settings and its ssl_context() hook make.

    Raises:
        StartupError: a file cannot be read, or OpenSSL takes a value for wrong.
        SettingsError: this gunicorn makes no contexts.
    """
    if not hasattr(sock, "ssl_context"):
        raise SettingsError("TLS needs gunicorn 21 or newer: pip install -U gunicorn")
    try:
        context: ssl.SSLContext = sock.ssl_context(cfg)
    except (OSError, ValueError) as exc:  # an SSLError is an OSError
        raise StartupError(
            f"TLS cannot be set up: {exc}; check certfile, keyfile, ca_certs and ciphers"
        ) from exc
    # Whatever http_protocols offers: this is what is spoken.
    context.set_alpn_protocols(["http/1.1"])
    return context


class _GunicornsOrders(SignalHandlers):
    """What gunicorn's signals order, with its hooks; `leave` is how a worker ends that serves nothing yet."""

    def __init__(self, worker: Worker, settings: Settings) -> None:
        super().__init__(settings, _STDERR, supervised=True, leave=lambda: worker.leave(0))
        self._worker = worker
        self._interrupted = False
        self._startup = settings.timeout_worker_startup

    def install(self, *, terminal: bool = False) -> None:
        """Heed gunicorn's signals; with its time-outs on, end a start-up that takes too long."""
        worker = self._worker
        faulthandler.enable(self._stacks)
        faulthandler.register(STACK_SIGNAL, self._stacks, all_threads=True, chain=False)
        # `pkill -HUP gunicorn` and the like reach workers, too: they are for the master.
        for number in IGNORED:
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, self._on_stop)
        signal.signal(signal.SIGQUIT, self._on_quit)
        signal.signal(signal.SIGINT, self._on_quit)
        signal.signal(signal.SIGABRT, worker.handle_abort)
        signal.signal(signal.SIGUSR1, worker.handle_usr1)
        signal.signal(signal.SIGWINCH, worker.handle_winch)
        for number in (signal.SIGTERM, signal.SIGUSR1):
            signal.siginterrupt(number, False)
        # gunicorn does not watch a worker before its first beat.
        if worker.cfg.timeout:
            self.set_deadline(self._startup)

    def drain(self, server: Server) -> None:
        """From now on an order to stop lets this server, on the running loop, drain."""
        self._loop = asyncio.get_running_loop()
        # Its side effect: whatever signal comes wakes the loop (signal.set_wakeup_fd).
        self._loop.add_signal_handler(signal.SIGUSR1, self._worker.handle_usr1, signal.SIGUSR1, None)
        forgive_full_wakeup()
        self._server = server

    def ready(self) -> None:
        """The start-up is over, and was not too long."""
        if not self._draining:
            faulthandler.cancel_dump_traceback_later()

    def over(self) -> None:
        """The server has ended: hooks and threads have what gunicorn gives a worker to end."""
        self._over = True
        self.set_deadline(self._grace + MARGIN)

    def _on_stop(self, number: int, frame: FrameType | None) -> None:
        self._worker.alive = False
        super()._on_stop(number, frame)

    def _on_quit(self, number: int, frame: FrameType | None) -> None:
        self._worker.alive = False
        if not self._interrupted:
            self._interrupted = True
            self._worker.cfg.worker_int(self._worker)
        self._on_stop_now(number, frame)


class _Heart:
    """Tells gunicorn that the event loop comes round, from the first request that could be served to the end.

    A `server.Watcher`, with a timer of its own: gunicorn also watches while the application shuts down.
    """

    def __init__(
        self, worker: Worker, settings: Settings, signal_handlers: _GunicornsOrders, account: Account | None
    ) -> None:
        self._worker = worker
        self._signal_handlers = signal_handlers
        self._account = account
        self._period = tick_seconds(settings)
        self._server_state: ServerState | None = None
        self._orphaned = False

    def ready(self, server_state: ServerState) -> None:
        """The server accepts connections: begin to beat."""
        self._server_state = server_state
        self._signal_handlers.ready()
        if self._account is not None and self._account.wanted:
            server_state.app = self._account.keep(server_state.app)
            server_state.overloaded = self._account.keep(service_unavailable)
        self._beat(server_state.loop)

    def _beat(self, loop: asyncio.AbstractEventLoop) -> None:
        worker = self._worker
        worker.notify()
        if worker.ppid != os.getppid() and not self._orphaned:
            self._orphaned = True
            worker.log.info("Parent changed, shutting down: %s", worker)
            self._signal_handlers.stop()
        loop.call_later(self._period, self._beat, loop)

    def woken(self) -> None:
        """Something was written to gunicorn's pipe: its reloader has seen a change."""
        os.read(self._worker.PIPE[0], 64)
        if self._worker.alive:
            return
        self._signal_handlers.stop()
        # Who waits for the new code does not want to wait for idle connections.
        for connection in tuple(self._server_state.connections if self._server_state is not None else ()):
            connection.cancel()

    def ticked(self, lag: float) -> None:
        """Nothing to do: the beat has its own timer."""

    def stopping(self) -> None:
        """Nothing to do: gunicorn asked for it."""

    def retire(self, reason: str) -> None:
        """A limit is reached: drain, and let gunicorn fork another."""
        self._worker.log.info("%s Terminating process.", reason)
        self._signal_handlers.stop()


class _Forwarder(logging.Handler):
    """Passes records on to gunicorn's logger, whatever handlers and filters that has."""

    def __init__(self, target: logging.Logger) -> None:
        super().__init__()
        self._target = target

    def emit(self, record: logging.LogRecord) -> None:
        self._target.handle(record)


def _forward_log(target: logging.Logger) -> None:
    general = logging.getLogger("ostler")
    if not general.handlers:  # or else a logconfig of gunicorn's says where our lines go
        general.addHandler(_Forwarder(target))
        general.setLevel(target.level)
        general.propagate = False


def _stacks(interrupted: FrameType | None) -> str:
    """Return the stacks of all threads, that of this one as it was interrupted."""
    here = sys._getframe()
    frames = [interrupted if frame is here else frame for frame in sys._current_frames().values()]
    return "\n\n".join(
        "".join(traceback.format_stack(frame)).rstrip() for frame in frames if frame is not None
    )


def _failing(text: str) -> Application:
    """The application that stands in for one that cannot be compiled, until its code changes."""
    body = text.encode()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError("the application has a syntax error")
        headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 500, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return app
