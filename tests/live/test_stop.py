"""When everything stops: idle connections do not hold it up, no request is reset, and nothing listens."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.certificates import Authority
from tests.live.clients import send_get
from tests.live.harness import (
    APP,
    PATIENCE,
    PLAIN,
    SUPERVISED,
    Ostler,
    both,
    elapsed,
    free_ports,
    serving,
    wait_until,
)
from tests.live.upgrades import WAITING, upgrading

KEPT = ("--timeout-keep-alive", "600", "--timeout-graceful-shutdown", "600")
"""An idle connection would hold a stop for longer than a test waits."""

loops = pytest.mark.parametrize("loop", ["uvloop", "asyncio"])


def kept(port: int, trust: ssl.SSLContext | None = None) -> socket.socket:
    """Return a connection on which one request has been answered."""
    client = socket.create_connection(("127.0.0.1", port), PATIENCE)
    if trust is not None:
        client = trust.wrap_socket(client, server_hostname="localhost")
    send_get(client)
    assert b"connection: close" not in client.recv(1000).lower()
    return client


def idle_for(seconds: float) -> None:
    since = time.monotonic()
    wait_until(lambda: elapsed(since) > seconds, "the connection has been idle for long enough")


@loops
@both
@pytest.mark.parametrize("seconds", [0.0, 3.0])
def test_idle_kept_connections_hold_a_stop_for_a_second_at_most(
    project: Path, mode: list[str], loop: str, seconds: float
) -> None:
    with serving(project, *KEPT, *mode, "--loop", loop) as ostler:
        clients = [kept(ostler.port) for _ in range(4)]
        clients.append(socket.create_connection(("127.0.0.1", ostler.port), PATIENCE))  # it sends nothing
        idle_for(seconds)
        begun = time.monotonic()
        assert ostler.stop() == 0
        assert elapsed(begun) < 15
        for client in clients:
            with client:
                assert client.recv(1) == b""


@loops
@both
def test_idle_tls_connections_hold_a_stop_for_little_more(project: Path, mode: list[str], loop: str) -> None:
    authority = Authority(project)
    with serving(project, *KEPT, *mode, "--loop", loop, *authority.flags) as ostler:
        # They do not answer a close_notify.
        clients = [kept(ostler.port, authority.client()) for _ in range(4)]
        begun = time.monotonic()
        assert ostler.stop() == 0
        assert elapsed(begun) < 20
        for client in clients:
            client.close()


@loops
@both
@pytest.mark.parametrize("tls", [False, True])
def test_a_request_that_an_idle_connection_has_sent_before_the_stop_is_answered(
    project: Path, mode: list[str], loop: str, tls: bool
) -> None:
    authority = Authority(project)
    options = authority.flags if tls else []
    with serving(project, *KEPT, *mode, "--loop", loop, *options) as ostler:
        clients = [kept(ostler.port, authority.client() if tls else None) for _ in range(8)]
        idle_for(3)
        processes = [ostler.pid, *ostler.workers()]
        for pid in processes:
            os.kill(pid, signal.SIGSTOP)
        for client in clients:
            send_get(client)
        os.kill(ostler.pid, signal.SIGTERM)
        for pid in processes:
            os.kill(pid, signal.SIGCONT)
        for client in clients:
            with client:
                answer = client.recv(1000).lower()
                assert answer.startswith(b"http/1.1 200 ok")
                assert mode or b"connection: close" in answer  # a worker may read it before its order
        assert ostler.wait() == 0


@both
def test_a_connection_that_was_used_just_before_a_stop_can_be_used_once_more(
    project: Path, mode: list[str]
) -> None:
    with serving(project, *KEPT, *mode) as ostler, kept(ostler.port) as client:
        ostler.send(signal.SIGTERM)
        ostler.log.wait_for("Stopping: 2 workers to drain" if mode else "Shutting down")
        send_get(client)
        answer = client.recv(1000).lower()
        assert answer.startswith(b"http/1.1 200 ok")
        assert b"connection: close" in answer
        assert ostler.wait() == 0


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTTOU])
def test_where_other_workers_serve_on_an_idle_connection_is_kept(
    project: Path, number: signal.Signals
) -> None:
    with serving(project, *KEPT, *SUPERVISED) as ostler:
        clients = [kept(ostler.port) for _ in range(8)]
        ostler.send(number)
        ostler.log.wait_for("drains, worker 2|Scaled from 2 workers to 1")
        idle_for(4)
        for client in clients:
            send_get(client)
            assert client.recv(1000).startswith(b"HTTP/1.1 200 OK")
            client.close()
        assert ostler.stop() == 0


class Flow:
    """Clients in threads that send requests without a pause until they are refused; what fails is counted."""

    def __init__(self, address: str | tuple[str, int], *, kept: int, fresh: int) -> None:
        self.outcomes: Counter[str] = Counter()
        self._address = address
        self._threads = [
            threading.Thread(target=self._run, args=(n < kept,), daemon=True) for n in range(kept + fresh)
        ]

    def __enter__(self) -> Flow:
        for thread in self._threads:
            thread.start()
        wait_until(lambda: self.outcomes["answered"] > 200, "requests are answered")
        return self

    def __exit__(self, *_: object) -> None:
        for thread in self._threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()

    def _run(self, keep: bool) -> None:
        outcome = ""
        while outcome != "refused":
            with socket.socket(
                socket.AF_UNIX if isinstance(self._address, str) else socket.AF_INET
            ) as client:
                client.settimeout(PATIENCE)
                outcome = self._connection(client, keep)
                self.outcomes[outcome] += 1

    def _connection(self, client: socket.socket, keep: bool) -> str:
        try:
            client.connect(self._address)
        except (ConnectionRefusedError, FileNotFoundError):
            return "refused"
        except OSError as error:
            return f"connect: {error!r}"
        try:
            while True:
                send_get(client, close=not keep)
                answer = client.recv(1000).lower()
                if not answer.startswith(b"http/1.1 200 ok"):
                    return f"answer: {answer!r}"
                if b"connection: close" in answer:
                    return "answered"
                self.outcomes["answered"] += 1
        except OSError as error:
            return f"request: {error!r}"


@loops
@both
@pytest.mark.parametrize("where", ["tcp", "unix"])
def test_a_stop_under_a_steady_flow_resets_nothing(
    project: Path, mode: list[str], loop: str, where: str
) -> None:
    path = str(project / "s")
    for _ in range(2):
        place = ["--uds", path] if where == "unix" else ["--port", "0"]
        with Ostler(project, "main:app", *place, *mode, "--loop", loop, "--no-access-log") as ostler:
            ostler.log.wait_for("startup complete", count=2 if mode else 1)
            address = path if where == "unix" else ("127.0.0.1", ostler.port)
            with Flow(address, kept=3, fresh=9) as flow:
                ostler.send(signal.SIGTERM)
                assert ostler.wait() == 0
        assert set(flow.outcomes) == {"answered", "refused"}


@pytest.mark.parametrize("where", ["tcp", "unix"])
@pytest.mark.parametrize("everybody", [False, True])
def test_new_clients_are_refused_while_ostler_still_drains(
    project: Path, everybody: bool, where: str
) -> None:
    path = str(project / "s")
    place = ["--uds", path] if where == "unix" else ["--port", "0"]
    with Ostler(project, "main:app", *place, *SUPERVISED) as ostler, contextlib.ExitStack() as opened:
        ostler.wait_ready(2)
        address = path if where == "unix" else ("127.0.0.1", ostler.port)
        family = socket.AF_UNIX if where == "unix" else socket.AF_INET
        slow = opened.enter_context(socket.socket(family))
        slow.settimeout(PATIENCE)
        slow.connect(address)
        send_get(slow, "/slow?8")
        if everybody:  # as systemd does with KillMode=control-group
            for pid in ostler.workers():
                os.kill(pid, signal.SIGTERM)
        ostler.send(signal.SIGTERM)

        def refused() -> bool:
            with socket.socket(family) as client:
                client.settimeout(PATIENCE)
                return client.connect_ex(address) in (errno.ECONNREFUSED, errno.ENOENT)

        wait_until(refused, "a new client is refused")
        assert ostler.poll() is None
        assert slow.recv(1000).startswith(b"HTTP/1.1 200 OK")
        assert ostler.wait() == 0


def test_a_stop_that_reaches_the_workers_first_resets_nothing(project: Path) -> None:
    with serving(project, *SUPERVISED, "--no-access-log") as ostler:
        workers = ostler.workers()
        with Flow(("127.0.0.1", ostler.port), kept=3, fresh=9) as flow:
            for pid in workers:
                os.kill(pid, signal.SIGTERM)
            ostler.send(signal.SIGTERM)
            assert ostler.wait() == 0
    assert set(flow.outcomes) == {"answered", "refused"}


@pytest.mark.parametrize("queues", ["auto", "off"])
def test_a_stop_during_an_upgrade_resets_nothing(project: Path, queues: str) -> None:
    arguments = ("main:app", "--port", "0", *SUPERVISED, "--reuse-port", queues, "--no-access-log")
    with upgrading(project, *arguments) as run:
        ostler = run.ostler
        with Flow(("127.0.0.1", ostler.port), kept=3, fresh=9) as flow:
            (project / "main.py").write_text(WAITING + APP)
            ostler.send(signal.SIGUSR2)
            wait_until((project / "waiting").exists, "the new application is imported")
            ostler.send(signal.SIGTERM)
            assert ostler.wait() == 0
    assert set(flow.outcomes) == {"answered", "refused"}


@pytest.mark.parametrize("where", ["tcp", "unix"])
def test_workers_whose_arbiter_was_killed_leave_their_queues_at_once(project: Path, where: str) -> None:
    path = str(project / "s")
    place = ["--uds", path] if where == "unix" else ["--port", "0"]
    with Ostler(project, "main:app", *place, *SUPERVISED, "--no-access-log") as ostler:
        ostler.wait_ready(2)
        ostler.family()
        address = path if where == "unix" else ("127.0.0.1", ostler.port)
        with Flow(address, kept=3, fresh=9) as flow:
            ostler.send(signal.SIGKILL)
            ostler.wait()
        ostler.wait_gone()
    reset = sum(count for outcome, count in flow.outcomes.items() if outcome not in ("answered", "refused"))
    assert reset <= 2, flow.outcomes  # of 12 clients: what connects between the last accept(2) and close(2)


HOLDS_THE_SOCKET = (
    APP
    + """
import subprocess
import sys

serving = app


async def app(scope, receive, send):
    if scope["type"] == "http" and scope["path"] == "/daemon":
        if os.fork() == 0:  # with all descriptors
            os.setsid()
            os.execv(sys.executable, [sys.executable, "-c", "import time; time.sleep(600)"])
    await serving(scope, receive, send)


# A process that is forked keeps the listening sockets; so would one that is executed, with these flags.
for name in os.listdir("/proc/self/fd"):
    try:
        if os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
            os.set_inheritable(int(name), True)
    except OSError:
        pass
"""
)


@contextlib.contextmanager
def a_daemon_of_the_application(project: Path, ostler: Ostler, *, uds: str | None = None) -> Iterator[None]:
    """Let the application start a daemon, which keeps the listening socket open; it ends with the context."""
    before = {process.pid for process in ostler.family()}
    with socket.socket(socket.AF_UNIX if uds else socket.AF_INET) as client:
        client.settimeout(PATIENCE)
        client.connect(uds or ("127.0.0.1", ostler.port))
        send_get(client, "/daemon", close=True)
        assert client.recv(1000).startswith(b"HTTP/1.1 200 OK")
    [daemon] = wait_until(lambda: [p for p in ostler.family() if p.pid not in before], "the daemon runs")
    try:
        yield
        assert daemon.status() != psutil.STATUS_ZOMBIE
    finally:
        daemon.kill()
        daemon.wait(PATIENCE)


STOPS = {
    "plain": (PLAIN, signal.SIGTERM),
    "supervised": (SUPERVISED, signal.SIGTERM),
    "one queue": ([*SUPERVISED, "--reuse-port", "off"], signal.SIGTERM),
    "plain, at once": (PLAIN, signal.SIGQUIT),
    "supervised, at once": (SUPERVISED, signal.SIGQUIT),
    "reload": (["--reload"], signal.SIGINT),
}


@pytest.mark.parametrize("stop", STOPS)
@pytest.mark.parametrize("where", ["tcp", "unix"])
def test_a_daemon_of_the_application_does_not_keep_the_next_start_from_listening(
    project: Path, stop: str, where: str
) -> None:
    (project / "main.py").write_text(HOLDS_THE_SOCKET)
    mode, number = STOPS[stop]
    path = str(project / "s") if where == "unix" else None
    place = ["--uds", path] if path else ["--port", str(free_ports(1)[0])]
    ready = "startup complete"
    with Ostler(project, "main:app", *place, *mode) as ostler:
        ostler.log.wait_for(ready, count=2 if "--workers" in mode else 1)
        with a_daemon_of_the_application(project, ostler, uds=path):
            ostler.send(number)
            wait_until(lambda: ostler.poll() is not None, "ostler has ended")
            assert ostler.poll() == 0
            with Ostler(project, "main:app", *place, *mode) as second:
                second.log.wait_for(ready)
                assert second.stop() == 0


@both
def test_an_inherited_socket_listens_after_a_stop(project: Path, mode: list[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        fd = str(listener.fileno())
        address = listener.getsockname()
        for _ in range(2):
            with Ostler(project, "main:app", "--fd", fd, *mode, pass_fds=[listener.fileno()]) as ostler:
                ostler.log.wait_for("startup complete", count=2 if mode else 1)
                with socket.create_connection(address, PATIENCE) as client:
                    send_get(client, close=True)
                    assert client.recv(1000).startswith(b"HTTP/1.1 200 OK")
                assert ostler.stop() == 0
            with socket.create_connection(address, PATIENCE):
                listener.accept()[0].close()


def test_after_an_upgrade_a_stop_still_shuts_the_sockets_down(project: Path) -> None:
    (project / "main.py").write_text(HOLDS_THE_SOCKET)
    with upgrading(project) as run:
        port = run.ostler.port
        run.upgrade()
        with a_daemon_of_the_application(project, run.ostler):
            os.kill(run.newest, signal.SIGTERM)
            wait_until(lambda: not psutil.pid_exists(run.newest), "the new arbiter has ended")
            with serving(project, "--port", str(port)) as second:
                assert second.stop() == 0
