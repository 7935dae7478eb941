"""The access log under gunicorn: gunicorn's logger gets each request, its response and their duration.

So `--access-logformat`, syslog, statsd and custom logger classes work as they do with gunicorn's own workers.
The access log wraps the application, and only if a logger or a hook wants it: otherwise it costs nothing.
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
"""The status that nginx logs when the client disconnects before there is a response."""
_BODILESS = (204, 304)


class GunicornAccessLog:
    """Tells gunicorn's logger and its hooks pre_request and post_request of each request."""

    def __init__(self, worker: Any) -> None:
        cfg = worker.cfg
        self._worker = worker
        # A custom logger class, such as gunicorn's for statsd, may count requests that it does not log.
        custom = type(worker.log).access is not glogging.Logger.access
        self._logs = custom or bool(
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
        """Whether there is a logger or a hook to call."""
        return self._logs or self._pre is not None or self._post is not None

    def wrap(self, app: Application) -> Application:
        """Return an application that calls `app` and reports each request."""

        def logged(scope: Scope, receive: Receive, send: Send) -> Coroutine[Any, Any, None]:
            return _LoggedCycle(self, scope, receive, send).run(app)

        return logged

    def request_began(self, request: LoggedRequest) -> None:
        """Call the hook pre_request, before the application is called."""
        if self._pre is not None:
            self._pre(self._worker, request)

    def response_ended(self, request: LoggedRequest, response: LoggedResponse, seconds: float) -> None:
        """Call the logger and the hook post_request, after the response was sent or given up.

        An exception that they raise is logged, and does not reach the application.
        """
        environ = request.environ()
        try:
            if self._logs:
                self._worker.log.access(response, request, environ, timedelta(seconds=seconds))
            if self._post is not None:
                self._post(self._worker, request, environ, response)
        except Exception:  # a user's hook or logger
            self._worker.log.exception("Exception in the access log or in post_request")


class LoggedRequest:
    """A request with the attributes of gunicorn's that loggers and hooks read.

    Made before the application sees the scope, because frameworks change the scope when they route.
    """

    def __init__(self, scope: Scope) -> None:
        self.root_path = scope["root_path"]
        self.http_version = scope["http_version"]
        self.server = scope["server"]
        # In gunicorn the target is as the client sent it; in ASGI it begins with the root path.
        target = scope["raw_path"].decode("latin-1").removeprefix(self.root_path)
        self.method = scope.get("method", "GET")
        self.query = scope["query_string"].decode("latin-1")
        self.uri = f"{target}?{self.query}" if self.query else target
        path = scope["path"].removeprefix(self.root_path)
        # The path is decoded: a line feed in it would begin a new line in the log.
        self.path = path if path.isprintable() else quote(path)
        self.fragment = ""
        major, _, minor = self.http_version.partition(".")
        self.version = (int(major), int(minor or 0))
        self.headers = [(n.decode("latin-1").upper(), v.decode("latin-1")) for n, v in scope["headers"]]
        self.scheme = scope["scheme"]
        self.peer_addr = scope["client"]
        self.remote_addr = scope["client"]

    def environ(self) -> dict[str, Any]:
        """Return the CGI variables (RFC 3875, section 4.1) that a log format may use."""
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


class LoggedResponse:
    """A response with the attributes of gunicorn's that loggers and hooks read."""

    def __init__(self) -> None:
        self.status_code = 0
        """0 until the response has started."""
        self.headers: list[tuple[str, str]] = []
        self.sent = 0
        """Bytes of the body that were sent."""

    @property
    def status(self) -> str:
        """The status code and its phrase, as in a status line."""
        try:
            return f"{self.status_code} {http.HTTPStatus(self.status_code).phrase}"
        except ValueError:
            phrase = "Client Closed Request" if self.status_code == _CLIENT_CLOSED else "Unknown"
            return f"{self.status_code} {phrase}"


class _LoggedCycle:
    """Calls the application for one request, and records the response that it sends."""

    def __init__(self, access_log: GunicornAccessLog, scope: Scope, receive: Receive, send: Send) -> None:
        self._access_log = access_log
        self._scope = scope
        self._receive = receive
        self._send = send
        self._request = LoggedRequest(scope)
        self._response = LoggedResponse()
        self._start_time = time.perf_counter()
        self._disconnected = False
        self._ended = False

    async def run(self, app: Application) -> None:
        response = self._response
        status_if_failed = 500
        try:
            self._access_log.request_began(self._request)
            # Returned although ASGI has no result: the server complains of a WSGI application's result.
            return await app(self._scope, self._recorded_receive, self._recorded_send)
        except asyncio.CancelledError:
            status_if_failed = 503  # the server has cancelled the request, and answers so
            raise
        finally:
            if not response.status_code:
                response.status_code = _CLIENT_CLOSED if self._disconnected else status_if_failed
            self._end()

    async def _recorded_receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self._disconnected = True
        return message

    async def _recorded_send(self, message: Message) -> None:
        try:
            await self._send(message)
        except ClientDisconnected:
            self._disconnected = True
            raise
        # Recorded after sending: the server may have refused the message.
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
        # Reported once, when the response is complete: the application may run on long after that.
        if not self._ended:
            self._ended = True
            seconds = time.perf_counter() - self._start_time
            self._access_log.response_ended(self._request, self._response, seconds)


def _hook(cfg: Any, name: str) -> Any:
    """Return the configured hook, or None: gunicorn's default hooks only log each request at level debug."""
    setting = cfg.settings[name]
    return None if setting.get() is setting.default else setting.get()
