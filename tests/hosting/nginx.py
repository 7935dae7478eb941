"""Run a real nginx with a file that the docs show: in the foreground, unprivileged, on free ports."""

from __future__ import annotations

import contextlib
import http.client
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.hosting.docs_examples import DEPLOYMENT
from tests.hosting.needs import need
from tests.live.harness import PATIENCE, Output, add_note, wait_until

FILES = DEPLOYMENT / "nginx"
NGINX = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
STREAM_MODULE = Path("/usr/lib/nginx/modules/ngx_stream_module.so")

# Takes the place of /etc/nginx/nginx.conf, and includes a file that the docs show. The level "info" logs
# every failure of an upstream.
MAIN = """
{module}
daemon off;
worker_processes 1;
pid {here}/nginx.pid;
error_log {here}/error.log info;
events {{ worker_connections 512; }}
http {{
    log_format upstreams '$remote_addr "$request" $status [$upstream_addr] [$upstream_status]';
    access_log {here}/access.log upstreams;
    client_body_temp_path {here}/body;
    proxy_temp_path {here}/proxy;
    fastcgi_temp_path {here}/fastcgi;
    uwsgi_temp_path {here}/uwsgi;
    scgi_temp_path {here}/scgi;
    {http}
}}
{stream}
"""

APP = """
import asyncio
import hashlib
import json

go_on = asyncio.Event()


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        return await lifespan(receive, send)
    if scope["type"] == "websocket":
        return await websocket(scope, receive, send)
    paths = {"/stream": stream, "/events": events, "/go": go, "/upload": upload, "/download": download}
    await paths.get(scope["path"], report)(scope, receive, send)


async def lifespan(receive, send):
    while True:
        message = await receive()
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return


async def respond(send, body):
    length = str(len(body)).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
    await send({"type": "http.response.body", "body": body})


async def report(scope, receive, send):
    headers = {name.decode(): value.decode() for name, value in scope["headers"]}
    reported = {"client": scope["client"], "scheme": scope["scheme"], "headers": headers}
    await respond(send, json.dumps(reported).encode())


async def stream(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"first", "more_body": True})
    await go_on.wait()
    await send({"type": "http.response.body", "body": b"last"})


async def go(scope, receive, send):
    go_on.set()
    await respond(send, b"")


async def websocket(scope, receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.send", "text": json.dumps([scope["client"], scope["scheme"]])})
    while (message := await receive())["type"] == "websocket.receive":
        await send({**message, "type": "websocket.send"})


async def events(scope, receive, send):
    headers = [(b"content-type", b"text/event-stream")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for number in range(int(scope["query_string"])):
        body = f"data: {number}\\n\\n".encode()
        await send({"type": "http.response.body", "body": body, "more_body": True})
        await asyncio.sleep(0.01)  # in the app
    await send({"type": "http.response.body", "body": b""})


async def upload(scope, receive, send):
    digest, size, pieces, more = hashlib.sha256(), 0, 0, True
    while more:
        message = await receive()
        digest.update(message["body"])
        size, pieces, more = size + len(message["body"]), pieces + 1, message["more_body"]
        if pieces == 1:
            go_on.set()
    await respond(send, json.dumps({"size": size, "sha256": digest.hexdigest()}).encode())


async def download(scope, receive, send):
    size, piece = int(scope["query_string"]), bytes(range(256)) * 256
    await send({"type": "http.response.start", "status": 200,
                "headers": [(b"content-length", str(size).encode())]})
    for start in range(0, size, len(piece)):
        await send({"type": "http.response.body", "body": piece[: size - start], "more_body": True})
    await send({"type": "http.response.body", "body": b""})
"""


@contextlib.contextmanager
def nginx_directory() -> Iterator[Path]:
    """Make a directory that an unprivileged nginx can enter; other users cannot enter pytest's own."""
    packages = "nginx and its stream module (Debian: apt install nginx libnginx-mod-stream)"
    need(NGINX is not None and STREAM_MODULE.exists(), packages)
    assert NGINX is not None
    directory = Path(tempfile.mkdtemp(prefix="ostler-nginx-"))
    try:
        directory.chmod(0o755)
        if (user := unprivileged()) is not None:
            os.chown(directory, user.pw_uid, user.pw_gid)
        yield directory
    finally:
        shutil.rmtree(directory)


def unprivileged() -> pwd.struct_passwd | None:
    """Return the user that nginx runs as when the tests run as root; None when they do not."""
    return pwd.getpwnam("nobody") if os.getuid() == 0 else None


def site_file(name: str, **replaced: str) -> str:
    """Return a file that the docs show, with values for some of its `PLACES` (`listen`, `upstream`)."""
    text = (FILES / name).read_text(encoding="utf-8")
    for old, new in PLACES[name].items():
        if old in replaced:
            assert text.count(new) == 1, f"{name} must have {new!r} once"
            text = text.replace(new, replaced[old])
    return text


_UPSTREAM = "127.0.0.1:8000;"
PLACES: Mapping[str, Mapping[str, str]] = {
    "ostler.conf": {"listen": "listen 80;", "upstream": _UPSTREAM, "uploads": "proxy_request_buffering on;"},
    "ostler-stream.conf": {"listen": "listen 80;", "upstream": _UPSTREAM},
    "ostler-tls.conf": {
        "listen": "listen 80;",
        "listen_tls": "listen 443 ssl;",
        "upstream": _UPSTREAM,
        "root": "/var/www/letsencrypt;",
        "certificate": "/etc/letsencrypt/live/example.com/fullchain.pem;",
        "key": "/etc/letsencrypt/live/example.com/privkey.pem;",
    },
}


class Nginx:
    """nginx with one of the files that the docs show. Leaving the context ends it, by pid."""

    def __init__(self, here: Path, name: str, upstream: str, **replaced: str) -> None:
        self.here = here
        self._sockets = [socket.create_server(("127.0.0.1", 0)) for name in PLACES[name] if "listen" in name]
        self.ports = [sock.getsockname()[1] for sock in self._sockets]
        replaced["listen"] = f"listen 127.0.0.1:{self.ports[0]};"
        if len(self.ports) > 1:
            replaced["listen_tls"] = f"listen 127.0.0.1:{self.ports[1]} ssl;"
        site = here / "site.conf"
        site.write_text(site_file(name, upstream=f"{upstream};", **replaced))
        stream = "stream" in name
        include = f"include {site};"
        (here / "nginx.conf").write_text(
            MAIN.format(
                here=here,
                module=f"load_module {STREAM_MODULE};" if stream else "",
                http="" if stream else include,
                stream=include if stream else "",
            )
        )

    def __enter__(self) -> Nginx:
        user = unprivileged()
        options: dict[str, Any] = {} if user is None else {"user": user.pw_uid, "group": user.pw_gid}
        if user is not None:
            options["extra_groups"] = []
        descriptors = [sock.fileno() for sock in self._sockets]
        here = str(self.here)
        self._process = subprocess.Popen(
            [NGINX or "nginx", "-p", here, "-c", f"{here}/nginx.conf", "-e", f"{here}/error.log"],
            # nginx passes its sockets to its successor in this variable. So the kernel chooses the port.
            env={"PATH": os.environ["PATH"], "NGINX": "".join(f"{number};" for number in descriptors)},
            pass_fds=descriptors,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            **options,
        )
        for sock in self._sockets:
            sock.close()
        assert self._process.stderr is not None
        self._stderr = Output(self._process.stderr)
        wait_until(
            lambda: "start worker process" in self.errors or self._process.poll() is not None, "nginx is up"
        )
        assert self._process.poll() is None, self._stderr.text + self.errors
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        add_note(error, f"nginx's error log:\n{self.errors[-5000:]}")
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(PATIENCE)
        self._stderr.close()

    @property
    def port(self) -> int:
        return int(self.ports[0])

    @property
    def errors(self) -> str:
        """The text of the error log."""
        return self._read("error.log")

    @property
    def requests(self) -> list[str]:
        """The lines of the access log."""
        return self._read("access.log").splitlines()

    def _read(self, name: str) -> str:
        try:
            return (self.here / name).read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return ""

    def complaints(self) -> list[str]:
        """Return the lines of the error log about upstreams, and those with a level above notice."""
        bad = ("upstream", "[warn]", "[error]", "[crit]", "[alert]", "[emerg]")
        lines = [line for line in self.errors.splitlines() if any(word in line for word in bad)]
        # The stream module logs this when a connection ends normally, on either side.
        return [line for line in lines if "disconnected, bytes from/to client" not in line]

    def reload(self) -> None:
        """Send SIGHUP, and wait until the new worker process runs and the old one accepts nothing more."""
        before = self.errors.count("gracefully shutting down")
        self._process.send_signal(signal.SIGHUP)
        wait_until(lambda: self.errors.count("gracefully shutting down") > before, "nginx has reloaded")

    def client(self, source: str = "127.0.0.1") -> http.client.HTTPConnection:
        """Return a client with the address `source` that is not connected yet."""
        return http.client.HTTPConnection("127.0.0.1", self.port, PATIENCE, source_address=(source, 0))

    def connect(self, source: str) -> socket.socket:
        """Connect from the address `source` to the last of nginx's ports."""
        return socket.create_connection(("127.0.0.1", self.ports[-1]), PATIENCE, (source, 0))
