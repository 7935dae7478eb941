"""Which context variables a request's task sees."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import pytest

from ostler.worker.asgi import Receive, Scope, Send
from ostler.worker.interfaces.wsgi import WsgiAdapter
from tests.worker.conftest import Serve
from tests.worker.harness import get, opened, post, read_body, respond

seen: ContextVar[str] = ContextVar("seen", default="nothing")
outside: ContextVar[str] = ContextVar("outside", default="nothing")


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with the variable's value, and sets it: a later request would answer with that."""
    before = f"{outside.get()} {seen.get()}"
    seen.set(scope["path"])
    await read_body(receive)
    await respond(send, before.encode())


@pytest.mark.parametrize("reset", [False, True])
def test_requests_on_one_connection_do_not_see_each_others_variables(serve: Serve, reset: bool) -> None:
    client = serve(app, reset_contextvars=reset).connect()
    assert [client.ask(get(f"/{number}")).body for number in range(3)] == [b"nothing nothing"] * 3


@pytest.mark.parametrize("reset", [False, True])
def test_a_pipelined_request_does_not_begin_in_its_predecessors_context(serve: Serve, reset: bool) -> None:
    client = serve(app, reset_contextvars=reset).connect()
    client.send(get("/first") + get("/second"))
    assert [client.answer().body for _ in range(2)] == [b"nothing nothing"] * 2


def test_a_request_after_a_paused_body_sees_nothing_when_it_is_reset(serve: Serve) -> None:
    go = threading.Event()

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/first":
            await opened(go.is_set)
        await app(scope, receive, send)

    server = serve(slow, reset_contextvars=True)
    client = server.connect()
    body = b"x" * 3_000_000
    sender = threading.Thread(target=client.send, args=(post("/first", body=body),))
    sender.start()
    # Reading is resumed in the task of the first request: asyncio then reads in the context of that task.
    server.until(lambda: any(c.reading_paused for c in server.server_state.connections))  # type: ignore[attr-defined]
    go.set()
    assert client.answer().body == b"nothing nothing"
    sender.join()
    assert client.ask(get("/second")).body == b"nothing nothing"


@pytest.mark.parametrize("reset", [False, True])
def test_what_is_set_where_a_request_begins_is_seen_unless_that_is_reset(serve: Serve, reset: bool) -> None:
    server = serve(app, reset_contextvars=reset)
    answers: list[str] = []

    async def record() -> None:
        answers.append(outside.get())

    async def create() -> None:
        outside.set("instrumented")
        await server.server_state.create_task(record())

    server.wait(create())
    assert answers == ["nothing" if reset else "instrumented"]


@pytest.mark.parametrize("reset", [False, True])
def test_a_wsgi_applications_thread_has_its_requests_context(serve: Serve, reset: bool) -> None:
    def wsgi_app(environ: dict[str, Any], start_response: Callable[..., object]) -> list[bytes]:
        before = seen.get()
        seen.set("a thread's own")  # no other request sees it
        start_response("200 OK", [])
        return [before.encode()]

    adapted = WsgiAdapter(wsgi_app, threads=1, multiprocess=False)

    async def middleware(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/first":
            seen.set("/first")
        await adapted(scope, receive, send)

    client = serve(middleware, reset_contextvars=reset).connect()
    client.send(get("/first") + get("/second"))
    assert [client.answer().body for _ in range(2)] == [b"/first", b"nothing"]
