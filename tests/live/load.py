"""Constant HTTP load on kept and fresh connections; every request that fails is counted by its error."""

from __future__ import annotations

import asyncio
import collections
import ssl
import threading
from types import TracebackType

from tests.live.harness import PATIENCE, wait_until


class Load:
    """Send requests constantly, from a thread, while the context lasts.

    A request counts as answered when a whole response with status 200 has arrived. It counts as failed in
    every other case: refused, reset, truncated, another status, or no answer within `PATIENCE` seconds.

    Args:
        port: Where the server listens.
        path: What is requested.
        kept: Clients that keep their connection.
        fresh: Clients that open a connection for each request.
        pause: Seconds between two requests of one client.
        host: The server's address.
        trust: Makes the clients use TLS.
    """

    def __init__(
        self,
        port: int,
        *,
        path: str = "/",
        kept: int = 4,
        fresh: int = 2,
        pause: float = 0.005,
        host: str = "127.0.0.1",
        trust: ssl.SSLContext | None = None,
    ) -> None:
        self.answered = 0
        self.failures: collections.Counter[str] = collections.Counter()
        self.bodies: collections.Counter[str] = collections.Counter()
        """How often each first word of a body was received: the application's version."""
        self._address = (host, port)
        self._tls = {} if trust is None else {"ssl": trust, "server_hostname": "localhost"}
        self._request = f"GET {path} HTTP/1.1\r\nHost: test\r\n".encode()
        self._kept, self._fresh, self._pause = kept, fresh, pause
        self._stopping = False
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def __enter__(self) -> Load:
        self._thread.start()
        self.wait_answers(self._kept + self._fresh)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping = True
        self._thread.join(2 * PATIENCE)
        assert not self._thread.is_alive()

    def wait_answers(self, more: int) -> None:
        """Wait until so many more requests have been answered, or one has failed."""
        target = self.answered + more
        wait_until(lambda: self.answered >= target or self.failures.total(), f"{more} more answers")

    async def _run(self) -> None:
        kept = [self._client(keep=True) for _ in range(self._kept)]
        fresh = [self._client(keep=False) for _ in range(self._fresh)]
        await asyncio.gather(*kept, *fresh)

    async def _client(self, *, keep: bool) -> None:
        while not self._stopping:
            try:
                await self._connection(keep=keep)
            except asyncio.TimeoutError:
                self.failures["no answer"] += 1
            except asyncio.IncompleteReadError as exc:
                self.failures["truncated" if exc.partial else "closed without an answer"] += 1
            except OSError as exc:
                self.failures[type(exc).__name__] += 1
            await asyncio.sleep(self._pause)  # the pace of the load, not a wait for a condition

    async def _connection(self, *, keep: bool) -> None:
        """Send requests on one connection until the server announces its close; only one if not `keep`."""
        reader, writer = await asyncio.open_connection(*self._address, **self._tls)  # type: ignore[arg-type]
        try:
            while not self._stopping:
                last = await asyncio.wait_for(self._request_once(reader, writer, keep=keep), PATIENCE)
                if last or not keep:
                    return
                await asyncio.sleep(self._pause)  # the pace of the load, not a wait for a condition
        finally:
            writer.close()

    async def _request_once(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, keep: bool
    ) -> bool:
        writer.write(self._request + (b"\r\n" if keep else b"Connection: close\r\n\r\n"))
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        length = int(head.partition("content-length:")[2].split()[0])
        body = (await reader.readexactly(length)).decode("latin-1")
        status = head.split()[1]
        if status != "200":
            self.failures[f"status {status}"] += 1
        else:
            self.answered += 1
            self.bodies[body.partition(" ")[0]] += 1
        return "connection: close" in head
