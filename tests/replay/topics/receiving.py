"""receive(): bodies, disconnects, 100 Continue; and sending to a client that has gone."""

from __future__ import annotations

import asyncio

from tests.replay.behaviours import Note, Receive, Scope, Send, get, http
from tests.replay.cases import answer, attempt, body, notes_messages, reads_body, shown, start

APP = ("app", "status", "then")
CHUNKED = get("/", "Transfer-Encoding: chunked", method="POST")
EXPECTS = get("/", "Expect: 100-continue", "Content-Length: 3", method="POST")


def body_of(name: str, *pieces: bytes) -> None:
    """Add a behaviour: the body that an application reads."""
    http(f"receiving/body: {name}", reads_body, *pieces, see=APP)


body_of("of GET is empty")
body_of("with a length", get(method="POST", body=b"abc"))
body_of("of a length of 0", get("/", "Content-Length: 0", method="POST"))
body_of("chunked", CHUNKED + b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
body_of("chunked, empty", CHUNKED + b"0\r\n\r\n")
body_of("chunked with an extension", CHUNKED + b"3;a=b\r\nabc\r\n0\r\n\r\n")
body_of("chunked with trailers", CHUNKED + b"3\r\nabc\r\n0\r\nX-A: 1\r\n\r\n")
body_of("chunked with hex in upper case", CHUNKED + b"A\r\n0123456789\r\n0\r\n\r\n")
body_of("of GET with a length", get(body=b"abc"))
body_of("of DELETE with a length", get(method="DELETE", body=b"abc"))
body_of("of 200 kB", get(method="POST", body=b"x" * 200_000))
body_of("of HTTP/1.0", get(method="POST", version="1.0", body=b"abc"))
http(
    "receiving/body of two pipelined requests",
    reads_body,
    get(method="POST", body=b"abc") + get(method="POST", body=b"de"),
    answers=2,
    see=APP,
)
http("receiving/messages of GET", notes_messages(1), see=APP)
http("receiving/messages of a short POST", notes_messages(1), get(method="POST", body=b"abc"), see=APP)
http(
    "receiving/messages of chunks that arrive together",
    notes_messages(1),
    CHUNKED + b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
    see=APP,
)
http("receiving/receive after the response says disconnect", notes_messages(2, first=False), see=APP)
http("receiving/receive after the response twice", notes_messages(3, first=False), see=APP)


async def _waits_for_disconnect(scope: Scope, receive: Receive, send: Send, note: Note) -> None:
    note((await receive())["type"])
    note(shown(await receive()))


http("receiving/disconnect while the app waits", _waits_for_disconnect, hang_up=True, see=("app", "errors"))
http("receiving/disconnect has no access line", _waits_for_disconnect, hang_up=True, see=("access",))


async def _disconnect_repeats(scope: Scope, receive: Receive, send: Send, note: Note) -> None:
    for _ in range(3):
        note((await receive())["type"])


http("receiving/disconnect is said again", _disconnect_repeats, hang_up=True, see=("app", "errors"))
http(
    "receiving/disconnect in the middle of a body",
    _disconnect_repeats,
    get("/", "Content-Length: 10", method="POST") + b"abc",
    hang_up=True,
    see=("app", "errors"),
)


async def _sends_after_disconnect(scope: Scope, receive: Receive, send: Send, note: Note) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    try:
        await send(start())
        await send(body(b"x", True))
        await send(body(b"x"))
        note("nothing raised")
    except OSError:
        note("OSError")


http("receiving/send after a disconnect", _sends_after_disconnect, hang_up=True, see=("app", "errors"))


async def _streams_until_gone(scope: Scope, receive: Receive, send: Send, note: Note) -> None:
    await send(start())
    await send(body(b"x", True))
    while (await receive())["type"] != "http.disconnect":
        pass
    note("disconnect")


http(
    "receiving/disconnect in the middle of a response",
    _streams_until_gone,
    hang_up=True,
    see=("app", "errors"),
)


async def _receives_beside(scope: Scope, receive: Receive, send: Send, note: Note) -> None:
    await receive()
    waiting = asyncio.ensure_future(receive())
    await asyncio.sleep(0)
    note(waiting.done())
    await answer(send)
    note(shown(await waiting))


http("receiving/a receive that waits as the response ends", _receives_beside, see=APP)


async def _ignores_body(scope: Scope, receive: Receive, send: Send, note: Note) -> None:
    await answer(send)


async def _reads_after_wait(scope: Scope, receive: Receive, send: Send, note: Note) -> None:
    note("waiting")
    await reads_body(scope, receive, send, note)


SEEN = ("responses", "then", "app")
http("receiving/a short body that is not read", _ignores_body, get(method="POST", body=b"abc"), see=SEEN)
http("receiving/a chunked body that is not read", _ignores_body, CHUNKED + b"3\r\nabc\r\n0\r\n\r\n", see=SEEN)
http("receiving/100 Continue when the body is read", _reads_after_wait, EXPECTS, b"abc", see=SEEN)
http("receiving/no 100 Continue when the body is not read", _ignores_body, EXPECTS, see=SEEN)
http(
    "receiving/100-continue in other case",
    reads_body,
    get("/", "Expect: 100-Continue", "Content-Length: 3", method="POST"),
    b"abc",
    see=SEEN,
)
http("receiving/expect with the body sent already", reads_body, EXPECTS + b"abc", see=SEEN)
http(
    "receiving/an expectation that nobody knows",
    reads_body,
    get("/", "Expect: tea", method="POST", body=b"abc"),
    see=SEEN,
)


async def _answers_early(scope: Scope, receive: Receive, send: Send, note: Note) -> None:
    await answer(send, "early")
    note((await receive())["type"])


http("receiving/an answer before the body is read", _answers_early, get(method="POST", body=b"abc"), see=SEEN)


async def _two_senders(scope: Scope, receive: Receive, send: Send, note: Note) -> None:
    await send(start())
    await asyncio.gather(*(send(body(b"x", True)) for _ in range(3)))
    await attempt(send, note, body())


http("receiving/several tasks send", _two_senders, see=SEEN)


async def _background(scope: Scope, receive: Receive, send: Send, note: Note) -> None:
    await answer(send)
    await asyncio.sleep(0.05)
    note("done")


http("receiving/work after the response", _background, see=SEEN)
http(
    "receiving/work after the response does not hold up the next request",
    _background,
    get() + get(),
    answers=2,
    see=("status", "app"),
)
http(
    "receiving/work after the response goes on without the client",
    _background,
    hang_up=True,
    see=("app", "errors"),
)
