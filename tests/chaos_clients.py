"""Clients for fault injection: constant requests, each with an id that its answer must contain."""

from __future__ import annotations

import asyncio
import itertools
import socket
import threading
import time
from dataclasses import dataclass
from types import TracebackType

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from tests.chaos_plan import Failure
from tests.live.harness import PATIENCE, wait_until

ANSWER_TIMEOUT = 120.0
"""Seconds until an answer must arrive. While all slots wait for a spawn, clients wait in the queue."""
IDLE_LIMIT = 1.0
"""Seconds of idleness after which the server may close just when a request is sent (RFC 9112, 9.3.1)."""


@dataclass(frozen=True)
class Answer:
    """What an answer contains: the id of the request, and the worker's token, version and pid."""

    request: str
    token: int
    version: str
    pid: int


class WrongAnswer(Exception):
    """An answer that belongs to another request, or that is not valid HTTP."""


class Clients:
    """Send requests and WebSocket messages constantly, from a thread, while the context lasts."""

    def __init__(self, port: int, *, kept: int = 8, fresh: int = 6, sockets: int = 3) -> None:
        self.asked = 0
        self.answered = 0
        self.messages = 0
        self.failures: list[Failure] = []
        self.seen: dict[int, tuple[float, float, Answer]] = {}
        """By worker's pid: the times of its first and last answer, and the last answer."""
        self._port = port
        self._counts = (kept, fresh, sockets)
        self._ids = itertools.count(1)
        self._stopping = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._main, daemon=True)

    def __enter__(self) -> Clients:
        self._thread.start()
        wait_until(lambda: self.answered > 10, "the first answers")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._thread.join(ANSWER_TIMEOUT + PATIENCE if error is None else 1.0)
        assert error is not None or not self._thread.is_alive()

    def block(self, seconds: float) -> None:
        """Send one more request, which blocks the event loop of the worker that accepts it."""
        asyncio.run_coroutine_threadsafe(self._use_connection(f"/block?{seconds}", keep=False), self._loop)

    def _main(self) -> None:
        try:
            self._loop.run_until_complete(self._run())
        finally:
            self._loop.close()

    async def _run(self) -> None:
        kept, fresh, sockets = self._counts
        tasks = [self._http_client(keep=True) for _ in range(kept)]
        tasks += [self._http_client(keep=False) for _ in range(fresh)]
        tasks += [self._websocket_client() for _ in range(sockets)]
        await asyncio.gather(*tasks)
        blocking = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*blocking)  # those that block for good have ended with their worker

    async def _http_client(self, *, keep: bool) -> None:
        while not self._stopping.is_set():
            await self._use_connection(None, keep=keep)
            await asyncio.sleep(0.01)  # the pace of the load, not a wait for a condition

    async def _use_connection(self, target: str | None, *, keep: bool) -> None:
        """Send requests on one connection until the server closes it, or only one; record a failure."""
        connection = _Connection(self._port)
        try:
            await connection.open()
            last = False
            while not last and not self._stopping.is_set():
                number = next(self._ids)
                self.asked += 1
                answer, last = await connection.request(number, target, keep=keep)
                self.answered += 1
                now = time.monotonic()
                first = self.seen[answer.pid][0] if answer.pid in self.seen else now
                self.seen[answer.pid] = (first, now, answer)
                last = last or not keep
                if not last:
                    await asyncio.sleep(0.01)  # the pace of the load, not a wait for a condition
            if last:
                await connection.expect_end()
        except (asyncio.TimeoutError, asyncio.IncompleteReadError, OSError, WrongAnswer, ValueError) as exc:
            self.failures.append(connection.failure(exc))
        finally:
            connection.close()

    async def _websocket_client(self) -> None:
        """Exchange messages over WebSockets.

        A WebSocket that the server closes with 1001 or 1012 is opened again; the end of one without a close
        frame is a failure.
        """
        while not self._stopping.is_set():
            opened, port, text = time.monotonic(), 0, "connect"
            try:
                # Connected here, so that the port is known when the handshake fails.
                connected = await asyncio.to_thread(socket.create_connection, ("127.0.0.1", self._port))
                port, text = connected.getsockname()[1], "handshake"
                async with connect(
                    f"ws://127.0.0.1:{self._port}/",
                    sock=connected,
                    open_timeout=ANSWER_TIMEOUT,
                    ping_interval=None,
                ) as websocket:
                    while not self._stopping.is_set():
                        text = f"message {next(self._ids)}"
                        await self._echo(websocket, text)
                        await asyncio.sleep(0.05)  # the pace of the load, not a wait for a condition
            except ConnectionClosed as exc:
                if exc.rcvd is None:
                    self._note_socket("WebSocket cut off", text, port, opened)
                elif exc.rcvd.code not in (1001, 1012):
                    self._note_socket(f"WebSocket closed with {exc.rcvd.code}", text, port, opened)
            except (WrongAnswer, OSError, asyncio.TimeoutError, EOFError, InvalidHandshake) as exc:
                is_mixed_up = text.startswith("message")
                self._note_socket(
                    f"mixed up: {exc}" if is_mixed_up else f"WebSocket: {exc!r}", text, port, opened
                )
            await asyncio.sleep(0.02)  # the pace of the load, not a wait for a condition

    async def _echo(self, websocket: ClientConnection, text: str) -> None:
        await websocket.send(text)
        echo = await asyncio.wait_for(websocket.recv(), ANSWER_TIMEOUT)
        if echo != text:
            raise WrongAnswer(f"{echo!r} for {text!r}")
        self.messages += 1

    def _note_socket(self, what: str, text: str, port: int, opened: float) -> None:
        self.failures.append(Failure(what, text, port, opened, time.monotonic()))


class _Connection:
    """One HTTP connection, with what a `Failure` has to record about it."""

    def __init__(self, server: int) -> None:
        self._server = server
        self._opened = time.monotonic()  # before connecting: a worker may accept it before connect returns
        self._last_answer = self._opened
        self._idle = 0.0
        self._port = 0
        self._request = "connect"
        self._used = False
        self._writer: asyncio.StreamWriter | None = None

    async def open(self) -> None:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._server)
        self._port = self._writer.get_extra_info("sockname")[1]

    async def request(self, number: int, target: str | None, *, keep: bool) -> tuple[Answer, bool]:
        """Send a request, and return the answer and whether the server announces the close."""
        assert self._writer is not None
        kind = ("/", "/", "/", "/slow", "/stream", "/echo")[number % 6]
        payload = b"x" * 20_000 if kind == "/echo" and target is None else b""
        self._request = target or f"{kind}?{number}"
        head = f"POST {self._request} HTTP/1.1\r\nHost: chaos\r\nContent-Length: {len(payload)}\r\n"
        end = "\r\n" if keep else "Connection: close\r\n\r\n"
        self._idle = time.monotonic() - self._last_answer if self._used else 0.0
        self._writer.write((head + end).encode() + payload)
        status, headers, body = await asyncio.wait_for(self._read(), ANSWER_TIMEOUT)
        self._last_answer, self._used = time.monotonic(), True
        if status != 200:
            raise WrongAnswer(f"status {status}")
        query, token, version, pid, length = body.decode().split()
        if query != self._request.partition("?")[2] or int(length) != len(payload):
            raise WrongAnswer(f"mixed up: {body!r}")
        return Answer(query, int(token), version, int(pid)), "connection: close" in headers

    async def _read(self) -> tuple[int, str, bytes]:
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        status = int(head.split()[1])
        if "transfer-encoding: chunked" not in head:
            length = int(head.partition("content-length:")[2].split()[0])
            return status, head, await self._reader.readexactly(length)
        parts = []
        while size := int(await self._reader.readuntil(b"\r\n"), 16):
            parts.append(await self._reader.readexactly(size))
            await self._reader.readexactly(2)
        await self._reader.readexactly(2)
        return status, head, b"".join(parts)

    async def expect_end(self) -> None:
        """Read to the end of a connection whose close was announced; any data is a second answer."""
        self._request = f"the end, after {self._request}"
        if surplus := await asyncio.wait_for(self._reader.read(), ANSWER_TIMEOUT):
            raise WrongAnswer(f"mixed up: surplus {surplus[:60]!r}")

    def failure(self, exc: Exception) -> Failure:
        """Return the record of a failure."""
        what = str(exc) if isinstance(exc, (WrongAnswer, ValueError)) else type(exc).__name__
        if isinstance(exc, asyncio.IncompleteReadError):
            what = "truncated" if exc.partial else "closed without an answer"
        excuse = "client was idle for too long" if self._idle > IDLE_LIMIT else ""
        return Failure(what, self._request, self._port, self._opened, time.monotonic(), excuse)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
