"""Makes the `environ` of a WSGI request (PEP 3333, "environ Variables") from an ASGI scope."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Iterator
from typing import Any, Protocol
from urllib.parse import unquote_to_bytes

from ostler.worker.asgi import Scope

BLOCK = 64 * 1024
"""Bytes that `wsgi.file_wrapper` reads at once at the least: each block costs a switch of threads."""

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
            # `wsgi.input` ends where the body does, so that a body without Content-Length can be read, too.
            "wsgi.input_terminated": True,
        }
        self._keys: dict[bytes, str] = {}

    def make(self, scope: Scope) -> dict[str, Any]:
        """Return the environ of a request, without `wsgi.input`."""
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
        if port is None:  # a Unix socket: its path is not a server name
            host, port = "localhost", 443 if scheme == "https" else 80
        environ["SERVER_NAME"] = host
        environ["SERVER_PORT"] = str(port)
        client = scope["client"]
        # PEP 3333 demands neither; other servers give an empty address for a peer without one, too.
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
                    continue  # it has a single value (RFC 9110, section 8.3): the first field counts
                # Fields of one name are joined: RFC 9110, section 5.3; Cookie: RFC 6265, section 5.4.
                text = f"{environ[key]}{'; ' if key == 'HTTP_COOKIE' else ','}{text}"
            environ[key] = text

    def _learn(self, name: bytes) -> str:
        # X_Y and X-Y would be one variable: a client could forge a field that a proxy sets or removes.
        key = _DROPPED
        if b"_" not in name:
            key = name.decode("latin-1").upper().replace("-", "_")
            if key not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
                key = f"HTTP_{key}"
        if len(self._keys) < _MOST_KEYS:  # clients that invent names must not fill the memory
            self._keys[name] = key
        return key


def _fill_target(environ: dict[str, Any], raw_path: bytes, query: bytes, root_path: str) -> None:
    """Set the variables of path and query: bytes as latin-1 text (PEP 3333, "Unicode Issues")."""
    # Not from scope["path"], where bytes that are not UTF-8 are lost.
    root = root_path.encode()
    path = raw_path[len(root) :] if root and raw_path.startswith(root) else raw_path
    environ["SCRIPT_NAME"] = root.decode("latin-1").rstrip("/")
    environ["PATH_INFO"] = (unquote_to_bytes(path) if b"%" in path else path).decode("latin-1")
    environ["QUERY_STRING"] = text = query.decode("latin-1")
    uri = raw_path.decode("latin-1")
    # The target as it was sent. No standard names it, and frameworks look for one name or the other.
    environ["REQUEST_URI"] = environ["RAW_URI"] = f"{uri}?{text}" if text else uri


class ErrorLog:
    """`wsgi.errors`: writes text to the log, one record for each write that ends a line."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._unfinished = threading.local()

    def write(self, text: str) -> int:
        """Log `text` up to its last line end; the rest waits for the next write of this thread."""
        whole, end, rest = text.rpartition("\n")
        before = getattr(self._unfinished, "text", "")
        if end:
            self._log(before + whole)
            self._unfinished.text = rest
        else:
            self._unfinished.text = before + rest
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write each of `lines`."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Log the unfinished line."""
        self._log(getattr(self._unfinished, "text", ""))
        self._unfinished.text = ""

    def _log(self, text: str) -> None:
        if text.strip():
            self._logger.error("%s", text)


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


class FileWrapper:
    """`wsgi.file_wrapper`: iterates over a file's blocks, and closes the file (PEP 3333, "File Handling")."""

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
