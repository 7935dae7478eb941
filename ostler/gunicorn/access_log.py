"""The access log of `ostler.gunicorn`: gunicorn's logger gets the request, the response, and what they took.

So `--access-logformat`, syslog, statsd and logger classes of one's own work as with gunicorn's own workers.
All of it wraps the application, and only where somebody wants to know: the server itself pays nothing.
"""

from __future__ import annotations

import asyncio
import http
import time
from collections.abc import Coroutine
from datetime import timedelta
from typing import Any
from urllib.parse import quote

from gunicorn import glogging

from ostler.worker.asgi import Application, ClientDisconnected, Message, Receive, Scope, Send

_CLIENT_CLOSED = 499
"""What nginx logs where the client was gone before there was an answer."""
_BODILESS = (204, 304)


class Account:
    """Keeps account of what an application answers, for gunicorn's logger and its request hooks."""

    def __init__(self, worker: Any) -> None:
        cfg = worker.cfg
        self._worker = worker
        # A class of one's own, statsd's for one, may count what is not logged.
        own = type(worker.log).access is not glogging.Logger.access
        self._logs = own or bool(
            cfg.accesslog
            or cfg.logconfig
            or cfg.logconfig_dict
            or getattr(cfg, "logconfig_json", None)
            or (cfg.syslog and not cfg.disable_redirect_access_to_syslog)
        )
        self._pre = _hook(cfg, "pre_request")
        self._post = _hook(cfg, "post_request")

    @property
    def wanted(self) -> bool:
        """Whether there is anybody to tell."""
        return self._logs or self._pre is not None or self._post is not None

    def keep(self, app: Application) -> Application:
        """Return `app` with every request accounted for."""

        def accounted(scope: Scope, receive: Receive, send: Send) -> Coroutine[Any, Any, None]:
            return _Exchange(self, scope, receive, send).run(app)

        return accounted

    def begun(self, request: Request) -> None:
        """A request is going to be answered."""
        if self._pre is not None:
            self._pre(self._worker, request)

    def ended(self, request: Request, response: Response, seconds: float) -> None:
        """A response is out, or given up; what a logger or hook raises is logged, and hurts nobody."""
        environ = request.environ()
        try:
            if self._logs:
                self._worker.log.access(response, request, environ, timedelta(seconds=seconds))
            if self._post is not None:
                self._post(self._worker, request, environ, response)
        except Exception:  # a user's hook or logger
            self._worker.log.exception("Exception in the access log or in post_request")


class Request:
    """A request, with what loggers and hooks read of gunicorn's own.

    Read before the application sees the scope: frameworks change it as they find their way.
    """

    def __init__(self, scope: Scope) -> None:
        self.root_path = scope["root_path"]
        self.http_version = scope["http_version"]
        self.server = scope["server"]
        # gunicorn's target is as the client sent it; ASGI's begins with the root path.
        target = scope["raw_path"].decode("latin-1").removeprefix(self.root_path)
        self.method = scope.get("method", "GET")
        self.query = scope["query_string"].decode("latin-1")
        self.uri = f"{target}?{self.query}" if self.query else target
        path = scope["path"].removeprefix(self.root_path)
        # An escaped line feed would begin a line of its own in the log.
        self.path = path if path.isprintable() else quote(path)
        self.fragment = ""
        major, _, minor = self.http_version.partition(".")
        self.version = (int(major), int(minor or 0))
        self.headers = [(n.decode("latin-1").upper(), v.decode("latin-1")) for n, v in scope["headers"]]
        self.scheme = scope["scheme"]
        self.peer_addr = scope["client"]
        self.remote_addr = scope["client"]

    def environ(self) -> dict[str, Any]:
        """The variables of CGI (RFC 3875, section 4.1), as far as a log may want them."""
        environ: dict[str, Any] = {
            "REQUEST_METHOD": self.method,
            "RAW_URI": self.uri,
            "SERVER_PROTOCOL": f"HTTP/{self.http_version}",
            "SCRIPT_NAME": self.root_path,
            "PATH_INFO": self.path,
            "QUERY_STRING": self.query,
            "wsgi.url_scheme": self.scheme,
        }
        if self.peer_addr:
            environ["REMOTE_ADDR"] = self.peer_addr[0]
            environ["REMOTE_PORT"] = str(self.peer_addr[1])
        if self.server:
            environ["SERVER_NAME"] = self.server[0]
            environ["SERVER_PORT"] = str(self.server[1] or "")
        for name, value in self.headers:
            key = name.replace("-", "_")
            if key not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
                key = f"HTTP_{key}"
            environ[key] = f"{environ[key]},{value}" if key in environ else value
        return environ


class Response:
    """A response, with what loggers and hooks read of gunicorn's own."""

    def __init__(self) -> None:
        self.status_code = 0
        """0 until it has started."""
        self.headers: list[tuple[str, str]] = []
        self.sent = 0
        """Bytes of the body that were sent."""

    @property
    def status(self) -> str:
        """Code and phrase, as in a status line."""
        try:
            return f"{self.status_code} {http.HTTPStatus(self.status_code).phrase}"
        except ValueError:
            return (
                f"{self.status_code} Client Closed Request"
                if self.status_code == _CLIENT_CLOSED
                else (f"{self.status_code} Unknown")
            )


class _Exchange:
    """One request on its way through the application."""

    def __init__(self, account: Account, scope: Scope, receive: Receive, send: Send) -> None:
        self._account = account
        self._scope = scope
        self._receive = receive
        self._send = send
        self._request = Request(scope)
        self._response = Response()
        self._began = time.perf_counter()
        self._gone = False
        self._ended = False

    async def run(self, app: Application) -> None:
        response = self._response
        failed = 500
        try:
            self._account.begun(self._request)
            # A WSGI-minded application returns something, which the server complains about.
            return await app(self._scope, self._watched_receive, self._watched_send)
        except asyncio.CancelledError:
            failed = 503  # the server has cancelled it, and says so
            raise
        finally:
            if not response.status_code:
                response.status_code = _CLIENT_CLOSED if self._gone else failed
            self._end()

    async def _watched_receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self._gone = True
        return message

    async def _watched_send(self, message: Message) -> None:
        try:
            await self._send(message)
        except ClientDisconnected:
            self._gone = True
            raise
        # Only what was sent counts: the server may have refused it.
        match message["type"]:
            case "http.response.start":
                self._start(message["status"], message.get("headers", ()))
            case "http.response.body":
                if self._request.method != "HEAD" and self._response.status_code not in _BODILESS:
                    self._response.sent += len(message.get("body", b""))
                if not message.get("more_body", False):
                    self._end()
            case "websocket.accept":
                self._start(101, message.get("headers", ()))
                self._end()
            case "websocket.close" if not self._response.status_code:
                self._start(403, ())
                self._end()

    def _start(self, status: int, headers: Any) -> None:
        self._response.status_code = int(status)
        self._response.headers = [(n.decode("latin-1"), v.decode("latin-1")) for n, v in headers]

    def _end(self) -> None:
        # Once, and when the response is out: the application may work on long after that.
        if not self._ended:
            self._ended = True
            seconds = time.perf_counter() - self._began
            self._account.ended(self._request, self._response, seconds)


def _hook(cfg: Any, name: str) -> Any:
    """The hook that the configuration gives, or None: gunicorn's own logs each request at level debug."""
    setting = cfg.settings[name]
    return None if setting.get() is setting.default else setting.get()
