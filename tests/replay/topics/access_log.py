"""Lines of the access log."""

from __future__ import annotations

from tests.replay.behaviours import get, http
from tests.replay.cases import answers, body, sends, start

SEEN = ("access",)
http("access log/200", answers("x"), see=SEEN)
http("access log/404 of POST", answers("x", 404), get("/a/b", method="POST"), see=SEEN)
http("access log/204", sends(start(204), body()), see=SEEN)
http("access log/304", sends(start(304), body()), see=SEEN)
http("access log/500 of the app", answers("x", 500), see=SEEN)
http("access log/a status without a phrase", answers("x", 299), see=SEEN)
http("access log/with a query", answers("x"), get("/a?b=c&d=%20"), see=SEEN)
http("access log/an encoded path", answers("x"), get("/a%20b/%C3%A9"), see=SEEN)
http("access log/a line break in the path cannot forge a line", answers("x"), get("/a%0d%0aINFO"), see=SEEN)
http("access log/a quote in the path", answers("x"), get("/%22a%22"), see=SEEN)
http("access log/bytes that are no UTF-8", answers("x"), get("/%ff"), see=SEEN)
http("access log/HTTP 1.0", answers("x"), get(version="1.0"), see=SEEN)
http("access log/HEAD", answers("x"), get(method="HEAD"), see=SEEN)
http("access log/OPTIONS", answers("x"), get(method="OPTIONS"), see=SEEN)
http("access log/with a root path", answers("x"), get("/a"), flags=("--root-path", "/api"), see=SEEN)
http("access log/over a Unix socket", answers("x"), flags=("--uds", "DIR/s.sock"), see=SEEN)
http("access log/over IPv6", answers("x"), flags=("--host", "::1"), see=SEEN)
http(
    "access log/over TLS",
    answers("x"),
    flags=("--ssl-certfile", "DIR/cert.pem", "--ssl-keyfile", "DIR/key.pem"),
    see=SEEN,
)
http("access log/two pipelined requests", answers("x"), get("/1") + get("/2"), answers=2, see=SEEN)
http("access log/a request that is malformed", answers("x"), b"nonsense\r\n\r\n", see=SEEN)
http("access log/switched off", answers("x"), flags=("--no-access-log",), see=SEEN)
http(
    "access log/errors are logged with it switched off",
    sends(body()),
    flags=("--no-access-log",),
    see=("access", "errors"),
)
http("access log/level warning", answers("x"), flags=("--log-level", "warning"), see=("access", "errors"))
http("access log/level critical", sends(body()), flags=("--log-level", "critical"), see=("access", "errors"))
http("access log/level debug", answers("x"), flags=("--log-level", "debug"), see=("access", "errors"))
http("access log/colours are forced", answers("x"), flags=("--use-colors",), see=SEEN)
http("access log/colours of 404", answers("x", 404), flags=("--use-colors",), see=SEEN)
http("access log/colours of 302", answers("x", 302), flags=("--use-colors",), see=SEEN)
http("access log/colours of 500", answers("x", 500), flags=("--use-colors",), see=SEEN)
http("access log/colours of an error", sends(body()), flags=("--use-colors",), see=("errors",))
