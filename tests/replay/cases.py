"""Applications from which the topics make theirs: they send given messages, or note what they see."""

from __future__ import annotations

from collections.abc import Sequence

from tests.replay.behaviours import Case, Message, Note, Receive, Scope, Send

Headers = Sequence[tuple[bytes, bytes]]


def start(status: int = 200, headers: Headers = (), **more: object) -> Message:
    """Return an `http.response.start`."""
    return {"type": "http.response.start", "status": status, "headers": list(headers), **more}


def body(data: bytes = b"", more: bool = False) -> Message:
    """Return an `http.response.body`."""
    return {"type": "http.response.body", "body": data, "more_body": more}


def length(count: int) -> tuple[bytes, bytes]:
    """Return a Content-Length header."""
    return (b"content-length", str(count).encode())


async def answer(send: Send, text: str = "ok") -> None:
    """Send a whole response of 200 with a length."""
    await send(start(200, [length(len(text))]))
    await send(body(text.encode()))


async def attempt(send: Send, note: Note, message: Message) -> None:
    """Send a message; an exception is noted, and goes on to the server as in any application."""
    try:
        await send(message)
    except BaseException as error:
        note(f"{message.get('type')}: {type(error).__name__}: {error}")
        raise


def shown(message: Message) -> str:
    """Return a received message as Python writes it.

    A number that is a member of an enumeration is a number. A reason that is empty is left out: it is the
    default by the ASGI specification.
    """
    plain = {
        key: int(value) if type(value) not in (bool, str, bytes) else value for key, value in message.items()
    }
    if not plain.get("reason", True):
        del plain["reason"]
    return repr(plain)


def sends(*messages: Message) -> Case:
    """Return an application that sends these messages and returns."""

    async def case(scope: Scope, receive: Receive, send: Send, note: Note) -> None:
        for message in messages:
            await attempt(send, note, message)

    return case


def answers(text: str = "ok", status: int = 200, headers: Headers = ()) -> Case:
    """Return an application that answers with a text of known length."""
    return sends(start(status, [length(len(text)), *headers]), body(text.encode()))


def notes_scope(*keys: str) -> Case:
    """Return an application that notes these keys of the scope, as Python writes them, and answers."""

    async def case(scope: Scope, receive: Receive, send: Send, note: Note) -> None:
        for key in keys:
            note(repr(scope.get(key, "absent")))
        if scope["type"] == "http":
            await answer(send)
        else:
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.close"})

    return case


def notes_messages(count: int = 1, *, first: bool = True) -> Case:
    """Return an application that notes `count` received messages; without `first` it answers before."""

    async def case(scope: Scope, receive: Receive, send: Send, note: Note) -> None:
        if not first:
            await answer(send)
        for _ in range(count):
            note(shown(await receive()))
        if first:
            await answer(send)

    return case


async def reads_body(scope: Scope, receive: Receive, send: Send, note: Note) -> None:
    """Note the whole body and answer."""
    data, more = b"", True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            note(shown(message))
            return
        data += message.get("body", b"")
        more = message.get("more_body", False)
    note(repr(data) if len(data) < 200 else len(data))
    await answer(send)


def raises(error: Exception, *before: Message) -> Case:
    """Return an application that sends `before` and raises."""

    async def case(scope: Scope, receive: Receive, send: Send, note: Note) -> None:
        for message in before:
            await send(message)
        raise error

    return case
