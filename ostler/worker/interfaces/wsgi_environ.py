"""The `environ` of a WSGI request (PEP 3333, "environ Variables"), from an ASGI scope."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Iterator
from typing import Any, Protocol
from urllib.parse import unquote_to_bytes

from ostler.worker.asgi import Scope

BLOCK = 64 * 1024
"""Bytes that `wsgi.file_wrapper` reads at once, at least: each block costs a change of threads."""

_MOST_KEYS = 1024
_DROPPED = ""


class EnvironMaker:
    """Makes each request's `environ`."""

    def __init__(self, errors: ErrorLog, *, multiprocess: bool) -> None:
        self._constant: dict[str, Any] = {
            "wsgi.version": (1, 0),
            "wsgi.errors": errors,
            "wsgi.multithread": True,
            "wsgi.multiprocess": multiprocess,
            "wsgi.run_once": False,
            "wsgi.file_wrapper": FileWrapper,
            # The stream ends where the body does, so that one without Content-Length can be read, too.
            "wsgi.input_terminated": True,
        }
        self._keys: dict[bytes, str] = {}

    def make(self, scope: Scope) -> dict[str, Any]:
        """Return the environ of a request, all but `wsgi.input`."""
        scheme = scope["scheme"]
        root_path = scope["root_path"]
        environ = self._constant.copy()
        environ["REQUEST_METHOD"] = scope["method"]
        environ["SERVER_PROTOCOL"] = f"HTTP/{scope['http_version']}"
        environ["wsgi.url_scheme"] = scheme
        if scheme == "https":
            environ["HTTPS"] = "on"
        _fill_target(environ, scope["raw_path"], scope["query_string"], root_path)
        host, port = scope["server"] or ("localhost", None)
        if port is None:  # a Unix socket, whose path is no name of a server
            host, port = "localhost", 443 if scheme == "https" else 80
        environ["SERVER_NAME"] = host
        environ["SERVER_PORT"] = str(port)
        client = scope["client"]
        # Neither is demanded; an empty address is what other servers give for a peer without one.
        environ["REMOTE_ADDR"] = client[0] if client else ""
        if client and client[1]:
            environ["REMOTE_PORT"] = str(client[1])
        self._fill_headers(environ, scope["headers"])
        return environ

    def _fill_headers(self, environ: dict[str, Any], headers: Iterable[tuple[bytes, bytes]]) -> None:
        keys = self._keys
        for name, value in headers:
            key = keys.get(name)
            if key is None:
                key = self._learn(name)
            if key == _DROPPED:
                continue
            text = value.decode("latin-1")
            if key in environ:
                if key == "CONTENT_TYPE":
                    continue  # a single value (RFC 9110, section 8.3): the first one counts
                # RFC 9110, section 5.3; Cookie is the exception to it (RFC 6265, section 5.4).
                text = f"{environ[key]}{'; ' if key == 'HTTP_COOKIE' else ','}{text}"
            environ[key] = text

    def _learn(self, name: bytes) -> str:
        # X_Y and X-Y would be one variable: a client could give the field that a proxy sets or removes.
        key = _DROPPED
        if b"_" not in name:
            key = name.decode("latin-1").upper().replace("-", "_")
            if key not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
                key = f"HTTP_{key}"
        if len(self._keys) < _MOST_KEYS:  # clients that make names up must not fill the memory
            self._keys[name] = key
        return key


def _fill_target(environ: dict[str, Any], raw_path: bytes, query: bytes, root_path: str) -> None:
    """Put in where the request goes: bytes as latin-1 text, as PEP 3333 has it ("Unicode Issues")."""
    # Not from scope["path"]: there, bytes that are not UTF-8 are lost.
    root = root_path.encode()
    path = raw_path[len(root) :] if root and raw_path.startswith(root) else raw_path
    environ["SCRIPT_NAME"] = root.decode("latin-1").rstrip("/")
    environ["PATH_INFO"] = (unquote_to_bytes(path) if b"%" in path else path).decode("latin-1")
    environ["QUERY_STRING"] = text = query.decode("latin-1")
    uri = raw_path.decode("latin-1")
    # What was asked for before any decoding; no standard names it, and frameworks look for either.
    environ["REQUEST_URI"] = environ["RAW_URI"] = f"{uri}?{text}" if text else uri


class ErrorLog:
    """`wsgi.errors`: what is written to it goes to the log, as one record for each write that ends a line."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._unfinished = threading.local()

    def write(self, text: str) -> int:
        """Take `text`; what is behind its last line end waits for more."""
        whole, end, rest = text.rpartition("\n")
        before = getattr(self._unfinished, "text", "")
        if end:
            self._log(before + whole)
            self._unfinished.text = rest
        else:
            self._unfinished.text = before + rest
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Take every one of `lines`."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Log what is there of a line."""
        self._log(getattr(self._unfinished, "text", ""))
        self._unfinished.text = ""

    def _log(self, text: str) -> None:
        if text.strip():
            self._logger.error("%s", text)


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


class FileWrapper:
    """`wsgi.file_wrapper`: a file as an iterable of blocks, closed with it (PEP 3333, "File Handling")."""

    def __init__(self, file: _Readable, size: int = BLOCK) -> None:
        self._file = file
        self._size = max(size, BLOCK)

    def __iter__(self) -> Iterator[bytes]:
        while block := self._file.read(self._size):
            yield block

    def close(self) -> None:
        close = getattr(self._file, "close", None)
        if close is not None:
            close()
