"""Every setting, declared once: flag, variable, TOML key, `--help` row and docs row follow from here.

Pure: a field says what it takes and what it defaults to; `ostler.settings.sources` fetches the values.
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
    AccessFormat,
    Bytes,
    Choice,
    HeaderLine,
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
"""The application's import string or, in code, the application."""


@record
class Declaration:
    """What is declared of one setting besides its default: enough for flag, variable, help and docs."""

    kind: Kind
    help: str
    group: str
    variables: tuple[str, ...] = ()
    """Further environment variables, after `OSTLER_<NAME>`."""


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


def setting(default: T, kind: Kind, group: str, help: str, *, variables: tuple[str, ...] = ()) -> T:
    """Declare one field of `Settings`."""
    declaration = Declaration(kind, help, group, variables)
    # The cast is dataclasses' own lie: field() is typed as returning the default.
    result: T = field(default=default, repr=not kind.secret, metadata={"declaration": declaration})
    return result


# fmt: off
# One setting is one row or two: name, type, default, kind, group, help. The formatter would make six of it.
@frozen_record
class Settings:
    """Every setting, checked and frozen; names are uvicorn's wherever uvicorn has the setting.

    What is not given is the default: neither variables nor files count. `app` may be the application itself.

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
        "The application's interface. auto tells it from the parameters that APP takes.")
    lifespan: Literal["auto", "on", "off"] = setting("auto", Choice("auto", "on", "off"), "Application",
        "ASGI lifespan: on fails the start when the application does not support it, auto does without.")
    root_path: str = setting("", Text("PATH", "a path", empty=True), "Application",
        "ASGI root_path, for an application mounted below a path by a proxy.")
    reset_contextvars: bool = setting(False, Switch(), "Application",
        "Run each request in a fresh contextvars.Context, so that nothing that was set elsewhere reaches it.")
    wsgi_threads: int | None = setting(None, Integer(1), "Application",
        "Threads in each worker that run a WSGI application. Default: as many as there are CPUs to use and 4 "
        "more, at most 32.")

    host: tuple[str, ...] = setting(("127.0.0.1",), Many(Host(), least=1), "Listening",
        "Listen on this host, an IPv4 or IPv6 address or a name. May be given several times.")
    port: int = setting(8000, Integer(0, 65535), "Listening",
        "Listen on this port. 0 lets the kernel pick one, which is logged.")
    uds: str | None = setting(None, Text("PATH", "a path"), "Listening",
        "Listen on a Unix domain socket at this path instead of host and port.")
    uds_permissions: int = setting(0o666, Octal(), "Listening",
        "Permissions of the Unix domain socket, in octal.")
    fd: int | None = setting(None, Integer(0, _INT_MAX), "Listening",
        "Listen on this inherited file descriptor, as supervisord and circus hand over.")
    backlog: int = setting(2048, Integer(1, _INT_MAX), "Listening",
        "Connections that the kernel may hold before a worker accepts them.")
    reuse_port: Literal["auto", "on", "off"] = setting("auto", Choice("auto", "on", "off"), "Listening",
        "Give each worker a queue of its own (SO_REUSEPORT), which outlives it. auto does so where there are "
        "several workers on TCP and Linux can steer connections; off has all workers share one queue.")

    ssl_certfile: str | None = setting(None, Text("PATH", "a path"), "TLS",
        "Speak TLS with the certificate in this PEM file, its chain behind it. SIGHUP reads it again.")
    ssl_keyfile: str | None = setting(None, Text("PATH", "a path"), "TLS",
        "The certificate's private key, as PEM. Default: it is in the file of the certificate.")
    ssl_keyfile_password: str | None = setting(None, Secret("PASSWORD"), "TLS",
        "Decrypt the private key with this password; give it by its variable or in a file, not as a flag.")
    ssl_version: Literal["TLSv1.2", "TLSv1.3"] = setting("TLSv1.2", TlsVersion(), "TLS",
        "The oldest version that is spoken, TLSv1.2 or TLSv1.3. uvicorn's numbers 17, 5 and 2 are TLSv1.2.")
    ssl_cert_reqs: Literal["none", "optional", "required"] = setting("none", CertificateDemand(), "TLS",
        "Whether clients show a certificate, which --ssl-ca-certs vouches for; also 0, 1, 2 as in uvicorn.")
    ssl_ca_certs: str | None = setting(None, Text("PATH", "a path"), "TLS",
        "Trust client certificates that the authorities in this PEM file have signed.")
    ssl_ciphers: str | None = setting(None, Text("CIPHERS", "a list in OpenSSL's notation"), "TLS",
        "Ciphers up to TLSv1.2, in OpenSSL's notation. Default: Python's choice of OpenSSL's, all safe.")
    ssl_context_factory: str | Callable[..., Any] | None = setting(None, Hook(), "TLS",
        "Let this function make the SSLContext; it is called in every process that serves, with the "
        "settings and a function that makes what they say.")

    workers: int | Literal["auto"] | None = setting(None, Workers(), "Workers",
        "Run an arbiter with this many workers; auto counts the CPUs that this process may use. "
        "Without it, one plain server without an arbiter.", variables=("WEB_CONCURRENCY",))
    limit_max_requests: int | None = setting(None, Integer(1), "Workers",
        "Retire a worker after this many requests; its successor is ready before it goes.")
    limit_max_requests_jitter: int = setting(0, Integer(), "Workers",
        "Add up to this many requests, at random, so that workers do not retire together.")
    limit_worker_lifetime: float | None = setting(None, Seconds(), "Workers",
        "Retire a worker that has served for this long.")
    limit_worker_lifetime_jitter: float = setting(0.0, Seconds(zero=True), "Workers",
        "Add up to this much, at random, so that workers do not retire together.")
    limit_worker_rss: int | None = setting(None, Bytes(), "Workers",
        "Retire a worker that has more than this much memory in use, three seconds in a row: 512M, 2G.")
    timeout_worker_healthcheck: float = setting(30.0, Seconds(), "Workers",
        "Replace a worker whose event loop has been silent for this long; its stack is logged at half of it.")
    timeout_worker_startup: float = setting(300.0, Seconds(), "Workers",
        "Give up on a worker that is not ready after this long; importing the application counts.")
    health_path: str | None = setting(None, TargetPath(), "Workers",
        "Answer GET and HEAD of this path before the application: 200, or 503 once ostler is told to stop. "
        "Neither logged nor counted.")

    loop: str = setting("auto", Loop("auto", "uvloop", "asyncio"), "Protocol",
        "Event loop. auto takes uvloop where it is installed; module:function is called without "
        "arguments, and returns a new one.")
    http: Literal["auto", "httptools", "h11"] = setting("auto",
        Choice("auto", "httptools", "h11"), "Protocol",
        "HTTP parser. auto takes httptools where it is installed.")

    ws: Literal["auto", "websockets", "websockets-sansio", "wsproto", "none"] = setting("auto",
        Choice("auto", "websockets", "websockets-sansio", "wsproto", "none"), "WebSockets",
        "WebSocket library. auto takes websockets where it is installed, else wsproto, else none; with none, "
        "a handshake is served as plain HTTP. websockets-sansio is uvicorn's word for websockets.")
    ws_max_size: int = setting(16 * 1024 * 1024, Integer(1), "WebSockets",
        "Largest message to take, in bytes, after decompression; a larger one is refused with 1009.")
    ws_max_queue: int = setting(32, Integer(1), "WebSockets",
        "Messages to hold for an application that does not receive them; then the socket is not read either.")
    ws_ping_interval: float = setting(20.0, Seconds(zero=True), "WebSockets",
        "Send a ping this often. 0 sends none.")
    ws_ping_timeout: float = setting(20.0, Seconds(zero=True), "WebSockets",
        "Close with 1011 when nothing at all has come for this long after a ping. 0 waits without end.")
    ws_per_message_deflate: bool = setting(True, Switch(), "WebSockets",
        "Compress messages (permessage-deflate) for clients that ask for it.")

    limit_concurrency: int | None = setting(None, Integer(1), "Limits",
        "Answer 503 once a worker has this many connections or requests in flight.")
    limit_request_head: int = setting(65536, Integer(1024), "Limits",
        "Largest request line and headers together, in bytes; more is refused with 414 or 431.")

    timeout_keep_alive: float = setting(5.0, Seconds(zero=True), "Timeouts",
        "Close a connection that has been idle between requests for this long.")
    timeout_request_header: float = setting(10.0, Seconds(), "Timeouts",
        "Refuse, with 408, a request whose head takes longer than this to arrive; a TLS handshake gets as "
        "long.")
    timeout_graceful_shutdown: float = setting(30.0, Seconds(zero=True), "Timeouts",
        "Let requests in flight finish for this long when a worker stops; then they are cancelled.")
    drain_delay: float = setting(0.0, Seconds(zero=True), "Timeouts",
        "Serve on for this long when told to stop, while health checks say 503 for load balancers to see.")

    server_header: bool = setting(True, Switch(), "Responses", "Send the Server header.")
    date_header: bool = setting(True, Switch(), "Responses", "Send the Date header.")
    header: tuple[str, ...] = setting((), Many(HeaderLine(), separator="\n"), "Responses",
        "Add this header to every response. May be given several times; in the variable, one a line.")

    proxy_headers: bool = setting(True, Switch(), "Proxies",
        "Take client address and scheme from what trusted peers say in --forwarded-header.")
    forwarded_header: Literal["x-forwarded", "forwarded"] = setting("x-forwarded",
        Choice("x-forwarded", "forwarded"), "Proxies",
        "What the proxies write: X-Forwarded-For and X-Forwarded-Proto, or Forwarded (RFC 7239). The other "
        "is not read, as they pass on what a client has written there.")
    proxy_protocol: bool = setting(False, Switch(), "Proxies",
        "Demand a PROXY protocol header, version 1 or 2, on every connection, and close those from peers "
        "that are not trusted.")
    forwarded_allow_ips: str = setting("127.0.0.1,::1", Peers(), "Proxies",
        "Peers to trust with those headers and that protocol, split at commas: addresses, networks, unix: "
        "for peers over a Unix socket, or * alone for everyone.",
        variables=("FORWARDED_ALLOW_IPS",))

    log_config: LogConfig | None = setting(None, LogConfigFile(), "Logging",
        "Set up logging from this file: .json, .toml, .yaml or .yml for Python's dictConfig, any other "
        "for its fileConfig. What is named for uvicorn in it counts for ostler.")
    log_level: Literal["critical", "error", "warning", "info", "debug", "trace"] | None = setting(None,
        LogLevel(), "Logging",
        "Log what is at least this serious. Default: what --log-config says, else info.")
    log_format: Literal["text", "json"] = setting("text", Choice("text", "json"), "Logging",
        "Log lines as text, or each as one JSON object.")
    access_log: bool = setting(True, Switch(), "Logging", "Log every request, to stdout.")
    access_log_format: str | None = setting(None, AccessFormat(), "Logging",
        "Format of access log lines, in gunicorn's atoms, or common or combined. They are then logged when "
        "the response is complete.")
    use_colors: bool | None = setting(None, Switch(), "Logging",
        "Colour the log. Default: only where it goes to a terminal.")

    pid_file: str | None = setting(None, Text("PATH", "a path"), "Process",
        "Write the arbiter's pid, or the plain server's, to this file. One whose process runs is refused.")
    user: str | None = setting(None, Text("USER", "a name or a number"), "Process",
        "Run the application as this user, a name or a number, once the sockets are open. Takes root, which "
        "the arbiter stays.")
    group: str | None = setting(None, Text("GROUP", "a name or a number"), "Process",
        "Run the application as this group, a name or a number. Default: the user's.")
    umask: int | None = setting(None, Octal(), "Process",
        "File permissions that new files do not get, in octal. Default: as it was.")

    reload: bool = setting(False, Switch(), "Development",
        "Start the application anew when its files change. Without --workers, with one worker.")
    reload_dir: tuple[str, ...] = setting((), Many(Text("PATH", "a path")), "Development",
        "Watch this directory instead of the working directory. May be given several times.")
    reload_include: tuple[str, ...] = setting((), Many(Text("GLOB", "a pattern")), "Development",
        "Let files that match this count, besides *.py; or watch this directory. May be given several times.")
    reload_exclude: tuple[str, ...] = setting((), Many(Text("GLOB", "a pattern")), "Development",
        "Let files that match this, or lie in this directory, not count, besides .*, .py[cod], .sw.* and ~*. "
        "May be given several times.")
    reload_delay: float = setting(0.25, Seconds(zero=True), "Development",
        "Gather what changes within this long of a reload's beginning into one more.")
    def __post_init__(self) -> None:
        values = self.__dict__
        for f in dataclasses.fields(Settings):
            if values[f.name] is not f.default:
                kind = f.metadata["declaration"].kind
                values[f.name] = taken(f.name, kind, values[f.name], f"argument {f.name}")
# fmt: on


def taken(name: str, kind: Kind, value: object, origin: str) -> Any:
    """Return `value`, given in code for the setting `name`, as it is stored.

    Raises:
        SettingsError: it is wrong; one line that says where it came from and what was expected.
    """
    try:
        return kind.take(value)
    except ValueError as error:
        raise wrong(name, kind, value, origin, error) from None


def wrong(name: str, kind: Kind, value: object, origin: str, error: ValueError) -> SettingsError:
    """The one line for a wrong value, from whatever source."""
    shown = MASK if kind.secret else repr(value)
    if isinstance(value, bool):
        shown = str(value).lower()  # as TOML has it
    if len(shown) > _LONGEST_SHOWN:
        shown = shown[:_LONGEST_SHOWN] + "..."
    detail = f"{error}; " if isinstance(error, (WrongAtom, WrongPeer)) else ""
    return SettingsError(f"{name} from {origin} is {shown}: {detail}expected {kind.expected}")


def declarations() -> Mapping[str, Declaration]:
    """Every setting's declaration by field name, in the order of the class."""
    return {f.name: f.metadata["declaration"] for f in dataclasses.fields(Settings)}


def defaults() -> Mapping[str, Any]:
    """Every setting's default by field name."""
    return {f.name: f.default for f in dataclasses.fields(Settings)}


def flag(name: str) -> str:
    """The flag that gives the setting `name` on the command line."""
    return "--" + name.replace("_", "-")


def variables(name: str) -> tuple[str, ...]:
    """The environment variables that give the setting `name`; the first that is set counts."""
    return (f"OSTLER_{name.upper()}", *declarations()[name].variables)
