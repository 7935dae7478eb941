"""WSGI applications for the tests."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ostler.worker.interfaces.wsgi import WsgiAdapter

TEXT = [("Content-Type", "text/plain")]
MB = 1_000_000
Environ = dict[str, Any]
StartResponse = Callable[..., Callable[[bytes], None]]


def wsgi(app: Any, threads: int = 4) -> WsgiAdapter:
    return WsgiAdapter(app, threads=threads, multiprocess=False)


class Recorder:
    """A WSGI application that keeps each environ and body."""

    def __init__(self) -> None:
        self.environs: list[Environ] = []
        self.bodies: list[bytes] = []

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        self.environs.append(environ)
        self.bodies.append(environ["wsgi.input"].read())
        start_response("200 OK", TEXT)
        return [b"ok"]


class Closing:
    """An iterable whose close() is noticed."""

    def __init__(self, blocks: Iterable[bytes]) -> None:
        self._blocks = iter(blocks)
        self.taken = 0
        self.closed = threading.Event()

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        block = next(self._blocks)
        self.taken += 1
        return block

    def close(self) -> None:
        assert not self.closed.is_set(), "closed twice"
        self.closed.set()


def giving(blocks: Iterable[bytes], status: str = "200 OK", headers: list[tuple[str, str]] = TEXT) -> Any:
    """A WSGI application that answers with `blocks`."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response(status, headers)
        return blocks

    return app
