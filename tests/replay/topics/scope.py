"""What is in the ASGI scope, with Python's types."""

from __future__ import annotations

from tests.replay.behaviours import Note, Receive, Scope, Send, get, http, upgrade, websocket
from tests.replay.cases import answer, notes_scope

APP = ("app", "status")


def scope(name: str, key: str, *pieces: bytes, flags: tuple[str, ...] = ()) -> None:
    """Add a behaviour: a key of the scope for this request."""
    http(f"scope/{name}", notes_scope(key), *pieces, flags=flags, see=APP)


async def _all_keys(scope: Scope, receive: Receive, send: Send, note: Note) -> None:
    note(sorted(scope))
    await answer(send)


http("scope/keys of HTTP", _all_keys, see=APP)
scope("type of HTTP", "type")
scope("asgi of HTTP", "asgi")
scope("http_version 1.1", "http_version")
scope("http_version 1.0", "http_version", get(version="1.0"))
scope("server is the address listened on", "server")
scope("client is address and port", "client")
scope("scheme is http", "scheme")
scope("method is upper case as sent", "method", get(method="POST", body=b"x"))
scope("method in lower case", "method", get(method="get"))
scope("method of RFC 5789", "method", get(method="PATCH", body=b"x"))
scope("method PROPFIND of WebDAV", "method", get(method="PROPFIND"))
scope("method that nobody knows", "method", get(method="FOO"))
scope("method M-SEARCH", "method", get(method="M-SEARCH"))
scope("method QUERY", "method", get(method="QUERY", body=b"x"))
scope("root_path is empty", "root_path")
scope("root_path from the flag", "root_path", flags=("--root-path", "/api"))
scope("path has the root path before it", "path", get("/x"), flags=("--root-path", "/api"))
scope("raw_path has the root path before it", "raw_path", get("/x%20y"), flags=("--root-path", "/api"))
scope("path that begins with the root path", "path", get("/api/x"), flags=("--root-path", "/api"))
scope("root_path with a slash at its end", "root_path", flags=("--root-path", "/api/"))
scope("path after a root path with a slash at its end", "path", get("/x"), flags=("--root-path", "/api/"))
scope("path is decoded", "path", get("/a%20b/%C3%A9"))
scope("path with an encoded slash", "path", get("/a%2Fb"))
scope("path with bytes that are no UTF-8", "path", get("/%ff"))
scope("path with a lone percent", "path", get("/50%"))
scope("path with two slashes", "path", get("//a//b"))
scope("path with dots", "path", get("/a/../b/./c"))
scope("path without the query", "path", get("/a?b=/c"))
scope("path with a semicolon", "path", get("/a;b=c"))
scope("path with a plus", "path", get("/a+b"))
scope("path of OPTIONS *", "path", get("*", method="OPTIONS"))
scope("path of an absolute target", "path", get("http://other.example/a?b"))
scope("raw_path of an absolute target", "raw_path", get("http://other.example/a?b"))
scope("path of an absolute target without a path", "path", get("http://other.example"))
scope("query of an absolute target", "query_string", get("http://other.example/a?b"))
scope("raw_path is as sent", "raw_path", get("/a%20b?q"))
scope("query_string is bytes", "query_string", get("/a?x=1&y=%20"))
scope("query_string is empty", "query_string", get("/a"))
scope("query_string after a bare question mark", "query_string", get("/a?"))
scope("query_string with a second question mark", "query_string", get("/a?b?c"))
scope("query_string without a fragment", "query_string", get("/a?b#c"))
scope("path without a fragment", "path", get("/a#c"))
scope("query_string with raw UTF-8", "query_string", "GET /a?é HTTP/1.1\r\nHost: h\r\n\r\n".encode())
scope("headers in order, names in lower case", "headers", get("/", "X-B: 1", "x-a: 2", "X-B: 3"))
scope("headers lose blanks around the value", "headers", get("/", "X-A: \t a b \t "))
scope("header with an empty value", "headers", get("/", "X-A:"))
scope("header with bytes above 127", "headers", get("/", "X-A: caf\xe9"))
scope("header name with an underscore", "headers", get("/", "X_A: 1"))
scope("cookies stay as many as sent", "headers", get("/", "Cookie: a=1", "Cookie: b=2"))
scope("host header stays in its place", "headers", b"GET / HTTP/1.1\r\nA: 1\r\nHost: h:80\r\n\r\n")
scope("headers of an absolute target", "headers", get("http://other.example/a"))
scope("headers of a chunked request", "headers", get("/", "Transfer-Encoding: chunked") + b"0\r\n\r\n")
scope("header with a name of odd characters", "headers", get("/", "!#$%&'*+-.^`|~: 1"))
scope("state is what startup has put there", "state")
scope("extensions", "extensions")
scope("client over a Unix socket", "client", flags=("--uds", "DIR/s.sock"))
scope("server over a Unix socket", "server", flags=("--uds", "DIR/s.sock"))
scope("scheme over TLS", "scheme", flags=("--ssl-certfile", "DIR/cert.pem", "--ssl-keyfile", "DIR/key.pem"))
scope("client over IPv6", "client", flags=("--host", "::1"))
scope("server over IPv6", "server", flags=("--host", "::1"))


async def _types(scope: Scope, receive: Receive, send: Send, note: Note) -> None:
    note({key: type(scope[key]).__name__ for key in sorted(scope)})
    note({type(name).__name__ for name, _ in scope["headers"]} == {"bytes"})
    note(type(scope["headers"][0]).__name__)
    await answer(send)


http("scope/types of HTTP", _types, see=APP)


async def _changes_state(scope: Scope, receive: Receive, send: Send, note: Note) -> None:
    note(repr(scope["state"]))
    scope["state"]["number"] += 1
    scope["state"]["shared"].append("from a request")
    scope["state"]["new"] = True
    await answer(send)


TWO = get() + get()
http("scope/state is a shallow copy for each request", _changes_state, TWO, answers=2, see=APP)
http("scope/client is the same on a kept connection", notes_scope("server"), TWO, answers=2, see=APP)


async def _changes_scope(scope: Scope, receive: Receive, send: Send, note: Note) -> None:
    note("mark" in scope)
    scope["mark"] = 1
    scope["headers"].append((b"x", b"y"))
    note(len(scope["headers"]))
    await answer(send)


http("scope/a change of the scope does not reach the next request", _changes_scope, TWO, answers=2, see=APP)


def ws_scope(name: str, key: str, head: bytes | None = None, flags: tuple[str, ...] = ()) -> None:
    """Add a behaviour: a key of a WebSocket's scope."""
    websocket(f"scope/WebSocket: {name}", notes_scope(key), head=head, flags=flags, see=("app",))


async def _ws_keys(scope: Scope, receive: Receive, send: Send, note: Note) -> None:
    note({key: type(scope[key]).__name__ for key in sorted(scope)})
    await send({"type": "websocket.close"})


websocket("scope/WebSocket: keys and types", _ws_keys, see=("app",))
ws_scope("asgi", "asgi")
ws_scope("scheme is ws", "scheme")
ws_scope(
    "scheme over TLS", "scheme", flags=("--ssl-certfile", "DIR/cert.pem", "--ssl-keyfile", "DIR/key.pem")
)
ws_scope("http_version", "http_version")
ws_scope("path is decoded", "path", upgrade("/a%20b?c"))
ws_scope("raw_path", "raw_path", upgrade("/a%20b?c"))
ws_scope("query_string", "query_string", upgrade("/a?c=%20"))
ws_scope("root_path", "root_path", flags=("--root-path", "/api"))
ws_scope("path with a root path", "path", upgrade("/x"), flags=("--root-path", "/api"))
ws_scope(
    "subprotocols", "subprotocols", upgrade("/", "Sec-WebSocket-Protocol: a, b", "Sec-WebSocket-Protocol: c")
)
ws_scope("no subprotocols", "subprotocols")
ws_scope("headers", "headers", upgrade("/", "X-A: 1", "x-b: 2"))
ws_scope("extensions", "extensions")
ws_scope("state", "state")
ws_scope("server", "server")
ws_scope("client", "client")
