"""WebSockets: handshakes, messages, close codes, and what goes wrong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tests.replay.behaviours import Case, Message, Note, Receive, Scope, Send, get, upgrade, websocket
from tests.replay.cases import attempt, shown
from tests.replay.websocket_client import binary, close, frame, text

ACCEPT: Message = {"type": "websocket.accept"}
CLIENT = ("handshake", "frames", "end")
ALL = (*CLIENT, "app", "errors")
FRAMES = ("frames", "end", "app")


def plays(*messages: Message) -> Case:
    """Return an application that receives the connect, sends these messages and returns."""

    async def case(scope: Scope, receive: Receive, send: Send, note: Note) -> None:
        await receive()
        for message in messages:
            await attempt(send, note, message)

    return case


def say(value: str | bytes) -> Message:
    """Return a `websocket.send`."""
    return {"type": "websocket.send", "text" if isinstance(value, str) else "bytes": value}


def end(code: int | None = None, reason: str | None = None) -> Message:
    """Return a `websocket.close`."""
    more: dict[str, Any] = {} if code is None else {"code": code}
    return {"type": "websocket.close", **more, **({} if reason is None else {"reason": reason})}


async def echoes(scope: Scope, receive: Receive, send: Send, note: Note) -> None:
    """Send back each message, until the client goes."""
    await receive()
    await send(ACCEPT)
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            note(shown(message))
            return
        data = message.get("text") if message.get("text") is not None else message.get("bytes")
        note(shown(message) if data is None or len(data) < 200 else len(data))
        await send(say(data if data is not None else "nothing"))


async def notes_code(scope: Scope, receive: Receive, send: Send, note: Note) -> None:
    """Accept, and note the code of the disconnect."""
    await receive()
    await send(ACCEPT)
    while (message := await receive())["type"] != "websocket.disconnect":
        pass
    note(int(message["code"]))


def shake(
    name: str, app: Case, *headers: str, flags: Sequence[str] = (), see: Sequence[str] = ("handshake",)
) -> None:
    """Add a behaviour: a handshake with these headers."""
    websocket(
        f"websockets/handshake: {name}", app, close(), head=upgrade("/", *headers), flags=flags, see=see
    )


def refused(name: str, head: bytes, see: Sequence[str] = ("status", "app")) -> None:
    """Add a behaviour: a handshake of these bytes, which is not one."""
    websocket(f"websockets/handshake: {name}", plays(ACCEPT, end()), close(), head=head, see=see)


def talk(
    name: str,
    app: Case,
    *frames: bytes,
    flags: Sequence[str] = (),
    see: Sequence[str] = FRAMES,
    answers: int = 0,
) -> None:
    """Add a behaviour: these frames, the last one after so many answers."""
    websocket(f"websockets/{name}", app, *frames, flags=flags, see=see, answers=answers)


def violation(name: str, *frames: bytes, flags: Sequence[str] = ()) -> None:
    """Add a behaviour: frames that are not allowed. The code counts; the reason is in the library's words."""
    websocket(f"websockets/{name}", notes_code, *frames, flags=flags, see=("codes", "end", "app"))


NO_DEFLATE = ("--ws-per-message-deflate", "false")
shake("accepted", plays(ACCEPT, end()))
shake("with a subprotocol", plays({**ACCEPT, "subprotocol": "b"}, end()), "Sec-WebSocket-Protocol: a, b")
shake("no subprotocol chosen", plays(ACCEPT, end()), "Sec-WebSocket-Protocol: a, b")
shake(
    "a subprotocol that was not offered",
    plays({**ACCEPT, "subprotocol": "z"}, end()),
    "Sec-WebSocket-Protocol: a",
    see=("handshake", "app"),
)
shake(
    "with headers of the app", plays({**ACCEPT, "headers": [(b"X-A", b"1"), (b"set-cookie", b"a=b")]}, end())
)
shake("with --header", plays(ACCEPT, end()), flags=("--header", "X-A:1"))
shake("without server and date", plays(ACCEPT, end()), flags=("--no-server-header", "--no-date-header"))
shake("compression is offered", plays(ACCEPT, end()), "Sec-WebSocket-Extensions: permessage-deflate")
shake(
    "compression with window bits",
    plays(ACCEPT, end()),
    "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits",
)
shake(
    "compression is switched off",
    plays(ACCEPT, end()),
    "Sec-WebSocket-Extensions: permessage-deflate",
    flags=NO_DEFLATE,
)
shake("an extension that nobody knows", plays(ACCEPT, end()), "Sec-WebSocket-Extensions: foo")
shake("closed before it is accepted", plays(end()), see=ALL)
shake("closed before it is accepted, with a code", plays(end(4001, "no")), see=ALL)
shake(
    "the application raises before it accepts", plays({"type": "nonsense"}), see=("handshake", "end", "app")
)
shake("the application returns before it accepts", plays(), see=("handshake", "end"))
shake("sent before it is accepted", plays(say("x")), see=("handshake", "end", "app"))
shake("log lines of an accepted one", plays(ACCEPT, end()), see=("errors", "access"))
shake("log lines of a refused one", plays(end()), see=("errors", "access"))
refused("without a key", get("/", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"))
refused("with a key of the wrong length", upgrade(key="abc"))
refused("of version 8", upgrade().replace(b"Version: 13", b"Version: 8"))
refused("without a version", upgrade().replace(b"Sec-WebSocket-Version: 13\r\n", b""))
refused("by POST", upgrade().replace(b"GET", b"POST"))
refused("in HTTP/1.0", upgrade().replace(b"HTTP/1.1", b"HTTP/1.0"))
refused("Upgrade in other case", upgrade().replace(b"Upgrade: websocket", b"Upgrade: WebSocket"))
refused("Connection is a list", upgrade().replace(b"Connection: Upgrade", b"Connection: keep-alive, upgrade"))

DENY: Message = {
    "type": "websocket.http.response.start",
    "status": 401,
    "headers": [(b"x-a", b"1"), (b"content-length", b"2")],
}
DENIAL: Message = {"type": "websocket.http.response.body", "body": b"no"}
shake("denied with a response", plays(DENY, DENIAL), see=ALL)
shake(
    "denied in pieces",
    plays({**DENY, "headers": []}, {**DENIAL, "more_body": True}, DENIAL),
    see=("handshake", "app"),
)
shake(
    "denied with 404 and no body",
    plays({**DENY, "status": 404, "headers": []}, {"type": DENIAL["type"]}),
    see=("status", "app"),
)
shake("denied, and never ended", plays(DENY), see=("end", "app"))
shake("denied, then accepted", plays(DENY, ACCEPT), see=("app",))

talk("echo of text", echoes, text("hello"), close(), answers=1)
talk("echo of bytes", echoes, binary(b"\x00\xff"), close(), answers=1)
talk("echo of nothing", echoes, text(""), binary(b""), close(), answers=2)
talk("echo of several", echoes, text("a"), binary(b"b"), text("c"), close(), answers=3)
talk("echo of UTF-8", echoes, text("é€😀"), close(), answers=1)
talk("echo of 100 kB", echoes, text("x" * 100_000), close(), answers=1)
talk(
    "echo of fragments",
    echoes,
    text("a", fin=False),
    frame(0, b"b", fin=False),
    frame(0, b"c"),
    close(),
    answers=1,
)
talk("a ping is answered", echoes, frame(9, b"data"), close(), answers=1)
talk(
    "a ping between fragments is answered",
    echoes,
    text("a", fin=False),
    frame(9, b"p"),
    frame(0, b"b"),
    close(),
    answers=2,
)
talk("a pong is ignored", echoes, frame(10, b"data"), text("a"), close(), answers=1)
talk("close of the client: 1000", echoes, close())
talk("close of the client: 1001 with a reason", echoes, close(1001, "bye"))
talk("close of the client: 4000", echoes, close(4000, "mine"))
talk("close of the client: no code", echoes, close(None))
violation("close of the client: a code that is not allowed", close(1005))
violation("close of the client: a code of 999", close(999))
websocket("websockets/the client hangs up", echoes, text("a"), hang_up=True, see=("app", "errors"))
violation("text that is no UTF-8", frame(1, b"\xff\xfe"))
violation("a frame without a mask", frame(1, b"x", mask=False))
violation("a reserved bit", frame(1, b"x", rsv=1))
violation("an opcode that is reserved", frame(3, b"x"))
violation("a continuation of nothing", frame(0, b"x"))
violation("a new message within a message", text("a", fin=False), text("b"))
violation("a ping that is too long", frame(9, b"x" * 126))
violation("a ping in fragments", frame(9, b"x", fin=False))
violation("a message that is too large", text("x" * 2000), flags=("--ws-max-size", "1000"))
talk(
    "a message that is just not too large",
    echoes,
    text("x" * 1000),
    close(),
    flags=("--ws-max-size", "1000"),
    answers=1,
)
violation(
    "fragments that are too large together",
    text("x" * 600, fin=False),
    frame(0, b"x" * 600),
    flags=("--ws-max-size", "1000"),
)

talk("the app closes", plays(ACCEPT, end()), see=(*FRAMES, "errors"))
talk("the app closes with a code", plays(ACCEPT, end(4001, "reason")))
talk("the app closes with a reason only", plays(ACCEPT, end(None, "reason")))
talk("the app closes with 1001", plays(ACCEPT, end(1001)))
talk("the app sends and closes", plays(ACCEPT, say("a"), say(b"b"), end()))
talk("the app sends a thousand messages", plays(ACCEPT, *[say("x")] * 1000, end()), see=("end", "app"))
talk("the app returns without closing", plays(ACCEPT))
talk("an exception after it is accepted", plays(ACCEPT, {"type": "nonsense"}))
talk("an exception after it is closed", plays(ACCEPT, end(), {"type": "nonsense"}), see=("frames", "app"))
talk("accepted twice", plays(ACCEPT, ACCEPT), see=("frames", "app"))
talk("sent after it is closed", plays(ACCEPT, end(), say("x")), see=("frames", "app"))
talk("closed twice", plays(ACCEPT, end(), end()), see=("frames", "app"))
talk("a send with text None", plays(ACCEPT, {"type": "websocket.send", "text": None, "bytes": b"x"}, end()))
talk("a send with bytes None", plays(ACCEPT, {"type": "websocket.send", "text": "x", "bytes": None}, end()))
talk("a message of HTTP", plays(ACCEPT, {"type": "http.response.start", "status": 200}), see=("app",))
talk("a denial after it is accepted", plays(ACCEPT, DENY), see=("app",))


async def _messages(scope: Scope, receive: Receive, send: Send, note: Note) -> None:
    note(shown(await receive()))
    await send(ACCEPT)
    for _ in range(3):
        note(shown(await receive()))


talk("messages as the app receives them", _messages, text("t"), binary(b"b"), close(1001, "r"), see=("app",))


async def _receives_after_end(scope: Scope, receive: Receive, send: Send, note: Note) -> None:
    await receive()
    await send(ACCEPT)
    for _ in range(2):
        try:
            note(shown(await receive()))
        except Exception as error:  # noqa: BLE001 - what is raised is the observation
            note(type(error).__name__)


talk("receive after the disconnect", _receives_after_end, close(), see=("app",))


async def _sends_after_end(scope: Scope, receive: Receive, send: Send, note: Note) -> None:
    await receive()
    await send(ACCEPT)
    await receive()
    try:
        await send(say("late"))
        note("nothing raised")
    except Exception as error:  # noqa: BLE001 - what is raised is the observation
        note("OSError" if isinstance(error, OSError) else type(error).__name__)


talk("send after the client's close", _sends_after_end, close(), see=("frames", "app"))
websocket("websockets/send after the client hung up", _sends_after_end, hang_up=True, see=("app", "errors"))


async def _receives_after_own_close(scope: Scope, receive: Receive, send: Send, note: Note) -> None:
    await receive()
    await send(ACCEPT)
    await send(end(4002, "mine"))
    note(shown(await receive()))


talk("what the app receives after its own close", _receives_after_own_close, see=("app", "frames"))
PLAIN = ("--ws-per-message-deflate", "false")
talk("messages without compression", echoes, text("hello"), close(), flags=PLAIN, answers=1)
websocket(
    "websockets/a compressed message",
    echoes,
    frame(1, b"\xf2\x48\xcd\xc9\xc9\x07\x00", rsv=4),
    close(),
    head=upgrade("/", "Sec-WebSocket-Extensions: permessage-deflate"),
    see=FRAMES,
    answers=1,
)
websocket(
    "websockets/a small answer is compressed",
    plays(ACCEPT, say("a" * 100), end()),
    head=upgrade("/", "Sec-WebSocket-Extensions: permessage-deflate"),
    see=FRAMES,
)
