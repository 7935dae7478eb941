"""The environ of a WSGI request."""

from __future__ import annotations

from typing import Any

import pytest

from ostler.worker.proxies.trusted import TrustedProxies
from tests.worker.conftest import Serve
from tests.worker.harness import get, post
from tests.worker.interfaces.wsgi_apps import Environ, Recorder, wsgi


def environ_of(serve: Serve, data: bytes, **options: Any) -> Environ:
    app = Recorder()
    assert serve(wsgi(app), **options).ask(data).status == 200
    return app.environs[0]


def test_the_environ_is_that_of_pep_3333(serve: Serve) -> None:
    app = Recorder()
    server = serve(wsgi(app))
    client = server.connect()
    client.ask(
        get("/a%20b/%C3%A9?x=%20y&z", "X-Two: 1", "x-two: 2", "Cookie: a=1", "Cookie: b=2", "X_Y: evil")
    )
    (environ,) = app.environs
    assert type(environ) is dict
    plain = {key: value for key, value in environ.items() if not key.startswith("wsgi.")}
    host, port = client.socket.getsockname()
    assert plain == {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/a b/Ã©",
        "QUERY_STRING": "x=%20y&z",
        "REQUEST_URI": "/a%20b/%C3%A9?x=%20y&z",
        "RAW_URI": "/a%20b/%C3%A9?x=%20y&z",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": str(server.address[1]),
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": host,
        "REMOTE_PORT": str(port),
        "HTTP_HOST": "a.example",
        "HTTP_X_TWO": "1,2",
        "HTTP_COOKIE": "a=1; b=2",
    }
    assert environ["wsgi.version"] == (1, 0)
    assert environ["wsgi.url_scheme"] == "http"
    flags = ("multithread", "multiprocess", "run_once", "input_terminated")
    assert [environ[f"wsgi.{flag}"] for flag in flags] == [True, False, False, True]


def test_bytes_that_are_not_utf_8_reach_the_path(serve: Serve) -> None:
    assert environ_of(serve, get("/%ff%zz"))["PATH_INFO"] == "/\xff%zz"


@pytest.mark.parametrize("root", ["/é", "/é/"])
def test_a_root_path_is_the_script_name(serve: Serve, root: str) -> None:
    environ = environ_of(serve, get("/x%2Fy?q"), root_path=root)
    assert environ["SCRIPT_NAME"].encode("latin-1").decode() == "/é"
    assert environ["PATH_INFO"] == "/x/y"


def test_length_and_type_of_a_body_have_names_of_their_own(serve: Serve) -> None:
    environ = environ_of(serve, post("/", "Content-Type: a/b", "Content-Type: c/d", body=b"abc"))
    assert (environ["CONTENT_TYPE"], environ["CONTENT_LENGTH"]) == ("a/b", "3")
    assert not {"HTTP_CONTENT_TYPE", "HTTP_CONTENT_LENGTH"} & set(environ)


def test_what_a_trusted_proxy_says_is_in_the_environ(serve: Serve) -> None:
    data = get("/", "X-Forwarded-For: 203.0.113.9", "X-Forwarded-Proto: https")
    environ = environ_of(serve, data, proxies=TrustedProxies("127.0.0.1"))
    assert (environ["REMOTE_ADDR"], environ["wsgi.url_scheme"]) == ("203.0.113.9", "https")
    assert environ["HTTPS"] == "on"
    assert "REMOTE_PORT" not in environ


def test_a_unix_socket_has_a_name_and_a_port_nevertheless(serve: Serve, tmp_path: Any) -> None:
    environ = environ_of(serve, get(), uds=str(tmp_path / "s"))
    assert (environ["SERVER_NAME"], environ["SERVER_PORT"]) == ("localhost", "80")
    assert environ["REMOTE_ADDR"] == ""


def test_endlessly_invented_names_do_not_fill_the_memory(serve: Serve) -> None:
    adapter = wsgi(Recorder())
    client = serve(adapter).connect()
    for number in range(20):
        client.ask(get("/", *(f"X-{number}-{index}: 1" for index in range(100))))
    assert len(adapter._environs._keys) <= 1024
