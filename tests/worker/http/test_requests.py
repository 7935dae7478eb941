"""What the app is passed of a request."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from ostler.worker.asgi import Receive, Scope, Send
from ostler.worker.interfaces.asgi2 import from_asgi2
from tests.worker.conftest import Serve
from tests.worker.harness import Server, get, hello, post, read_body, respond


class Recorder:
    """An app that keeps each scope and body."""

    def __init__(self) -> None:
        self.scopes: list[Any] = []
        self.bodies: list[bytes] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        self.bodies.append(await read_body(receive))
        await respond(send, b"ok")


def scope_of(serve: Serve, data: bytes, **settings: Any) -> Any:
    app = Recorder()
    assert serve(app, **settings).ask(data).status == 200
    return app.scopes[0]


def test_the_scope_is_that_of_the_asgi_specification(serve: Serve) -> None:
    app = Recorder()
    state = {"pool": object()}
    server = serve(app, state=state)
    client = server.connect()
    client.ask(get("/a%20b/%C3%A9?x=%20y&z", "Host: a.example", "X-Two: 1", "x-two: 2"))
    (scope,) = app.scopes
    assert scope == {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.5"},
        "http_version": "1.1",
        "server": ("127.0.0.1", server.address[1]),
        "client": client.socket.getsockname(),
        "scheme": "http",
        "method": "GET",
        "root_path": "",
        "path": "/a b/é",
        "raw_path": b"/a%20b/%C3%A9",
        "query_string": b"x=%20y&z",
        "headers": [(b"host", b"a.example"), (b"x-two", b"1"), (b"x-two", b"2")],
        "state": state,
        "extensions": {"http.response.pathsend": {}, "http.response.zerocopysend": {}},
    }


_OLD, _NEW = (b"GET / HTTP/1.%d\r\nHost: a\r\nConnection: keep-alive\r\n\r\n" % minor for minor in (0, 1))


@pytest.mark.parametrize(
    ("pieces", "versions"),
    [
        ([_OLD + _NEW + _OLD], "010"),
        ([_NEW + _OLD + _NEW], "101"),
        ([b"\r\n" + _OLD, b"\r\n" + _NEW], "01"),
        # This piece looks like the end of a request line, as if a request had begun with the piece.
        ([b"GET /", b"1234 HTTP/1.0\r\nHost: a\r\nX: HTTP/1.1\r\nConnection: keep-alive\r\n\r\n"], "0"),
        ([b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 16\r\n\r\n", b"GET / HTTP/1.1\r\n" + _OLD], "10"),
        ([b"GET / HTTP/1.1 HTTP/1.1\r\nHost: a\r\n\r\n"], ""),
    ],
)
def test_every_request_has_the_version_of_its_own_line(
    serve: Serve, pieces: list[bytes], versions: str
) -> None:
    app = Recorder()
    server = serve(app)
    client = server.connect()
    server.until(lambda: server.server_state.connections)
    (connection,) = server.server_state.connections
    for piece in pieces:
        server.call(partial(connection.data_received, piece))  # type: ignore[attr-defined]
    assert [client.answer().status for _ in versions or "1"] == ([200] * len(versions) or [400])
    assert [scope["http_version"] for scope in app.scopes] == [f"1.{minor}" for minor in versions]


def test_each_request_has_a_shallow_copy_of_the_state(serve: Serve) -> None:
    app = Recorder()
    state: dict[str, Any] = {"pool": []}
    client = serve(app, state=state).connect()
    client.ask(get())
    client.ask(get())
    first, second = (scope["state"] for scope in app.scopes)
    assert first is not second
    assert first is not state
    assert first["pool"] is second["pool"] is state["pool"]


def test_an_undecodable_path_has_replacement_characters(serve: Serve) -> None:
    assert scope_of(serve, get("/%ff%zz"))["path"] == "/\ufffd%zz"


def test_a_root_path_is_the_beginning_of_both_paths(serve: Serve) -> None:
    scope = scope_of(serve, get("/x%2Fy?q"), root_path="/app")
    assert (scope["root_path"], scope["path"], scope["raw_path"]) == ("/app", "/app/x/y", b"/app/x%2Fy")


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        ("http://b.example:81/x/y?z", "/x/y", b"z"),
        ("http://b.example:81", "/", b""),
        ("http://b.example:81?z=1", "/", b"z=1"),
        ("HTTPS://b.example:81/", "/", b""),
    ],
)
def test_an_absolute_target_counts_as_its_path_and_overrides_host(
    serve: Serve, target: str, path: str, query: bytes
) -> None:
    scope = scope_of(serve, get(target, "Host: a.example"))
    assert (scope["path"], scope["raw_path"], scope["query_string"]) == (path, path.encode(), query)
    assert scope["headers"] == [(b"host", b"b.example:81")]


def test_an_asterisk_is_a_target_for_options(serve: Serve) -> None:
    scope = scope_of(serve, get("*", method="OPTIONS"), root_path="/app")
    assert (scope["method"], scope["path"], scope["raw_path"]) == ("OPTIONS", "*", b"*")


def test_a_fragment_is_cut_off(serve: Serve) -> None:
    scope = scope_of(serve, get("/a?b#c?d"))
    assert (scope["path"], scope["query_string"]) == ("/a", b"b")


def test_field_names_are_lower_case_and_values_bare(serve: Serve) -> None:
    scope = scope_of(serve, get("/", "Host: a", "X-Mixed-CASE: \t a b \t ", "X-Empty:", "X-High: \xff"))
    assert scope["headers"][1:] == [(b"x-mixed-case", b"a b"), (b"x-empty", b""), (b"x-high", b"\xff")]


def test_empty_lines_before_a_request_are_skipped(serve: Serve) -> None:
    client = serve(hello).connect()
    assert client.ask(b"\r\n\r\n" + get()).status == 200
    assert client.ask(b"\r\n" + get()).status == 200


def test_methods_beyond_the_common_ones_reach_the_app(serve: Serve) -> None:
    app = Recorder()
    client = serve(app).connect()
    for method in ("PATCH", "DELETE", "PROPFIND", "M-SEARCH", "TRACE"):
        assert client.ask(get(method=method)).status == 200
    assert [scope["method"] for scope in app.scopes] == ["PATCH", "DELETE", "PROPFIND", "M-SEARCH", "TRACE"]


def test_an_upgrade_that_is_not_for_websockets_is_ignored(serve: Serve) -> None:
    app = Recorder()
    client = serve(app).connect()
    h2c = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA")
    client.send(post("/1", *h2c, body=b"one") + post("/2", *h2c, body=b"") + get("/3"))
    assert [client.answer().status for _ in range(3)] == [200, 200, 200]
    assert [scope["path"] for scope in app.scopes] == ["/1", "/2", "/3"]
    assert app.bodies == [b"one", b"", b""]


def test_a_chunked_body_behind_an_upgrade_is_a_body(serve: Serve) -> None:
    app = Recorder()
    client = serve(app).connect()
    client.send(get("/1", "Connection: upgrade", "Upgrade: h2c", "Transfer-Encoding: chunked", method="POST"))
    client.send(b"4\r\nGET \r\n0\r\n\r\n" + get("/2"))
    assert [client.answer().status for _ in range(2)] == [200, 200]
    assert app.bodies == [b"GET ", b""]


def test_a_unix_socket_has_no_client(serve: Serve, tmp_path: Path) -> None:
    app = Recorder()
    path = str(tmp_path / "s")
    server = serve(app, uds=path)
    assert server.ask(get()).status == 200
    assert (app.scopes[0]["client"], app.scopes[0]["server"]) == (None, (path, None))
    assert server.access.lines == [' - "GET / HTTP/1.1" 200']


class Trusting:
    """Trusts one peer, and records how often it is asked."""

    def __init__(self, *trusted: str) -> None:
        self.trusted = trusted
        self.asked: list[str | None] = []

    def trusts(self, peer_host: str | None) -> bool:
        self.asked.append(peer_host)
        return peer_host in self.trusted

    def apply(self, scope: dict[str, Any]) -> None:
        scope["client"] = ("203.0.113.7", 0)
        scope["scheme"] = "https"


def test_trust_is_decided_once_for_a_connection_and_fields_count_for_each_request(serve: Serve) -> None:
    app, proxies = Recorder(), Trusting("127.0.0.1")
    server = serve(app, proxies=proxies)
    client = server.connect()
    client.ask(get("/", "X-Forwarded-For: 203.0.113.7"))
    client.ask(get("/", "Forwarded: for=203.0.113.7;proto=https"))
    assert proxies.asked == ["127.0.0.1"]
    assert [(s["client"], s["scheme"]) for s in app.scopes] == [(("203.0.113.7", 0), "https")] * 2
    assert server.access.lines[0] == '203.0.113.7:0 - "GET / HTTP/1.1" 200'


def test_a_trusted_proxy_that_says_nothing_changes_nothing(serve: Serve) -> None:
    app = Recorder()
    server = serve(app, proxies=Trusting("127.0.0.1"))
    server.ask(get("/", "X-Forwarded-Host: b.example"))
    assert server.url.startswith(app.scopes[0]["scheme"] + "://")
    assert app.scopes[0]["client"][0] == "127.0.0.1"


def test_the_fields_of_an_untrusted_proxy_are_ignored(serve: Serve, tmp_path: Path) -> None:
    app, proxies = Recorder(), Trusting()
    serve(app, proxies=proxies).ask(get())
    serve(app, proxies=proxies, uds=str(tmp_path / "s")).ask(get())
    assert proxies.asked == ["127.0.0.1", "unix:"]
    assert [scope["scheme"] for scope in app.scopes] == ["http", "http"]


def test_the_access_log_is_in_uvicorns_format(serve: Serve) -> None:
    server = serve(hello)
    client = server.connect()
    client.ask(get("/a%20b/é?x=1%202".replace("é", "%C3%A9")))
    client.ask(get("/", version="1.0"))
    host, port = client.socket.getsockname()
    assert server.access.lines == [
        f'{host}:{port} - "GET /a%20b/%C3%A9?x=1%202 HTTP/1.1" 200',
        f'{host}:{port} - "GET / HTTP/1.0" 200',
    ]
    record = server.access.kept[0]
    assert record.msg == '%s - "%s %s HTTP/%s" %d'
    assert record.args == (f"{host}:{port}", "GET", "/a%20b/%C3%A9?x=1%202", "1.1", 200)


def test_the_access_log_has_the_whole_path_with_the_root_path(serve: Serve) -> None:
    server = serve(hello, root_path="/api")
    assert server.ask(get("/b?c=d")).status == 200
    assert server.access.lines[0].partition(" - ")[2] == '"GET /api/b?c=d HTTP/1.1" 200'


def test_the_access_log_can_be_off(serve: Serve) -> None:
    server = serve(hello, access_log=False)
    assert server.ask(get()).status == 200
    assert server.access.lines == []


def test_httpx_is_content(serve: Serve) -> None:
    app = Recorder()
    server: Server = serve(app)
    with httpx.Client(base_url=server.url) as client:
        assert client.get("/x", params={"q": "ä"}).text == "ok"
        assert client.post("/x", content=b"body").text == "ok"
        assert client.put("/x", content=(piece for piece in (b"one", b"two"))).text == "ok"
        assert client.head("/x").headers["content-length"] == "2"
        assert client.post("/x", files={"file": b"x" * 300_000}).status_code == 200
    assert app.bodies[:4] == [b"", b"body", b"onetwo", b""]
    assert len(app.bodies[4]) > 300_000
    assert server.errors.lines == []


def test_an_asgi_2_application_is_told_its_version_and_serves(serve: Serve) -> None:
    class OldStyle:
        def __init__(self, scope: Scope) -> None:
            self.scope = scope

        async def __call__(self, receive: Receive, send: Send) -> None:
            body = await read_body(receive)
            await respond(send, f"{self.scope['asgi']['version']} {self.scope['path']} ".encode() + body)

    client = serve(from_asgi2(OldStyle)).connect()
    for _ in range(2):
        assert client.ask(post("/old", body=b"abc")).body == b"2.0 /old abc"
