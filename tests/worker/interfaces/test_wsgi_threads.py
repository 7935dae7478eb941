"""The threads that WSGI applications run in."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator

from ostler.worker.asgi import Message, Scope
from ostler.worker.interfaces.threads import Threads
from tests.worker.conftest import Serve
from tests.worker.harness import PATIENCE, Client, get, until
from tests.worker.interfaces.wsgi_apps import TEXT, Environ, Recorder, StartResponse, wsgi


def test_requests_run_side_by_side_and_wait_for_a_thread(serve: Serve) -> None:
    running = threading.Barrier(3)
    names: list[str] = []

    def app(environ: Environ, start_response: StartResponse) -> list[bytes]:
        running.wait(PATIENCE)
        names.append(threading.current_thread().name)
        start_response("200 OK", TEXT)
        return [b"ok"]

    server = serve(wsgi(app, threads=3))
    clients = [server.connect() for _ in range(12)]
    for client in clients:
        client.send(get())
    assert [client.answer().body for client in clients] == [b"ok"] * 12
    assert set(names) == {"wsgi-1", "wsgi-2", "wsgi-3"}


def test_a_thread_starts_only_when_none_is_idle(serve: Serve) -> None:
    names = set()

    def app(environ: Environ, start_response: StartResponse) -> list[bytes]:
        names.add(threading.current_thread().name)
        start_response("200 OK", TEXT)
        return [b"ok"]

    server = serve(wsgi(app))
    client = server.connect()
    for _ in range(20):
        client.ask(get())
        # The thread is idle a moment after its answer.
        until(lambda: server.server_state.app._threads._shared.idle)  # type: ignore[attr-defined]
    assert names == {"wsgi-1"}


def test_the_threads_end_with_the_adapter() -> None:
    done = threading.Semaphore(0)
    threads = Threads(3, "short-lived")
    for _ in range(3):
        threads.submit(done.release)
    for _ in range(3):
        assert done.acquire(timeout=PATIENCE)
    del threads
    gc.collect()  # PyPy counts no references
    until(lambda: not [thread for thread in threading.enumerate() if thread.name.startswith("short-lived")])


def test_past_the_grace_a_thread_is_left_behind_and_its_stack_is_logged(serve: Serve) -> None:
    go = threading.Event()
    ended = threading.Event()

    def hanging(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", TEXT)
        try:
            go.wait(PATIENCE)
            yield b"too late"
        finally:
            ended.set()

    server = serve(wsgi(hanging, threads=1))
    first, second = server.connect(), server.connect()
    first.send(get("/first?x"))
    until(lambda: any(thread.name == "wsgi-1" for thread in threading.enumerate()))
    server.until(lambda: server.server_state.in_flight == 1)
    second.send(get("/second"))
    server.until(lambda: server.server_state.in_flight == 2)
    until(lambda: server.call(lambda: server.server_state.app._threads._shared.idle) == -1)  # type: ignore[attr-defined]
    assert server.call(server.server_state.cancel) == 2
    assert first.answer().status == second.answer().status == 503
    (line,) = server.errors.lines
    assert line.startswith('"GET /first?x" still runs in a thread')
    assert "in hanging" in line
    go.set()
    assert ended.wait(PATIENCE)


def test_a_thread_that_waits_for_the_body_gets_an_error_when_its_request_is_cancelled(serve: Serve) -> None:
    raised = threading.Event()

    def app(environ: Environ, start_response: StartResponse) -> list[bytes]:
        try:
            environ["wsgi.input"].read()
        except OSError:
            raised.set()
            raise
        return []

    server = serve(wsgi(app))
    client: Client = server.connect()
    client.send(get("/", "Content-Length: 10", "Expect: 100-continue", method="POST"))
    client.until(b"Continue\r\n\r\n")
    server.call(server.server_state.cancel)
    assert raised.wait(PATIENCE)
    assert client.answer().status == 503


def test_a_websocket_is_closed_before_it_is_accepted(serve: Serve) -> None:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        sent.append(message)

    async def connect() -> None:
        scope: Scope = {"type": "websocket"}
        await wsgi(Recorder())(scope, receive, send)

    serve(wsgi(Recorder())).wait(connect())
    assert sent == [{"type": "websocket.close"}]
