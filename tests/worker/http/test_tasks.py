"""The task in which an app answers a request: when it begins, how it is made, and how it is cancelled."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine
from contextlib import closing
from contextvars import copy_context
from typing import Any

import pytest

from ostler.settings.declarations import Settings
from ostler.worker.asgi import Application, Receive, Scope, Send
from ostler.worker.eager_tasks import MOST_A_TURN, EagerTasks
from ostler.worker.server_state import ServerState
from tests.worker.conftest import Serve
from tests.worker.harness import PATIENCE, get, hello, respond


def test_each_request_has_a_task_of_its_own(serve: Serve) -> None:
    tasks: list[asyncio.Task[Any] | None] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        task = asyncio.current_task()
        assert task in asyncio.all_tasks()
        tasks.append(task)
        await asyncio.sleep(0)
        assert asyncio.current_task() is task
        await respond(send)

    client = serve(app).connect()
    client.send(get() + get())
    assert [client.answer().status for _ in range(2)] == [200, 200]
    assert len(set(tasks)) == 2
    assert None not in tasks


def test_requests_begin_in_their_order_and_not_while_they_are_read(serve: Serve) -> None:
    entered: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        entered.append(scope["path"])
        await respond(send, scope["raw_path"])

    server = serve(app)
    clients = [server.connect() for _ in range(4)]
    server.until(lambda: len(server.server_state.connections) == 4)
    connections = {c.client[1]: c for c in server.server_state.connections}  # type: ignore[attr-defined]
    paths = ["/0", "/1", "/2", "/3"]

    def read_all() -> list[str]:
        for client, path in zip(clients, paths, strict=True):
            connections[client.socket.getsockname()[1]].data_received(get(path))  # type: ignore[attr-defined]
        return entered.copy()

    assert server.call(read_all) == []
    assert [client.answer().body.decode() for client in clients] == paths
    assert entered == paths


def test_an_app_that_cancels_everything_is_cancelled_itself_and_what_waits_never_begins(serve: Serve) -> None:
    entered: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        entered.append(scope["path"])
        assert server.server_state.cancel() == 2
        await asyncio.sleep(0)
        entered.append("not cancelled")

    server = serve(app)
    clients = [server.connect() for _ in range(2)]
    server.until(lambda: len(server.server_state.connections) == 2)

    def read_both() -> None:
        for connection in server.server_state.connections:
            connection.data_received(get())  # type: ignore[attr-defined]

    server.call(read_both)
    assert [client.answer().status for client in clients] == [503, 503]
    assert all(client.ended() for client in clients)
    server.until(lambda: server.server_state.in_flight == 0)
    assert entered == ["/"]
    assert server.errors.lines == []


def test_a_request_is_cancelled_in_its_first_step_although_another_task_cancels(serve: Serve) -> None:
    ended: list[str] = []

    async def cancel_all() -> None:
        server.server_state.cancel()
        await asyncio.sleep(0)
        ended.append("the task that cancels")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        loop = asyncio.get_running_loop()
        # Where tasks can begin eagerly, as those of requests do, this is the current task when it cancels.
        eager: dict[str, Any] = {"eager_start": True} if sys.version_info >= (3, 12) else {}
        other = asyncio.Task(cancel_all(), loop=loop, **eager)
        try:
            await asyncio.sleep(PATIENCE)
        finally:
            await other
            ended.append("the request")

    server = serve(app)
    client = server.connect()
    assert client.ask(get()).status == 503
    server.until(lambda: server.server_state.in_flight == 0)
    assert ended == ["the task that cancels", "the request"]


@pytest.mark.parametrize("reset", [False, True])
def test_a_task_factory_is_used_once_the_application_sets_it(serve: Serve, reset: bool) -> None:
    made: list[str] = []

    def factory(
        loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any], **options: Any
    ) -> asyncio.Task[Any]:
        made.append(getattr(coroutine, "__qualname__", "nameless"))
        return asyncio.Task(coroutine, loop=loop, **options)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] != "/":
            set_factory: Any = asyncio.get_running_loop().set_task_factory
            set_factory(factory if scope["path"] == "/set" else None)
        await respond(send)

    client = serve(app, reset_contextvars=reset).connect()
    for path in ("/", "/set", "/", "/", "/unset", "/"):
        assert client.ask(get(path)).status == 200
    assert made == ["Cycle.run"] * 3


class OwnLoop(asyncio.SelectorEventLoop):
    """An event loop that is neither asyncio's nor uvloop's own class."""


def test_only_where_tasks_are_made_as_usual_do_they_begin_eagerly() -> None:
    with closing(asyncio.new_event_loop()) as usual, closing(OwnLoop()) as own:
        services = [ServerState(Settings(), hello, state={}, loop=loop) for loop in (usual, own)]
        assert [server_state.eager_tasks is not None for server_state in services] == [
            sys.version_info >= (3, 12),
            False,
        ]


class Named:
    """A request that only has a name."""

    def __init__(self, name: str, begun: list[str]) -> None:
        self.task: asyncio.Task[None] | None = None
        self.name = name
        self.begun = begun

    async def run(self, app: Application) -> None:
        self.begun.append(self.name)


def test_an_exception_of_a_signal_handler_does_not_keep_other_requests_from_beginning() -> None:
    begun: list[str] = []

    def make_task(coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        if not begun:
            begun.append("interrupted")
            coroutine.close()
            raise KeyboardInterrupt
        return loop.create_task(coroutine)

    async def turns() -> None:
        for _ in range(3):
            await asyncio.sleep(0)

    with closing(asyncio.new_event_loop()) as loop:
        tasks = EagerTasks(loop, copy_context(), make_task=make_task, make_usual_task=make_task)
        for name in ("first", "second", "third"):
            tasks.add(Named(name, begun), hello)
        with pytest.raises(KeyboardInterrupt):
            loop.run_until_complete(turns())
        tasks.add(Named("fourth", begun), hello)
        loop.run_until_complete(turns())
    assert begun == ["interrupted", "second", "third", "fourth"]


def test_a_loop_that_is_run_within_a_request_begins_none_twice() -> None:
    begun: list[str] = []

    def make_task(coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        if not begun:
            begun.append("outer")
            tasks.add(Named("inner", begun), hello)
            tasks._begin()  # as an inner loop does
        return loop.create_task(coroutine)

    async def turn() -> None:
        await asyncio.sleep(0)

    with closing(asyncio.new_event_loop()) as loop:
        tasks = EagerTasks(loop, copy_context(), make_task=make_task, make_usual_task=make_task)
        for name in ("first", "second", "third"):
            tasks.add(Named(name, begun), hello)
        for _ in range(3):
            loop.run_until_complete(turn())
    assert sorted(begun) == ["first", "inner", "outer", "second", "third"]


def test_a_crowd_of_requests_begins_in_parts_one_a_turn_and_in_order() -> None:
    begun: list[str] = []
    parts: list[int] = []

    def make_task(coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        begun.append("")
        return loop.create_task(coroutine)

    async def turns() -> None:
        for turn in range(5):
            tasks.add(Named(f"later {turn}", order), hello)
            before = len(begun)
            await asyncio.sleep(0)
            parts.append(len(begun) - before)

    order: list[str] = []
    with closing(asyncio.new_event_loop()) as loop:
        tasks = EagerTasks(loop, copy_context(), make_task=make_task, make_usual_task=make_task)
        for number in range(2 * MOST_A_TURN):
            tasks.add(Named(f"{number}", order), hello)
        loop.run_until_complete(turns())
        loop.run_until_complete(asyncio.sleep(0))
    assert max(parts) == MOST_A_TURN
    assert order == [*map(str, range(2 * MOST_A_TURN)), *(f"later {turn}" for turn in range(5))]
