"""An embedded server, in the loop or a thread of another program, which it leaves as it was."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import http.client
import logging
import os
import signal
import socket
import sys
import threading
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

import ostler
from ostler.worker.asgi import Receive, Scope, Send
from tests.worker.harness import PATIENCE, hello

T = TypeVar("T")
Runner = Callable[[Coroutine[Any, Any, T]], T]


class App:
    """Answers with a greeting from its lifespan's state; /slow waits for `released`."""

    def __init__(self, *, fails: bool = False) -> None:
        self.said: list[str] = []
        self.fails = fails
        self.entered = asyncio.Event()
        self.released = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.live(scope, receive, send)
            return
        if scope["path"] == "/slow":
            self.entered.set()
            try:
                await self.released.wait()
            except asyncio.CancelledError:
                self.said.append("cancelled")
                raise
        body = scope["state"]["greeting"].encode()
        headers = [(b"content-length", str(len(body)).encode()), (b"connection", b"close")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def live(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        if self.fails:
            await send({"type": "lifespan.startup.failed", "message": "no database"})
            return
        scope["state"]["greeting"] = "hello"
        self.said.append("startup")
        await send({"type": "lifespan.startup.complete"})
        await receive()
        self.said.append("shutdown")
        await send({"type": "lifespan.shutdown.complete"})


def server(app: Any, **settings: Any) -> ostler.Server:
    return ostler.Server(ostler.Config(app, **{"port": 0, **settings}), configure_logging=False)


async def get(port: int | None, path: str = "/") -> bytes:
    """Return the body of a response, requested in the running loop."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    data = await reader.read()
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
    return data.partition(b"\r\n\r\n")[2]


def fetch(port: int | None) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    with contextlib.closing(connection):
        connection.request("GET", "/")
        return connection.getresponse().read()


async def one_iteration() -> None:
    """Let the loop run everything else that is ready."""
    loop = asyncio.get_running_loop()
    future = loop.create_future()
    loop.call_soon(future.set_result, None)
    await future


async def other_tasks() -> list[object]:
    """Return the tasks of the loop except for the caller's."""
    return [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]


async def _with_deadline(coroutine: Coroutine[Any, Any, T]) -> T:
    """Cancel a coroutine that hangs; without a task of its own, which `other_tasks` would return."""
    task = asyncio.current_task()
    assert task is not None
    watch = asyncio.get_running_loop().call_later(PATIENCE, task.cancel)
    try:
        return await coroutine
    finally:
        watch.cancel()


@pytest.fixture(params=["uvloop", "asyncio"])
def run(request: pytest.FixtureRequest) -> Runner[Any]:
    """A function that runs a coroutine in a new loop in this thread, as a program does."""

    def runner(coroutine: Coroutine[Any, Any, T]) -> T:
        if request.param == "asyncio":
            return asyncio.run(_with_deadline(coroutine))
        import uvloop

        loop = uvloop.new_event_loop()
        try:
            result: T = loop.run_until_complete(_with_deadline(coroutine))
            return result
        finally:
            loop.close()

    return runner


# -- in a running loop


def test_it_serves_in_a_running_loop_and_leaves_nothing_in_it(run: Runner[Any]) -> None:
    app = App()

    async def main() -> None:
        handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
        serving = server(app)
        assert not serving.started
        task = asyncio.create_task(serving.serve())
        assert await serving.started
        assert serving.started
        assert await get(serving.port) == b"hello"
        serving.stop()
        await task
        assert await serving.started
        assert await other_tasks() == []
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers

    run(main())

    assert app.said == ["startup", "shutdown"]


def test_two_servers_share_one_loop(run: Runner[Any]) -> None:
    async def main() -> None:
        one, other = server(App()), server(App())
        tasks = asyncio.gather(one.serve(), other.serve())
        await one.started
        await other.started
        assert one.port != other.port
        assert [await get(one.port), await get(other.port)] == [b"hello", b"hello"]
        one.stop()
        assert await get(other.port) == b"hello"
        other.stop()
        await tasks
        assert await other_tasks() == []

    run(main())


def test_stop_finishes_the_requests_in_flight(run: Runner[Any]) -> None:
    app = App()

    async def main() -> bytes:
        serving = server(app)
        task = asyncio.create_task(serving.serve())
        await serving.started
        request = asyncio.create_task(get(serving.port, "/slow"))
        await app.entered.wait()
        serving.stop()
        serving.stop()
        app.released.set()
        await task
        return await request

    assert run(main()) == b"hello"


@pytest.mark.parametrize("given", [False, True])
def test_a_kept_connection_that_is_idle_does_not_hold_up_should_exit(run: Runner[Any], given: bool) -> None:
    async def main() -> None:
        embedded = server(hello, timeout_keep_alive=600.0, lifespan="off")
        sockets = [socket.create_server(("127.0.0.1", 0))] if given else None
        serving = asyncio.create_task(embedded.serve(sockets))
        assert await embedded.started
        reader, writer = await asyncio.open_connection("127.0.0.1", embedded.port)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await reader.readuntil(b"hello")).startswith(b"HTTP/1.1 200 OK")
        embedded.should_exit = True
        await serving
        assert await reader.read() == b""
        writer.close()

    run(main())


def test_stop_now_cancels_requests_and_leaves_nothing_in_the_loop(run: Runner[Any]) -> None:
    app = App()

    async def main() -> None:
        serving = server(app)
        task = asyncio.create_task(serving.serve())
        await serving.started
        request = asyncio.create_task(get(serving.port, "/slow"))
        await app.entered.wait()
        serving.force_exit = True
        assert serving.should_exit
        await task
        await asyncio.wait((request,))
        request.exception()
        assert await other_tasks() == []

    run(main())

    assert app.said == ["startup", "cancelled"]


def test_a_cancelled_task_drains_before_it_ends(run: Runner[Any]) -> None:
    app = App()

    async def main() -> bytes:
        serving = server(app)
        task = asyncio.create_task(serving.serve())
        await serving.started
        request = asyncio.create_task(get(serving.port, "/slow"))
        await app.entered.wait()
        task.cancel()
        asyncio.get_running_loop().call_soon(app.released.set)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await other_tasks() in ([], [request])
        return await request

    assert run(main()) == b"hello"
    assert app.said == ["startup", "shutdown"]


def test_a_task_that_is_cancelled_twice_stops_at_once(run: Runner[Any]) -> None:
    app = App()

    async def main() -> None:
        serving = server(app)
        task = asyncio.create_task(serving.serve())
        await serving.started
        request = asyncio.create_task(get(serving.port, "/slow"))
        await app.entered.wait()
        task.cancel()
        await one_iteration()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait((request,))
        request.exception()
        assert await other_tasks() == []

    run(main())

    assert app.said == ["startup", "cancelled"]


def test_a_program_that_cancels_its_task_and_ends_closes_the_sockets(run: Runner[Any]) -> None:
    async def main() -> ostler.Server:
        serving = server(App())
        task = asyncio.create_task(serving.serve())
        await serving.started
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait_for(task, PATIENCE)
        return serving

    assert all(sock.fileno() < 0 for sock in run(main()).sockets)


# -- stopping early, failing


def test_after_a_stop_before_serve_nothing_starts(run: Runner[Any]) -> None:
    app = App()
    serving = server(app)
    serving.stop()

    run(serving.serve())

    assert app.said == []
    assert not serving.started
    assert serving.started.wait(0) is False
    assert serving.port is None


def test_a_stop_during_start_up_ends_the_server(run: Runner[Any]) -> None:
    serving: list[ostler.Server] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        serving[0].stop()
        await receive()
        await asyncio.Event().wait()

    async def main() -> bool:
        serving.append(server(app))
        task = asyncio.create_task(serving[0].serve())
        started = await serving[0].started
        await task
        assert await other_tasks() == []
        return started

    assert run(main()) is False


def test_a_failed_start_up_is_raised_by_serve_and_by_started(run: Runner[Any]) -> None:
    async def main() -> None:
        serving = server(App(fails=True))
        task = asyncio.create_task(serving.serve())
        with pytest.raises(ostler.StartupError, match="no database"):
            await serving.started
        with pytest.raises(ostler.StartupError, match="no database"):
            await task
        with pytest.raises(ostler.StartupError):
            serving.started.wait(0)
        assert not serving.started
        assert await other_tasks() == []

    run(main())


def test_an_address_in_use_is_a_bind_error(run: Runner[Any]) -> None:
    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            serving = server(App(), port=taken.getsockname()[1])
            task = asyncio.create_task(serving.serve())
            with pytest.raises(ostler.BindError, match="another process has it"):
                await serving.started
            with pytest.raises(ostler.BindError):
                await task

    run(main())


def test_an_import_string_is_found_as_by_the_command_and_sys_path_is_restored(
    run: Runner[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "embedded_app.py").write_text("async def app(scope, receive, send):\n    await receive()\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "embedded_app", raising=False)
    before = list(sys.path)

    async def main() -> None:
        serving = server("embedded_app:app", lifespan="off")
        task = asyncio.create_task(serving.serve())
        await serving.started
        serving.stop()
        await task
        with pytest.raises(ostler.StartupError, match="could_not_be"):
            await server("could_not_be:app").serve()

    run(main())

    assert sys.path == before
    assert os.getcwd() == str(tmp_path)


def test_a_server_serves_only_once(run: Runner[Any]) -> None:
    serving = server(App())
    serving.stop()
    run(serving.serve())

    with pytest.raises(RuntimeError, match="make another one"):
        run(serving.serve())


def test_run_in_a_running_loop_is_refused_with_advice() -> None:
    async def main() -> None:
        server(App()).run()

    with pytest.raises(RuntimeError, match=r"await server\.serve\(\)"):
        asyncio.run(main())


def test_an_application_in_place_of_settings_is_refused() -> None:
    with pytest.raises(TypeError, match=r"expected ostler\.Config\(app, \.\.\.\), not App"):
        ostler.Server(App())  # type: ignore[arg-type]


def test_the_limit_of_requests_ends_the_server(run: Runner[Any]) -> None:
    async def main() -> None:
        serving = server(App(), limit_max_requests=1)
        task = asyncio.create_task(serving.serve())
        await serving.started
        assert await get(serving.port) == b"hello"
        await task

    run(main())


# -- sockets


def test_it_serves_on_given_sockets_and_closes_them(run: Runner[Any]) -> None:
    async def main() -> None:
        bound = socket.socket()
        bound.bind(("127.0.0.1", 0))
        serving = server(App())
        task = asyncio.create_task(serving.serve(sockets=[bound]))
        await serving.started
        assert serving.sockets == (bound,)
        assert serving.port == bound.getsockname()[1]
        assert await get(serving.port) == b"hello"
        serving.stop()
        await task
        assert bound.fileno() < 0

    run(main())


def test_given_sockets_are_left_at_once_when_the_server_drains(run: Runner[Any]) -> None:
    async def main() -> None:
        bound = socket.socket()
        bound.bind(("127.0.0.1", 0))
        address = bound.getsockname()
        app = App()
        serving = server(app)
        task = asyncio.create_task(serving.serve(sockets=[bound]))
        await serving.started
        slow = asyncio.create_task(get(serving.port, "/slow"))
        await app.entered.wait()
        serving.stop()
        for _ in range(20):  # turns of the loop
            await asyncio.sleep(0)
        # A client that could still connect would wait, and then be reset.
        with socket.socket() as late:
            outcome = late.connect_ex(address)
        app.released.set()
        assert await slow == b"hello"
        await task
        assert outcome == errno.ECONNREFUSED

    run(main())


def test_the_bound_address_is_found_as_in_uvicorn(run: Runner[Any]) -> None:
    async def main() -> None:
        serving = server(App())
        task = asyncio.create_task(serving.serve())
        await serving.started
        assert serving.servers[0].sockets[0].getsockname() == ("127.0.0.1", serving.port)
        serving.should_exit = True
        await task
        assert serving.port

    run(main())


def test_a_unix_socket_has_no_port_and_is_unlinked_at_the_end(run: Runner[Any], tmp_path: Path) -> None:
    async def main() -> None:
        serving = server(App(), port=None, uds=tmp_path / "o.sock")
        task = asyncio.create_task(serving.serve())
        await serving.started
        assert serving.port is None
        assert (tmp_path / "o.sock").is_socket()
        serving.stop()
        await task

    run(main())

    assert not (tmp_path / "o.sock").exists()


# -- in threads


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_two_servers_run_in_threads_and_are_stopped_from_another(loop: str) -> None:
    servers = [server(App(), loop=loop) for _ in range(2)]
    threads = [threading.Thread(target=serving.run) for serving in servers]
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    for thread in threads:
        thread.start()
    try:
        assert all(serving.started.wait(PATIENCE) for serving in servers)
        assert [fetch(serving.port) for serving in servers] == [b"hello", b"hello"]
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    finally:
        for serving in servers:
            serving.stop()
            serving.stop()
        for thread in threads:
            thread.join(PATIENCE)
    assert not any(thread.is_alive() for thread in threads)
    servers[0].stop()


def test_wait_raises_a_failure_of_the_server_in_another_thread() -> None:
    serving = server(App(fails=True))
    failures: list[BaseException] = []

    def target() -> None:
        try:
            serving.run()
        except ostler.StartupError as exc:
            failures.append(exc)

    thread = threading.Thread(target=target)
    thread.start()
    with pytest.raises(ostler.StartupError, match="no database"):
        serving.started.wait(PATIENCE)
    thread.join(PATIENCE)

    assert len(failures) == 1


def test_started_can_be_awaited_in_another_loop_than_the_servers() -> None:
    serving = server(App())
    thread = threading.Thread(target=serving.run)

    async def main() -> bool:
        waiting = asyncio.create_task(_awaited(serving.started))
        await one_iteration()
        thread.start()
        return await waiting

    assert asyncio.run(main())
    serving.stop()
    thread.join(PATIENCE)


def test_a_wait_that_would_block_a_loop_is_refused(run: Runner[Any]) -> None:
    async def main() -> None:
        serving = server(App())
        task = asyncio.create_task(serving.serve())
        with pytest.raises(RuntimeError, match=r"await server\.started instead"):
            serving.started.wait(PATIENCE)
        serving.stop()
        await task

    run(main())


async def _awaited(what: Awaitable[bool]) -> bool:
    return await what


def test_a_subclass_that_runs_in_a_thread_works_as_with_uvicorn() -> None:
    class Server(ostler.Server):
        def install_signal_handlers(self) -> None:
            pass

        @contextlib.contextmanager
        def run_in_thread(self) -> Iterator[None]:
            thread = threading.Thread(target=self.run)
            thread.start()
            pause = threading.Event()
            try:
                while not self.started:
                    pause.wait(0.001)
                yield
            finally:
                self.should_exit = True
                thread.join()

    serving = Server(config=ostler.Config(App(), port=0, log_level="info"), configure_logging=False)
    with serving.run_in_thread():
        assert fetch(serving.port) == b"hello"


# -- signals


@pytest.fixture
def program_got() -> Iterator[list[int]]:
    """The signals that reach the program's own handlers."""
    found: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda n, _: found.append(n)) for number in numbers]
    yield found
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_drains_the_server_and_then_reaches_the_program(
    number: signal.Signals, run: Runner[Any], program_got: list[int]
) -> None:
    app = App()

    async def main() -> None:
        serving = server(app)
        task = asyncio.create_task(serving.serve())
        await serving.started
        signal.raise_signal(number)
        assert program_got == []
        await task

    run(main())

    assert app.said == ["startup", "shutdown"]
    assert program_got == [number]


def test_a_second_sigint_stops_at_once(run: Runner[Any], program_got: list[int]) -> None:
    app = App()

    async def main() -> None:
        serving = server(app)
        task = asyncio.create_task(serving.serve())
        await serving.started
        request = asyncio.create_task(get(serving.port, "/slow"))
        await app.entered.wait()
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        await task
        await asyncio.wait((request,))
        request.exception()

    run(main())

    assert app.said == ["startup", "cancelled"]
    assert program_got == [signal.SIGINT]


def test_one_signal_stops_all_servers_of_a_loop_and_is_passed_on_once(
    run: Runner[Any], program_got: list[int]
) -> None:
    async def main() -> None:
        servers = [server(App()) for _ in range(3)]
        tasks = asyncio.gather(*(serving.serve() for serving in servers))
        for serving in servers:
            await serving.started
        signal.raise_signal(signal.SIGTERM)
        await tasks

    run(main())

    assert program_got == [signal.SIGTERM]


def test_ctrl_c_ends_asyncio_run_as_it_does_without_a_server() -> None:
    app = App()

    async def main() -> None:
        serving = server(app)
        task = asyncio.create_task(serving.serve())
        await serving.started
        signal.raise_signal(signal.SIGINT)
        await task
        await asyncio.Event().wait()

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        asyncio.run(main())

    assert app.said == ["startup", "shutdown"]
    assert signal.getsignal(signal.SIGINT) == before


def test_with_signals_false_the_program_gets_its_signals(run: Runner[Any], program_got: list[int]) -> None:
    async def main() -> None:
        serving = ostler.Server(ostler.Config(App(), port=0), signals=False, configure_logging=False)
        task = asyncio.create_task(serving.serve())
        await serving.started
        signal.raise_signal(signal.SIGTERM)
        assert program_got == [signal.SIGTERM]
        assert not serving.should_exit
        serving.stop()
        await task

    run(main())


def test_run_does_not_pass_the_signal_on(program_got: list[int]) -> None:
    app = App()
    serving = server(app)

    def interrupt() -> None:
        serving.started.wait(PATIENCE)
        os.kill(os.getpid(), signal.SIGTERM)

    timer = threading.Thread(target=interrupt)
    timer.start()

    serving.run()

    timer.join()
    assert app.said == ["startup", "shutdown"]
    assert program_got == []


def test_a_drain_delay_first_lets_health_checks_fail(run: Runner[Any], program_got: list[int]) -> None:
    async def main() -> None:
        serving = server(App(), health_path="/healthz", drain_delay=60)
        task = asyncio.create_task(serving.serve())
        await serving.started
        signal.raise_signal(signal.SIGTERM)
        assert await get(serving.port, "/healthz") == b"stopping\n"
        assert await get(serving.port) == b"hello"
        signal.raise_signal(signal.SIGTERM)
        await task

    run(main())

    assert program_got == [signal.SIGTERM]


def test_a_server_that_drains_before_its_delay_is_over_leaves_no_timer(
    run: Runner[Any], program_got: list[int]
) -> None:
    async def serve_once() -> weakref.ref[ostler.Server]:
        serving = server(App(), drain_delay=60)
        task = asyncio.create_task(serving.serve())
        await serving.started
        signal.raise_signal(signal.SIGTERM)
        await one_iteration()
        signal.raise_signal(signal.SIGTERM)
        await task
        return weakref.ref(serving)

    async def main() -> None:
        server_ref = await serve_once()
        gc.collect()
        assert server_ref() is None

    run(main())


# -- logs


@pytest.fixture
def loggers() -> Iterator[None]:
    """Restore the loggers afterwards."""
    known = [logging.getLogger(name) for name in ("ostler", "ostler.access")]
    before = [(lg.handlers[:], lg.level, lg.propagate, lg.disabled) for lg in known]
    yield
    for lg, (handlers, level, propagate, disabled) in zip(known, before, strict=True):
        lg.handlers[:], lg.propagate, lg.disabled = handlers, propagate, disabled
        lg.setLevel(level)


def test_only_ostlers_own_loggers_are_configured(
    run: Runner[Any], loggers: None, capsys: pytest.CaptureFixture[str]
) -> None:
    root = logging.getLogger()
    before = (root.handlers[:], root.level)

    async def main() -> None:
        serving = ostler.Server(ostler.Config(App(), port=0, log_level=logging.INFO))
        task = asyncio.create_task(serving.serve())
        await serving.started
        await get(serving.port)
        serving.stop()
        await task

    run(main())

    captured = capsys.readouterr()
    assert "Ostler running on http://127.0.0.1:" in captured.err
    assert '"GET / HTTP/1.1" 200 OK' in captured.out
    assert (root.handlers, root.level) == before
