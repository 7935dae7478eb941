"""Responses as the client gets them: status line, headers, body, and whether the connection is kept."""

from __future__ import annotations

from collections.abc import Sequence

from tests.replay.behaviours import Case, Message, get, http
from tests.replay.cases import answers, body, length, sends, start

CLOSE = get("/", "Connection: close")
HEAD = get(method="HEAD")
OLD = get(version="1.0")
CLIENT = ("responses", "then")


def response(name: str, app: Case, *pieces: bytes, flags: Sequence[str] = ()) -> None:
    """Add a behaviour: what the client gets for one request."""
    http(f"responses/{name}", app, *pieces, flags=flags, see=CLIENT)


def of(*messages: Message) -> Case:
    """Return an application that sends a start of 200 and these messages."""
    return sends(start(), *messages)


response("date, server, then the app's headers", answers("hello", headers=[(b"X-A", b"1"), (b"x-b", b"2")]))
response("chunked without a length", of(body(b"a", True), body(b"bc", True), body()))
response("one body without a length", of(body(b"abc")))
response("no body at all", of(body()))
response("start is sent with the first body", of(body(b"", True), body(b"late")))
response(
    "empty pieces are not sent as chunks", of(body(b"", True), body(b"a", True), body(b"", True), body())
)
response("length and several pieces", sends(start(200, [length(4)]), body(b"ab", True), body(b"cd")))
response("HEAD with a length", answers("hello"), HEAD)
response("HEAD without a length", of(body(b"abc")), HEAD)
response("HEAD with a stream", of(body(b"abc", True), body(b"d")), HEAD)
response("204", sends(start(204), body()))
response("204 with a length of 0", sends(start(204, [length(0)]), body()))
response("304", sends(start(304, [(b"etag", b'"x"')]), body()))
response("304 with a length", sends(start(304, [length(5)]), body()))
response("205", sends(start(205, [length(0)]), body()))
response("status 404", answers("no", 404))
response("status 418", answers("tea", 418))
response("status 500 by the app", answers("oops", 500))
response("status 299, without a phrase", answers("x", 299))
response("status 422", answers("x", 422))
response("status 599", answers("x", 599))
response("no headers in start", sends({"type": "http.response.start", "status": 200}, body(b"x")))
response("no body in the body message", of({"type": "http.response.body"}))
response("headers may be tuples", sends(start(200, ((b"content-length", b"1"),)), body(b"x")))
response("repeated headers", answers("x", headers=[(b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")]))
response("names keep the app's case", answers("x", headers=[(b"X-CaSe", b"1")]))
response("header value with bytes above 127", answers("x", headers=[(b"x-a", b"caf\xe9")]))
response("header with an empty value", answers("x", headers=[(b"x-a", b"")]))
response("app's own date", answers("x", headers=[(b"date", b"Mon, 01 Jan 2024 00:00:00 GMT")]))
response("app's own server", answers("x", headers=[(b"server", b"mine")]))
response("app's connection: close", answers("x", headers=[(b"connection", b"close")]))
response("app's Connection: Close in other case", answers("x", headers=[(b"Connection", b"Close")]))
response("app's connection: keep-alive", answers("x", headers=[(b"connection", b"keep-alive")]))
response(
    "app's transfer-encoding: chunked", sends(start(200, [(b"transfer-encoding", b"chunked")]), body(b"abc"))
)
response("trailers that nobody asked for", sends(start(200, [], trailers=True), body(b"a")))
response("client's connection: close", answers("x"), CLOSE)
response("client's Connection: Close in other case", answers("x"), get("/", "Connection: Close"))
response("client's list of connection options", answers("x"), get("/", "Connection: foo, close"))
response("stream to a client that closes", of(body(b"a", True), body(b"b")), CLOSE)
response("HTTP/1.0", answers("x"), OLD)
response("HTTP/1.0 without a length", of(body(b"a", True), body(b"b")), OLD)
response("HTTP/1.0 with keep-alive", answers("x"), get("/", "Connection: keep-alive", version="1.0"))
response("HTTP/1.0 HEAD", answers("x"), get(method="HEAD", version="1.0"))
response("keep-alive with 1.1", answers("x"), get("/", "Connection: keep-alive"))
response("without date", answers("x"), flags=("--no-date-header",))
response("without server", answers("x"), flags=("--no-server-header",))
response("without both", answers("x"), flags=("--no-server-header", "--no-date-header"))
response("--header", answers("x"), flags=("--header", "X-A: 1", "--header", "x-b:2", "--header", "X-A:3"))
response("--header Server instead of the default", answers("x"), flags=("--header", "Server: mine"))
response("--header Date beside the default", answers("x"), flags=("--header", "Date: never"))
response("--header with a colon in its value", answers("x"), flags=("--header", "X-A: http://x:1/"))
response(
    "--header and an app's header of that name",
    answers("x", headers=[(b"x-a", b"2")]),
    flags=("--header", "x-a:1"),
)
http("responses/two pipelined requests", answers("x"), get() + get("/b"), answers=2, see=CLIENT)
http("responses/pipelined, the first closes", answers("x"), CLOSE + get("/b"), see=CLIENT)
http("responses/ten pipelined requests", answers("x"), get() * 10, answers=10, see=("status", "then"))
http("responses/a large body", of(body(b"x" * 300_000)), see=("status", "then"))
http("responses/a hundred pieces", of(*[body(b"x" * 1000, True)] * 100, body()), see=("status", "then"))
http(
    "responses/100 headers", answers("x", headers=[(b"x-%d" % n, b"v" * 50) for n in range(100)]), see=CLIENT
)
response("more is left out at the last", of({"type": "http.response.body", "body": b"abc"}))
response("body is a bytearray", of({"type": "http.response.body", "body": bytearray(b"abc")}))
response("body is a memoryview", of({"type": "http.response.body", "body": memoryview(b"abc")}))
response("two lengths that are equal", sends(start(200, [length(1), length(1)]), body(b"x")))
