"""Counts what a server answers until it is stopped: `python tools/count_answers.py http://127.0.0.1:8000/`.

Sixteen clients send one request after another, without a pause; each opens a connection anew after 20.
SIGINT or SIGTERM ends the load. One line says how many requests got which answer, and how many failed.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import sys
from collections import Counter
from urllib.parse import urlsplit

CLIENTS = 16
REQUESTS_PER_CONNECTION = 20
SECONDS_FOR_AN_ANSWER = 30.0


class Load:
    """The clients, and what they have counted: answers by their body, and failures by their cause."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.answers: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 80
        self._request = f"GET {parts.path or '/'} HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n".encode()
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Send requests until SIGINT or SIGTERM; every request that was sent is waited for."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stopping.set)
        await asyncio.gather(*(self._client() for _ in range(CLIENTS)))

    def __str__(self) -> str:
        total = self.answers.total() + self.failures.total()
        answers = ", ".join(f"{count:,} answered by {body!r}" for body, count in sorted(self.answers.items()))
        causes = "".join(f"\n{count:,} x {cause}" for cause, count in self.failures.most_common())
        return f"{total:,} requests: {answers or 'none answered'}, {self.failures.total():,} failed{causes}"

    async def _client(self) -> None:
        while not self._stopping.is_set():
            try:
                await asyncio.wait_for(self._one_connection(), SECONDS_FOR_AN_ANSWER)
            except (OSError, EOFError, ValueError, asyncio.TimeoutError) as error:
                self.failures[f"{type(error).__name__}: {error}"] += 1
                # A server that refuses connections is not asked ten thousand times a second.
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), 0.1)

    async def _one_connection(self) -> None:
        reader, writer = await asyncio.open_connection(self._host, self._port)
        try:
            for _ in range(REQUESTS_PER_CONNECTION):
                writer.write(self._request)
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
                length = re.search(r"\r\ncontent-length: (\d+)\r\n", head)
                if " 200 " not in head.partition("\r\n")[0] or length is None:
                    raise ValueError(head.partition("\r\n")[0])
                body = await reader.readexactly(int(length[1]))
                self.answers[body.decode(errors="replace").strip()[:40]] += 1
                if self._stopping.is_set() or "\r\nconnection: close\r\n" in head:
                    return
        finally:
            writer.close()


async def main(url: str) -> int:
    """Run the load, print the count, and return 1 if a request failed."""
    load = Load(url)
    await load.run()
    print(load, flush=True)
    return 1 if load.failures else 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(f"usage: {sys.argv[0]} URL")
    sys.exit(asyncio.run(main(sys.argv[1])))
