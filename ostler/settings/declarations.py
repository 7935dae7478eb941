"""Declares every setting once: its flag, variable, TOML key, `--help` row and docs row follow from one field.

Pure: a field has a kind and a default. `ostler.settings.sources` reads the values.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import field
from typing import Any, Literal, TypeAlias, TypeVar

from ostler.errors import SettingsError
from ostler.records import frozen_record, record
from ostler.settings.access_format import WrongAtom
from ostler.settings.kinds import (
    OWN_LOG_CONFIG,
    AccessFormat,
    Bytes,
    Choice,
    Foreign,
    HeaderLine,
    HeadLimit,
    Host,
    ImportString,
    Integer,
    Kind,
    LogConfig,
    LogConfigFile,
    LogLevel,
    Loop,
    Many,
    Octal,
    Peers,
    Seconds,
    Switch,
    TargetPath,
    Text,
    Workers,
)
from ostler.settings.tls_kinds import MASK, CertificateDemand, Hook, Secret, TlsVersion
from ostler.settings.trusted_peers import WrongPeer

T = TypeVar("T")

App: TypeAlias = str | Callable[..., Any]
"""The application's import string; in code also the application itself."""


@record
class Declaration:
    """The declaration of one setting, without its default."""

    kind: Kind
    help: str
    group: str
    variables: tuple[str, ...] = ()
    """Environment variables that are read after `OSTLER_<NAME>`."""
    uvicorn: str = ""
    """uvicorn's name of the setting, if it is another one: it is taken wherever the setting's name is."""


DEFAULT = "default"
"""The origin of a value that no source gave."""

# The kernel takes a descriptor and a backlog as a C int.
_INT_MAX = 2**31 - 1

_LONGEST_SHOWN = 100

GROUPS = (
    "Application",
    "Listening",
    "TLS",
    "Workers",
    "Protocol",
    "WebSockets",
    "Limits",
    "Timeouts",
    "Responses",
    "Proxies",
    "Logging",
    "Process",
    "Development",
)


def setting(
    default: T, kind: Kind, group: str, help: str, *, variables: tuple[str, ...] = (), uvicorn: str = ""
) -> T:
    """Declare one field of `Settings`; `group` is its section in `--help` and in the docs."""
    declaration = Declaration(kind, help, group, variables, uvicorn)
    # dataclasses declares field() as returning the default, so that the field's type can be checked.
    result: T = field(default=default, repr=not kind.secret, metadata={"declaration": declaration})
    return result


_FOREIGN_LOOPS = {
    "none": Foreign("asyncio", ""),
    "zuvloop": Foreign("auto", "uvloop runs instead; --loop zuvloop:new_event_loop takes zuvloop"),
}
_FOREIGN_PARSERS = {"zttp": Foreign("auto", "httptools parses instead, or h11 where it is not installed")}


# fmt: off
# One setting is one or two rows: name, type, default, kind, group, help. The formatter would make six of
# them.
@frozen_record
class Settings:
    """All settings of ostler, checked and frozen. A setting that uvicorn also has is named as in uvicorn.

    Each is a keyword argument. One that is not given has its default: neither variables nor files are read.
    `app` may be the application itself.

    Raises:
        SettingsError: a value is wrong.
    """

    app: App = setting("", ImportString(), "Application",
        "The application, as module:attribute.")
    factory: bool = setting(False, Switch(), "Application",
        "Treat APP as a factory: a callable without arguments that returns the application.")
    app_dir: str = setting("", Text("PATH", "a path", empty=True), "Application",
        "Look for APP in this directory, by putting it first on sys.path. Default: the working directory.")
    interface: Literal["auto", "asgi3", "asgi2", "wsgi"] = setting("auto",
        Choice("auto", "asgi3", "asgi2", "wsgi"), "Application",
        "The application's interface. auto recognizes it by the parameters of APP.")
    lifespan: Literal["auto", "on", "off"] = setting("auto", Choice("auto", "on", "off"), "Application",
        "ASGI lifespan. If the application does not support it, on fails the start, auto serves without it.")
    root_path: str = setting("", Text("PATH", "a path", empty=True), "Application",
        "ASGI root_path: the path below which a proxy mounts the application.")
    reset_contextvars: bool = setting(False, Switch(), "Application",
        "Run each request in a new contextvars.Context, which holds no values that were set elsewhere.")
    wsgi_threads: int | None = setting(None, Integer(1), "Application",
        "Threads in each worker that run a WSGI application. Default: the number of usable CPUs plus 4, at "
        "most 32.")

    host: tuple[str, ...] = setting(("127.0.0.1",), Many(Host(), least=1), "Listening",
        "Listen on this host: an IPv4 or IPv6 address, or a name. May be given several times.")
    port: int = setting(8000, Integer(0, 65535), "Listening",
        "Listen on this port. With 0 the kernel chooses one, which is logged.")
    uds: str | None = setting(None, Text("PATH", "a path"), "Listening",
        "Listen on a Unix domain socket at this path instead of host and port.")
    uds_permissions: int = setting(0o666, Octal(), "Listening",
        "Permissions of the Unix domain socket, in octal.")
    fd: int | None = setting(None, Integer(0, _INT_MAX), "Listening",
        "Listen on this inherited file descriptor, such as supervisord or circus passes.")
    backlog: int = setting(2048, Integer(0, _INT_MAX), "Listening",
        "Connections that the kernel queues until a worker accepts them.")
    reuse_port: Literal["auto", "on", "off"] = setting("auto", Choice("auto", "on", "off"), "Listening",
        "Give each worker slot its own queue of connections (SO_REUSEPORT), which outlives the worker. auto "
        "does so for several workers on TCP if Linux can steer connections; with off, all workers share one "
        "queue.")

    ssl_certfile: str | None = setting(None, Text("PATH", "a path"), "TLS",
        "Speak TLS with the certificate in this PEM file, which its chain follows. SIGHUP reads it again.")
    ssl_keyfile: str | None = setting(None, Text("PATH", "a path"), "TLS",
        "PEM file of the certificate's private key. Default: the file of the certificate.")
    ssl_keyfile_password: str | None = setting(None, Secret("PASSWORD"), "TLS",
        "Decrypt the private key with this password. Give it as a variable or in a file, not as a flag.")
    ssl_version: Literal["TLSv1.2", "TLSv1.3"] = setting("TLSv1.2", TlsVersion(), "TLS",
        "The oldest accepted version, TLSv1.2 or TLSv1.3. uvicorn's numbers 17, 5, 4, 3 and 2 mean TLSv1.2.")
    ssl_cert_reqs: Literal["none", "optional", "required"] = setting("none", CertificateDemand(), "TLS",
        "Whether clients present a certificate, signed by --ssl-ca-certs; also 0, 1, 2 as in uvicorn.")
    ssl_ca_certs: str | None = setting(None, Text("PATH", "a path"), "TLS",
        "Trust client certificates signed by the authorities in this PEM file.")
    ssl_ciphers: str | None = setting(None, Text("CIPHERS", "a list in OpenSSL's notation"), "TLS",
        "Ciphers up to TLSv1.2, in OpenSSL's notation. Default: those that Python chooses, all of them safe.")
    ssl_context_factory: str | Callable[..., Any] | None = setting(None, Hook(), "TLS",
        "Make the SSLContext with this function. Every process that serves calls it with two arguments: the "
        "settings, and a function that makes the default context from them.")

    workers: int | Literal["auto"] | None = setting(None, Workers(), "Workers",
        "Run an arbiter with this many workers; auto means one for each usable CPU. Default: one plain "
        "server without an arbiter.", variables=("WEB_CONCURRENCY",))
    limit_max_requests: int | None = setting(None, Integer(1), "Workers",
        "Recycle a worker after this many requests; the new worker is ready before the old one drains.")
    limit_max_requests_jitter: int = setting(0, Integer(), "Workers",
        "Add a random number of requests, up to this many, so that workers are not recycled together.")
    limit_worker_lifetime: float | None = setting(None, Seconds(), "Workers",
        "Recycle a worker that has served for this long.")
    limit_worker_lifetime_jitter: float = setting(0.0, Seconds(zero=True), "Workers",
        "Add a random time, up to this long, so that workers are not recycled together.")
    limit_worker_rss: int | None = setting(None, Bytes(), "Workers",
        "Recycle a worker that uses more memory than this for three seconds in a row: 512M, 2G.")
    timeout_worker_healthcheck: float = setting(30.0, Seconds(), "Workers",
        "Replace a worker whose event loop has sent no heartbeat for this long; after half of it, its stack "
        "is logged.")
    timeout_worker_startup: float = setting(300.0, Seconds(), "Workers",
        "Give up on a worker that is not ready after this long, the import of the application included.")
    health_path: str | None = setting(None, TargetPath(), "Workers",
        "Answer GET and HEAD of this path without the application: 200, or 503 once ostler was told to stop. "
        "These requests are neither logged nor counted.")

    loop: str = setting("auto", Loop("auto", "uvloop", "asyncio", foreign=_FOREIGN_LOOPS), "Protocol",
        "Event loop. auto takes uvloop if it is installed; module:function is called without arguments and "
        "returns a new event loop. none, uvicorn's name, means asyncio.")
    http: Literal["auto", "httptools", "h11"] = setting("auto",
        Choice("auto", "httptools", "h11", foreign=_FOREIGN_PARSERS), "Protocol",
        "HTTP parser. auto takes httptools if it is installed, else h11.")
    http2: bool = setting(False, Switch(), "Protocol",
        "HTTP/2, which ostler does not speak yet: the start is refused. It is a setting so that "
        "--no-http2, and false in a file, are accepted.")

    ws: Literal["auto", "websockets", "websockets-sansio", "wsproto", "none"] = setting("auto",
        Choice("auto", "websockets", "websockets-sansio", "wsproto", "none"), "WebSockets",
        "WebSocket library. auto takes websockets if it is installed, else wsproto, else none; with none, a "
        "handshake is served as plain HTTP. websockets-sansio, uvicorn's name, means websockets.")
    ws_max_size: int = setting(16 * 1024 * 1024, Integer(1), "WebSockets",
        "Largest accepted message, in bytes after decompression; a larger one is refused with 1009.")
    ws_max_queue: int = setting(32, Integer(1), "WebSockets",
        "Messages to queue for the application; while the queue is full, the socket is not read.")
    ws_ping_interval: float = setting(20.0, Seconds(zero=True), "WebSockets",
        "Send a ping this often. With 0 none is sent.")
    ws_ping_timeout: float = setting(20.0, Seconds(zero=True), "WebSockets",
        "Close with 1011 if nothing at all arrives for this long after a ping. 0 means no time-out.")
    ws_per_message_deflate: bool = setting(True, Switch(), "WebSockets",
        "Compress messages (permessage-deflate) for clients that ask for it.")

    limit_concurrency: int | None = setting(None, Integer(1), "Limits",
        "Answer 503 while a worker has this many requests in progress, WebSockets included. Connections "
        "without a request do not count.")
    limit_connections: int | None = setting(None, Integer(1), "Limits",
        "Keep at most this many connections open in a worker. At the limit, a new one closes the one that "
        "has been idle the longest; if none is idle, the new one is answered with 503.")
    limit_request_head: int = setting(65536, HeadLimit(), "Limits",
        "Largest size of request line and headers together, in bytes; more is refused with 414 or 431.",
        uvicorn="h11_max_incomplete_event_size")

    timeout_keep_alive: float = setting(5.0, Seconds(zero=True), "Timeouts",
        "Close a connection that has been idle between requests for this long.")
    timeout_request_header: float = setting(10.0, Seconds(), "Timeouts",
        "Refuse, with 408, a request whose head takes longer than this to arrive. A TLS handshake has the "
        "same time.")
    timeout_graceful_shutdown: float = setting(30.0, Seconds(zero=True), "Timeouts",
        "Time for requests in flight to finish when a worker stops; then they are cancelled.")
    drain_delay: float = setting(0.0, Seconds(zero=True), "Timeouts",
        "Serve for this long after being told to stop, while health checks answer 503 to load balancers.")

    server_header: bool = setting(True, Switch(), "Responses", "Send the Server header.")
    date_header: bool = setting(True, Switch(), "Responses", "Send the Date header.")
    sendfile: bool = setting(True, Switch(), "Responses",
        "Offer ASGI's path send and zero copy send, by which files are sent with sendfile(2). Without them, "
        "middleware that compresses sees the bytes of files.")
    header: tuple[str, ...] = setting((), Many(HeaderLine(), separator="\n"), "Responses",
        "Add this header to every response. May be given several times; in the variable, one per line.")

    proxy_headers: bool = setting(True, Switch(), "Proxies",
        "Take client address and scheme from the headers of trusted peers that --forwarded-header names.")
    forwarded_header: Literal["x-forwarded", "forwarded"] = setting("x-forwarded",
        Choice("x-forwarded", "forwarded"), "Proxies",
        "The headers that the proxies write: X-Forwarded-For and X-Forwarded-Proto, or Forwarded (RFC 7239). "
        "The other is not read, because proxies pass on what a client has written there.")
    proxy_protocol: bool = setting(False, Switch(), "Proxies",
        "Require a PROXY protocol header, version 1 or 2, on every connection, and close connections from "
        "peers that are not trusted.")
    forwarded_allow_ips: str = setting("127.0.0.1,::1", Peers(), "Proxies",
        "Peers whose headers and PROXY protocol are trusted, separated by commas: addresses, networks, unix: "
        "for peers over a Unix socket, or * alone for everyone.",
        variables=("FORWARDED_ALLOW_IPS",))

    log_config: LogConfig | None = setting(OWN_LOG_CONFIG, LogConfigFile(), "Logging",
        "Configure logging from this file: .json, .toml, .yaml or .yml for Python's dictConfig, any other "
        "for fileConfig. uvicorn's names in it mean ostler's.")
    log_level: Literal["critical", "error", "warning", "info", "debug", "trace"] | None = setting(None,
        LogLevel(), "Logging",
        "Log records of at least this level. Default: as --log-config says, else info.")
    log_format: Literal["text", "json"] = setting("text", Choice("text", "json"), "Logging",
        "Write each log line as text or as one JSON object.")
    access_log: bool = setting(True, Switch(), "Logging", "Log every request, to stdout.")
    access_log_format: str | None = setting(None, AccessFormat(), "Logging",
        "Format of access log lines in gunicorn's atoms, or common or combined. With it, a request is logged "
        "when its response is complete.")
    use_colors: bool | None = setting(None, Switch(), "Logging",
        "Colour the log. Default: only on a terminal.")

    pid_file: str | None = setting(None, Text("PATH", "a path"), "Process",
        "Write the pid of the arbiter or plain server to this file. A file whose process runs is refused.")
    user: str | None = setting(None, Text("USER", "a name or a number"), "Process",
        "Run the application as this user, a name or a number, after the sockets are opened, with HOME, USER "
        "and LOGNAME of this user. ostler must be started as root; the arbiter stays root.")
    group: str | None = setting(None, Text("GROUP", "a name or a number"), "Process",
        "Run the application as this group, a name or a number. Default: the user's.")
    umask: int | None = setting(None, Octal(), "Process",
        "File permissions that new files do not get, in octal. Default: the inherited umask.")

    reload: bool = setting(False, Switch(), "Development",
        "Restart the application when its files change. Without --workers, there is one worker.")
    reload_dir: tuple[str, ...] = setting((), Many(Text("PATH", "a path")), "Development",
        "Watch this directory instead of the working directory. May be given several times.")
    reload_include: tuple[str, ...] = setting((), Many(Text("GLOB", "a pattern")), "Development",
        "Watch files that match this pattern, besides *.py, or this directory. May be given several times.")
    reload_exclude: tuple[str, ...] = setting((), Many(Text("GLOB", "a pattern")), "Development",
        "Ignore files that match this pattern, besides .*, .py[cod], .sw.* and ~*, or that are in this "
        "directory. May be given several times.")
    reload_delay: float = setting(0.25, Seconds(zero=True), "Development",
        "Changes within this time after a reload begins cause one more reload together.")
    def __post_init__(self) -> None:
        values = self.__dict__
        for f in dataclasses.fields(Settings):
            if values[f.name] is not f.default:
                kind = f.metadata["declaration"].kind
                values[f.name] = take_value(f.name, kind, values[f.name], f"argument {f.name}")
# fmt: on


def take_value(name: str, kind: Kind, value: object, origin: str) -> Any:
    """Return `value`, given in code for the setting `name`, as it is stored; `origin` is for the message.

    Raises:
        SettingsError: the value is wrong; the line names its origin and what was expected.
    """
    try:
        return kind.take(value)
    except ValueError as error:
        raise wrong_value(name, kind, value, origin, error) from None


def wrong_value(name: str, kind: Kind, value: object, origin: str, error: ValueError) -> SettingsError:
    """Return the error for a wrong value of the setting `name`, from any source."""
    shown = MASK if kind.secret else repr(value)
    if isinstance(value, bool):
        shown = str(value).lower()  # as TOML has it
    if len(shown) > _LONGEST_SHOWN:
        shown = shown[:_LONGEST_SHOWN] + "..."
    detail = f"{error}; " if isinstance(error, (WrongAtom, WrongPeer)) else ""
    return SettingsError(f"{name} from {origin} is {shown}: {detail}expected {kind.expected}")


def declarations() -> Mapping[str, Declaration]:
    """Return every setting's declaration by field name, in the order of the class."""
    return {f.name: f.metadata["declaration"] for f in dataclasses.fields(Settings)}


def defaults() -> Mapping[str, Any]:
    """Return every setting's default by field name."""
    return {f.name: f.default for f in dataclasses.fields(Settings)}


def flag(name: str) -> str:
    """Return the flag of the setting `name`."""
    return "--" + name.replace("_", "-")


def names(name: str) -> tuple[str, ...]:
    """Return the names of the setting `name` as a flag, variable, key or argument: its own, and uvicorn's."""
    other = declarations()[name].uvicorn
    return (name, other) if other else (name,)


def variables(name: str) -> tuple[str, ...]:
    """Return the environment variables of the setting `name`; the first that is set counts."""
    return (*(f"OSTLER_{known.upper()}" for known in names(name)), *declarations()[name].variables)
