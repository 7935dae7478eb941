"""One WebSocket, as the app sees it: ASGI's WebSocket messages in and out.

Until the app accepts, this is a request like any other: it waits for its turn, and is denied by a response.
Once accepted, it leaves HTTP: the cycle then sends and receives through a `WebSocket`, which has taken the
transport over.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, ClassVar

from ostler.worker.access_log import AccessLog, log_handshake
from ostler.worker.asgi import ClientDisconnected, Message
from ostler.worker.http.connection import Connection
from ostler.worker.http.cycle import COMPLETE, EXPECTING, SENDING, SENDS_PER_TURN, Cycle, as_bytes
from ostler.worker.http.request import RequestHead, split_target
from ostler.worker.server_state import ServerState
from ostler.worker.websocket.codec import BINARY, TEXT, CodecOptions, MakeCodec, is_close_code
from ostler.worker.websocket.connection import WebSocket
from ostler.worker.websocket.upgrade import (
    check_handshake,
    extensions,
    is_handshake,
    render_accept,
    subprotocols,
)

_DENIAL = "websocket."
"""What precedes `http.response` in the names of a denial response's messages."""
_SENDS_PER_LOOK = 4
"""After so many messages the transport is asked whether it is closing; see SENDS_PER_TURN."""


class WebSocketCycle(Cycle):
    """A request for a WebSocket, and then the WebSocket."""

    __slots__ = ("_code", "_make_codec", "_reason", "_sent_close", "_socket", "messages")

    stream: Connection

    file_messages: ClassVar[tuple[str, ...]] = ()

    def __init__(self, stream: Connection, head: RequestHead, make_codec: MakeCodec) -> None:
        super().__init__(stream, head)
        self._make_codec = make_codec
        self._socket: WebSocket | None = None
        self.messages: deque[Message] = deque(({"type": "websocket.connect"},))
        self._code = 1006
        self._reason = ""
        self._sent_close = False
        """The app has closed the WebSocket: to send more is a mistake of the app."""

    def _fill_scope(self, server_state: ServerState) -> None:
        stream, head = self.stream, self.head
        scope: dict[str, Any] = {
            "type": "websocket",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": head.version,
            "server": stream.server,
            "client": stream.client,
            "scheme": "wss" if stream.scheme == "https" else "ws",
            "root_path": server_state.root_path,
            "headers": head.headers,
            "subprotocols": subprotocols(head),
            "state": server_state.state.copy(),
            "extensions": {"websocket.http.response": {}},
        }
        if stream.tls is not None:
            scope["extensions"]["tls"] = stream.tls
        self.scope = scope
        path, raw_path, query = split_target(head.target, server_state.root_path)
        scope["path"], scope["raw_path"], scope["query_string"] = path, raw_path, query
        if head.forwarded and stream.trusted:
            assert server_state.proxies is not None
            server_state.proxies.apply(scope)

    def log(self, access: AccessLog | None, status: int | None) -> None:
        """Write the handshake's line to the error log, as uvicorn does: access formatters expect a method."""
        log_handshake(self.stream.server_state.log, self.scope, status)

    @property
    def streaming(self) -> bool:
        """Always, once accepted: it may never end."""
        return self._socket is not None or super().streaming

    # -- called by the connection

    def on_message_queued(self) -> None:
        """`messages` has one more."""
        if self._waiters is not None:
            self._wake()

    def on_disconnect(self, code: int, reason: str) -> None:
        """The WebSocket is closed or lost; only the first call counts."""
        if self.disconnected:
            return
        self._code, self._reason = code, reason
        self.disconnect()

    # -- called by the app

    async def receive(self) -> Message:
        """ASGI: return the next message; after the last one, the disconnect, for every call."""
        messages = self.messages
        while not messages:
            if self.disconnected or self.state == COMPLETE:
                return {"type": "websocket.disconnect", "code": self._code, "reason": self._reason}
            # The future carries no message: a receive that is cancelled once it is woken loses none.
            await self._new_waiter()
        message = messages.popleft()
        socket = self._socket
        if socket is not None and socket.reading_paused and len(messages) <= socket.low_water:
            socket.resume_input()
        return message

    async def send(self, message: Message) -> None:
        """ASGI: accept or deny the handshake; then send a message, or close.

        Raises:
            RuntimeError: the message is not allowed in this state, or cannot be sent.
            ClientDisconnected: the client is gone.
        """
        socket = self._socket
        if socket is None:
            await self._decide(message)
            return
        kind = message["type"]
        if socket.write_paused:
            await socket.drain()
        self._sends = sends = self._sends + 1
        if sends % _SENDS_PER_LOOK == 0 and (sends % SENDS_PER_TURN == 0 or socket.is_closing()):
            await asyncio.sleep(0)
        if not socket.is_open:
            raise self._closed(kind)
        if kind == "websocket.send":
            data = message.get("bytes")
            if data is not None:
                socket.send(BINARY, data if type(data) is bytes else as_bytes(data))
                return
            text = message.get("text")
            if not isinstance(text, str):
                raise TypeError(f"A WebSocket message must be bytes or text, not {type(text).__name__}.")
            socket.send(TEXT, text.encode())
        elif kind == "websocket.close":
            code, reason = _close_of(message)
            self._sent_close = True
            self.on_disconnect(code, reason)
            socket.close(code, reason)
        else:
            raise RuntimeError(
                f"Expected ASGI message 'websocket.send' or 'websocket.close', but got '{kind}'."
            )

    def _closed(self, kind: str) -> Exception:
        if self._sent_close:
            return RuntimeError(f"Unexpected ASGI message '{kind}', after sending 'websocket.close'.")
        return ClientDisconnected("The client is gone.")

    async def _decide(self, message: Message) -> None:
        """Take the app's answer to the handshake: accept, close, or a denial response."""
        kind = message["type"]
        if kind.startswith("websocket.http.response."):
            # A denial response is an HTTP response. A client takes an interim one for no answer, or for one
            # that it fails on (101).
            if kind == "websocket.http.response.start" and message["status"] in range(100, 200):
                raise RuntimeError(f"The status of a denial must be final, not {message['status']!r}.")
            await super().send({**message, "type": kind.removeprefix(_DENIAL)})
        elif self.state != EXPECTING or kind not in ("websocket.accept", "websocket.close"):
            if self._sent_close:
                raise self._closed(kind)
            wanted = "'websocket.accept', 'websocket.close' or 'websocket.http.response.start'"
            if self.state != EXPECTING:
                wanted = "'websocket.http.response.body'"
            raise RuntimeError(f"Expected ASGI message {wanted} but got '{kind}'.")
        elif self.disconnected:
            raise ClientDisconnected("The client is gone.")
        elif kind == "websocket.accept":
            self._accept(message)
        else:
            self._sent_close = True
            self._give_up(403, "Forbidden")

    def _accept(self, message: Message) -> None:
        stream, head = self.stream, self.head
        server_state = stream.server_state
        settings = server_state.settings
        socket = WebSocket(server_state, self, stream.tls)
        codec = self._make_codec(
            socket,
            CodecOptions(settings.ws_max_size, settings.ws_per_message_deflate),
            extensions(head),
        )
        response = render_accept(
            head, message.get("subprotocol"), codec.agreed, message.get("headers") or (), server_state.static
        )
        if server_state.log_handshakes:
            self.log(None, None)
        self.state = SENDING
        self._socket = socket
        server_state.count()
        # Added before the HTTP connection is removed: a draining server stops when it has no connection.
        server_state.connections.add(socket)
        paused = stream.write_paused
        transport, rest = stream.hand_over(socket)
        transport.write(response)
        socket.begin(transport, codec, rest, paused)

    def _end(self, code: int) -> None:
        self.state = COMPLETE
        assert self._socket is not None
        self.on_disconnect(code, "")
        self._socket.close(code, "")

    # -- the app's run

    def _returned_early(self, result: object, server_state: ServerState) -> None:
        if self._socket is None:
            super()._returned_early(result, server_state)
            return
        if result is not None:
            server_state.log.error("ASGI callable should return None, but returned '%s'.", result)
        self._end(1000)

    def _failed(self, error: BaseException, server_state: ServerState) -> None:
        if self._socket is not None and not self._socket.is_open:
            # The client is gone, although the app has not received all that came before.
            self.on_disconnect(1006, "")
        super()._failed(error, server_state)

    def _give_up(self, status: int, text: str) -> None:
        """End what the app will not end: with a response before it has accepted, else with a close frame."""
        if self._socket is None:
            super()._give_up(status, text)
        else:
            self._end(1012 if self.stream.server_state.cancelled else 1011)


class Upgrades:
    """Takes over the requests that are WebSocket handshakes: a `TakeUpgrade`."""

    def __init__(self, make_codec: MakeCodec) -> None:
        self._make_codec = make_codec

    def __call__(self, stream: Connection, head: RequestHead) -> WebSocketCycle | None:
        """Return the cycle of a WebSocket's handshake; None for a request for another upgrade.

        Raises:
            Refusal: it is a handshake that is not valid.
        """
        if not is_handshake(head):
            return None
        check_handshake(head)
        return WebSocketCycle(stream, head, self._make_codec)


def _close_of(message: Message) -> tuple[int, str]:
    """Read code and reason of a `websocket.close`."""
    code, reason = message.get("code", 1000), message.get("reason") or ""
    if code is None:
        code = 1000
    if not isinstance(code, int) or not is_close_code(code):
        raise RuntimeError(f"A close frame cannot hold the code {code!r}.")
    if not isinstance(reason, str):
        raise TypeError(f"The reason of a close must be text, not {type(reason).__name__}.")
    return code, reason
