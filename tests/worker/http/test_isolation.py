"""What one request does to its scope and its context is not seen by another."""

from __future__ import annotations

import contextvars
from typing import Any

from ostler.worker.asgi import Receive, Scope, Send
from tests.worker.conftest import Serve
from tests.worker.harness import get, post, read_body, respond


def test_what_an_app_changes_in_its_scope_stays_there(serve: Serve) -> None:
    seen: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append({name: repr(value) for name, value in scope.items()})
        scope["asgi"]["mine"] = scope["mine"] = scope["state"]["mine"] = True
        scope["headers"].append((b"mine", b"1"))
        scope["path"] = scope["root_path"] = "/mine"
        scope.pop("scheme")
        await respond(send)

    client = serve(app).connect()
    client.ask(get())
    client.ask(get())
    assert seen[0] == seen[1]


class Marking:
    """An app that answers with the mark that it found in its context, and leaves its own there."""

    def __init__(self) -> None:
        self.mark: contextvars.ContextVar[str] = contextvars.ContextVar("mark", default="none")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        found = self.mark.get()
        self.mark.set(scope["path"])
        await read_body(receive)
        await respond(send, found.encode())


def test_a_context_variable_is_not_seen_by_the_next_request(serve: Serve) -> None:
    server = serve(Marking())
    client = server.connect()
    assert [client.ask(get(f"/{n}")).body for n in range(3)] == [b"none"] * 3
    assert server.ask(get()).body == b"none"


def test_a_context_variable_is_not_seen_by_a_request_that_is_read_because_the_app_resumed_reading(
    serve: Serve,
) -> None:
    # asyncio runs a reader in the context of the code that added it: here, of the app that asks for more of
    # its body (cpython#140947).
    client = serve(Marking()).connect()
    body = b"x" * 1_000_000
    assert [client.ask(post(f"/{n}", body=body)).body for n in range(3)] == [b"none"] * 3


def test_a_context_variable_is_not_seen_by_a_request_that_waited_for_its_turn(serve: Serve) -> None:
    client = serve(Marking()).connect()
    client.send(get("/1") + get("/2") + post("/3", body=b"x" * 200_000) + get("/4"))
    assert [client.answer().body for _ in range(4)] == [b"none"] * 4
