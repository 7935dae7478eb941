"""What an application does wrong: exceptions, and messages of the wrong kind, order or content."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any

from tests.replay.behaviours import Note, Receive, Scope, Send, get, http
from tests.replay.cases import answer, answers, attempt, body, length, raises, sends, start

ERROR = ValueError("a fault of the app")
ALL = ("responses", "then", "app", "errors")


async def _returns(scope: Scope, receive: Receive, send: Send, note: Note) -> None:
    return None


async def _returns_early(scope: Scope, receive: Receive, send: Send, note: Note) -> None:
    await send(start(200))
    await send(body(b"a", True))


async def _returns_value(scope: Scope, receive: Receive, send: Send, note: Note) -> Any:
    await answer(send)
    return "a value"


async def _exits(scope: Scope, receive: Receive, send: Send, note: Note) -> None:
    raise SystemExit(3)


async def _goes_on(scope: Scope, receive: Receive, send: Send, note: Note) -> None:
    for message in (start(), body(b"a"), body(b"b")):
        try:
            await send(message)
        except Exception as error:  # noqa: BLE001 - what is raised is the observation
            note(f"{type(error).__name__}: {error}")


http("faults/an exception before the start", raises(ERROR))
http("faults/an exception after the start", raises(ERROR, start()))
http("faults/an exception after a piece", raises(ERROR, start(), body(b"a", True)))
http(
    "faults/an exception after a piece of known length",
    raises(ERROR, start(200, [length(5)]), body(b"a", True)),
)
http("faults/an exception after the end", raises(ERROR, start(200, [length(1)]), body(b"a")))
http("faults/an exception for HEAD", raises(ERROR), get(method="HEAD"))
http("faults/the access line of an exception", raises(ERROR), see=("access",))
http(
    "faults/the access line of an exception after the start",
    raises(ERROR, start(), body(b"a", True)),
    see=("access",),
)
http("faults/a chained exception", raises(ERROR.with_traceback(None)), see=("errors",))
http("faults/returns without a response", _returns)
http("faults/returns after the start", sends(start()))
http("faults/returns in the middle of the body", _returns_early)
http(
    "faults/returns in the middle of a body of known length", sends(start(200, [length(5)]), body(b"a", True))
)
http("faults/returns a value", _returns_value)
http("faults/a body before the start", sends(body(b"a")))
http("faults/two starts", sends(start(), start()))
http("faults/two starts, the first sent", sends(start(), body(b"a", True), start()))
http("faults/a body after the end", sends(start(), body(b"a"), body(b"b")))
http("faults/a start after the end", sends(start(), body(b"a"), start()))
http("faults/a body after the end, swallowed", _goes_on)
http("faults/a body longer than its length", sends(start(200, [length(2)]), body(b"abc")))
http(
    "faults/a body shorter than its length",
    sends(start(200, [length(5)]), body(b"abc")),
    see=("responses", "then"),
)
http("faults/an unknown type of message", sends({"type": "http.nonsense"}))
http("faults/a message of WebSockets", sends({"type": "websocket.accept"}))
http("faults/a message without a type", sends({"status": 200}))
http("faults/a start without a status", sends({"type": "http.response.start"}))
http(
    "faults/a status that is text",
    sends({"type": "http.response.start", "status": "200", "headers": []}, body()),
    see=("responses", "then", "app"),
)
http("faults/a status of 99", sends(start(99), body()), see=("status", "then"))
http("faults/a status of 1000", sends(start(1000), body()), see=("status", "then"))
http("faults/a status of 700", sends(start(700), body(b"x")), see=("status", "then"))
http("faults/a status of an enumeration", sends(start(HTTPStatus.CREATED), body(b"x")))
http(
    "faults/a body that is text",
    sends(start(), {"type": "http.response.body", "body": "text"}),
    see=("responses", "then"),
)
http("faults/a header that is text", sends(start(200, [("x", "y")]), body(b"x")), see=("status", "then"))  # type: ignore[list-item]
http(
    "faults/a line break in a header's value",
    answers("x", headers=[(b"x-a", b"1\r\nx-b: 2")]),
    see=("status", "then"),
)
http("faults/a blank in a header's name", answers("x", headers=[(b"x a", b"1")]), see=("status", "then"))
http("faults/a colon in a header's name", answers("x", headers=[(b"x:a", b"1")]), see=("status", "then"))
http(
    "faults/a length that is no number",
    sends(start(200, [(b"content-length", b"abc")]), body(b"x")),
    see=("status", "then"),
)
http("faults/a body with a 204", sends(start(204), body(b"abc")))
http("faults/a body with a 304", sends(start(304), body(b"abc")))
http(
    "faults/a body with HEAD that is longer than its length",
    sends(start(200, [length(1)]), body(b"abc")),
    get(method="HEAD"),
)


async def _cancelled(scope: Scope, receive: Receive, send: Send, note: Note) -> None:
    raise asyncio.CancelledError


http("faults/CancelledError out of the app", _cancelled, see=("status", "then"))


class Group(Exception):
    """An exception whose text has two lines."""


http("faults/an exception with two lines", raises(Group("one\ntwo")))


async def _after_all(scope: Scope, receive: Receive, send: Send, note: Note) -> None:
    await answer(send)
    try:
        await attempt(send, note, start())
    except RuntimeError:
        await attempt(send, note, body(b"x"))


http("faults/which exceptions come after the end", _after_all, see=("responses", "then", "app"))
