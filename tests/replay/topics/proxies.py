"""X-Forwarded-For and X-Forwarded-Proto, from peers that are trusted and from others."""

from __future__ import annotations

from collections.abc import Sequence

from tests.replay.behaviours import get, http, upgrade, websocket
from tests.replay.cases import answers, notes_scope

SEEN = ("app",)
ANY = ("--forwarded-allow-ips", "*")
NETWORK = ("--forwarded-allow-ips", "127.0.0.1,10.0.0.0/8")
NOBODY = ("--forwarded-allow-ips", "10.0.0.1")


def client(name: str, *headers: str, flags: Sequence[str] = ()) -> None:
    """Add a behaviour: the client of the scope with these headers."""
    http(f"proxies/client: {name}", notes_scope("client"), get("/", *headers), flags=flags, see=SEEN)


def scheme(name: str, *headers: str, flags: Sequence[str] = ()) -> None:
    """Add a behaviour: the scheme of the scope with these headers."""
    http(f"proxies/scheme: {name}", notes_scope("scheme"), get("/", *headers), flags=flags, see=SEEN)


client("of one proxy", "X-Forwarded-For: 1.2.3.4")
client("of two, the nearer not trusted", "X-Forwarded-For: 1.2.3.4, 5.6.7.8")
client("of two, the nearer trusted by network", "X-Forwarded-For: 1.2.3.4, 10.1.2.3", flags=NETWORK)
client("of three, two trusted", "X-Forwarded-For: 1.2.3.4, 10.1.2.3, 10.0.0.9", flags=NETWORK)
client("all trusted", "X-Forwarded-For: 10.1.2.3, 10.0.0.9", flags=NETWORK)
client("any proxy is trusted", "X-Forwarded-For: 1.2.3.4, 5.6.7.8", flags=ANY)
client("without blanks", "X-Forwarded-For: 1.2.3.4,127.0.0.1")
client("in two headers", "X-Forwarded-For: 1.2.3.4", "X-Forwarded-For: 127.0.0.1")
client("of IPv6", "X-Forwarded-For: 2001:db8::1")
client("of IPv6 in brackets", "X-Forwarded-For: [2001:db8::1]")
client("of IPv6 in brackets with a port", "X-Forwarded-For: [2001:db8::1]:4711")
client("of IPv4 with a port", "X-Forwarded-For: 1.2.3.4:4711")
client("of an empty header", "X-Forwarded-For:")
client("of an empty first element", "X-Forwarded-For: , 10.0.0.1", flags=NETWORK)
client("of empty elements in between", "X-Forwarded-For: 9.9.9.9 , , , 10.0.0.1", flags=NETWORK)
client("of empty elements around", "X-Forwarded-For: , , 9.9.9.9, , ", flags=NETWORK)
client("of a port that is none", "X-Forwarded-For: 1.2.3.4:notaport")
client("of text behind brackets", "X-Forwarded-For: [2001:db8::1]extra")
client("of a word", "X-Forwarded-For: unknown")
client("of a peer that is not trusted", "X-Forwarded-For: 1.2.3.4", flags=NOBODY)
client("switched off", "X-Forwarded-For: 1.2.3.4", flags=("--no-proxy-headers",))
client("name in other case", "x-FORWARDED-for: 1.2.3.4")
client("of X-Real-IP, which does not count", "X-Real-IP: 1.2.3.4")
client("of Forwarded, which does not count", "Forwarded: for=1.2.3.4")
client("over a Unix socket", "X-Forwarded-For: 1.2.3.4", flags=("--uds", "DIR/s.sock"))
client("over a Unix socket that any may use", "X-Forwarded-For: 1.2.3.4", flags=("--uds", "DIR/s.sock", *ANY))
scheme("https", "X-Forwarded-Proto: https")
scheme("http", "X-Forwarded-Proto: http")
scheme("HTTPS in upper case", "X-Forwarded-Proto: HTTPS")
scheme("wss", "X-Forwarded-Proto: wss")
scheme("nonsense", "X-Forwarded-Proto: gopher")
scheme("a list", "X-Forwarded-Proto: https, http")
scheme("blanks around it", "X-Forwarded-Proto:  https ")
scheme("of a peer that is not trusted", "X-Forwarded-Proto: https", flags=NOBODY)
scheme("switched off", "X-Forwarded-Proto: https", flags=("--no-proxy-headers",))
http(
    "proxies/host is not taken from X-Forwarded-Host",
    notes_scope("server", "headers"),
    get("/", "X-Forwarded-Host: other"),
    see=SEEN,
)
http(
    "proxies/root_path is not taken from X-Forwarded-Prefix",
    notes_scope("root_path"),
    get("/", "X-Forwarded-Prefix: /x"),
    see=SEEN,
)
http(
    "proxies/the access line names the client",
    answers("x"),
    get("/", "X-Forwarded-For: 1.2.3.4"),
    see=("access",),
)
http(
    "proxies/the access line names a client of IPv6",
    answers("x"),
    get("/", "X-Forwarded-For: 2001:db8::1"),
    see=("access",),
)
http(
    "proxies/the headers stay in the scope",
    notes_scope("headers"),
    get("/", "X-Forwarded-For: 1.2.3.4", "X-Forwarded-Proto: https"),
    see=SEEN,
)


def ws(name: str, key: str, *headers: str) -> None:
    """Add a behaviour: a key of a WebSocket's scope with these headers."""
    websocket(f"proxies/WebSocket: {name}", notes_scope(key), head=upgrade("/", *headers), see=SEEN)


ws("client", "client", "X-Forwarded-For: 1.2.3.4")
ws("scheme of https", "scheme", "X-Forwarded-Proto: https")
ws("scheme of http", "scheme", "X-Forwarded-Proto: http")
ws("scheme of wss", "scheme", "X-Forwarded-Proto: wss")
websocket(
    "proxies/WebSocket: its line names the client",
    notes_scope("type"),
    head=upgrade("/", "X-Forwarded-For: 1.2.3.4"),
    see=("errors",),
)
