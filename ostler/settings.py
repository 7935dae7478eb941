"""Every setting, declared once: flag, variable, TOML key, `--help` row and docs row follow from here.

Pure: a field says what it takes and what it defaults to; `ostler.sources` fetches the values.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, TypeVar

T = TypeVar("T")


class Kind:
    """What a setting takes: `parse` reads text (flags, variables), `check` a native value (TOML, code)."""

    metavar = "TEXT"
    expected = "a text"
    many = False

    def parse(self, text: str) -> Any:
        """Return the value that `text` stands for.

        Raises:
            ValueError: the text is not of this kind; `expected` says what would be.
        """
        return self.check(text)

    def check(self, value: object) -> Any:
        """Return `value` as it is stored in `Settings`.

        Raises:
            ValueError: the value is not of this kind.
        """
        if not isinstance(value, str):
            raise ValueError
        return value


class Text(Kind):
    """Any text, with a metavar that hints at its meaning."""

    def __init__(self, metavar: str = "TEXT", expected: str = "a text") -> None:
        self.metavar = metavar
        self.expected = expected


class Switch(Kind):
    """On or off; as a flag `--name/--no-name`, as a variable 1/0, true/false, yes/no or on/off."""

    metavar = ""
    expected = "true or false"
    words: Mapping[str, bool] = MappingProxyType(
        {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
    )

    def parse(self, text: str) -> bool:
        try:
            return self.words[text.strip().lower()]
        except KeyError:
            raise ValueError from None

    def check(self, value: object) -> bool:
        if not isinstance(value, bool):
            raise ValueError
        return value


class Integer(Kind):
    """A whole number between bounds, both included."""

    metavar = "INTEGER"

    def __init__(self, minimum: int = 0, maximum: int | None = None) -> None:
        self.minimum = minimum
        self.maximum = maximum
        upper = "" if maximum is None else f" and at most {maximum}"
        self.expected = f"a whole number of at least {minimum}{upper}"

    def parse(self, text: str) -> Any:
        # int() also takes "1_000" and " 7 "; what a person types as a number is digits.
        digits = text.strip()
        if not digits.isascii() or not digits.isdigit():
            raise ValueError
        return self.check(int(digits))

    def check(self, value: object) -> Any:
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError
        if value < self.minimum or (self.maximum is not None and value > self.maximum):
            raise ValueError
        return value


class Seconds(Kind):
    """A time span in seconds, fractions allowed."""

    metavar = "SECONDS"

    def __init__(self, *, zero: bool = False) -> None:
        self.zero = zero
        self.expected = "a number of seconds, 0 or more" if zero else "a number of seconds above 0"

    def parse(self, text: str) -> float:
        return self.check(float(text))

    def check(self, value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ValueError
        # A NaN compares false with everything, so the bound is written to refuse it.
        if not (0 <= value < float("inf")) or (value == 0 and not self.zero):
            raise ValueError
        return float(value)


class Choice(Kind):
    """One of a few words."""

    def __init__(self, *words: str) -> None:
        self.words = words
        self.metavar = f"[{'|'.join(words)}]"
        self.expected = f"one of {', '.join(words)}"

    def check(self, value: object) -> str:
        if not isinstance(value, str) or value.lower() not in self.words:
            raise ValueError
        return value.lower()


class Octal(Kind):
    """File permissions, written in octal as chmod(1) takes them: 660, 0660 or 0o660."""

    metavar = "OCTAL"
    expected = "file permissions in octal, such as 660"

    def parse(self, text: str) -> int:
        return self._bounded(int(text, 8))

    def check(self, value: object) -> int:
        # A TOML integer would be read as decimal: 660 there is a trap, so it is taken as text only.
        if not isinstance(value, str):
            raise ValueError
        return self.parse(value)

    def _bounded(self, mode: int) -> int:
        if not 0 <= mode <= 0o777:
            raise ValueError
        return mode


class Workers(Integer):
    """A number of workers, or `auto` for as many as there are CPUs to use."""

    metavar = "INTEGER|auto"

    def __init__(self) -> None:
        super().__init__(minimum=1)
        self.expected = "a whole number of at least 1, or auto"

    def parse(self, text: str) -> Any:
        return self.check(text) if text.strip().lower() == "auto" else super().parse(text)

    def check(self, value: object) -> Any:
        if isinstance(value, str) and value.strip().lower() == "auto":
            return "auto"
        return super().check(value)


class HeaderLine(Kind):
    """A response header as `Name:Value`."""

    metavar = "NAME:VALUE"
    expected = "a header as Name:Value, without line breaks"

    def check(self, value: object) -> str:
        if not isinstance(value, str):
            raise ValueError
        name, colon, _ = value.partition(":")
        # RFC 9110, section 5.6.2 (token) and 5.5 (field values are visible ASCII or obs-text).
        token = name.strip()
        if not colon or not token or not all(c.isascii() and (c.isalnum() or c in "!#$%&'*+-.^_`|~") for c in token):
            raise ValueError
        if any(c in value for c in "\r\n\0"):
            raise ValueError
        value.encode("latin-1")  # UnicodeEncodeError is a ValueError
        return value


class Many(Kind):
    """Several of another kind: a flag given several times, a TOML list, or a variable split at commas."""

    many = True

    def __init__(self, item: Kind) -> None:
        self.item = item
        self.metavar = item.metavar
        self.expected = item.expected

    def parse(self, text: str) -> tuple[Any, ...]:
        return tuple(self.item.parse(part.strip()) for part in text.split(",") if part.strip())

    def check(self, value: object) -> tuple[Any, ...]:
        if isinstance(value, str):
            return (self.item.check(value),)
        if not isinstance(value, (list, tuple)):
            raise ValueError
        return tuple(self.item.check(item) for item in value)


@dataclass(frozen=True)
class Declaration:
    """What is declared of one setting besides its default: enough for flag, variable, help and docs."""

    kind: Kind
    help: str
    group: str
    variables: tuple[str, ...] = ()
    """Further environment variables, after `OSTLER_<NAME>`."""


GROUPS = ("Application", "Listening", "Workers", "Protocol", "Limits", "Timeouts", "Responses", "Proxies", "Logging")


def setting(default: T, kind: Kind, group: str, help: str, *, variables: tuple[str, ...] = ()) -> T:
    """Declare one field of `Settings`."""
    declaration = Declaration(kind, help, group, variables)
    # The cast is dataclasses' own lie: field() is typed as returning the default.
    result: T = field(default=default, metadata={"declaration": declaration})
    return result


@dataclass(frozen=True)
class Settings:
    """Every effective setting, frozen; names are uvicorn's wherever uvicorn has the setting."""

    app: str = setting("", Text("APP", "module:attribute, such as main:app"), "Application",
        "The application, as module:attribute.")
    factory: bool = setting(False, Switch(), "Application",
        "Treat APP as a factory: a callable without arguments that returns the application.")
    app_dir: str = setting("", Text("PATH"), "Application",
        "Look for APP in this directory, by putting it first on sys.path. Default: the working directory.")
    interface: Literal["auto", "asgi3"] = setting("auto", Choice("auto", "asgi3"), "Application",
        "The application's interface.")
    lifespan: Literal["auto", "on", "off"] = setting("auto", Choice("auto", "on", "off"), "Application",
        "ASGI lifespan: on fails the start when the application does not support it, auto does without.")
    root_path: str = setting("", Text("PATH"), "Application",
        "ASGI root_path, for an application mounted below a path by a proxy.")

    host: tuple[str, ...] = setting(("127.0.0.1",), Many(Text("HOST", "a host name or an address")), "Listening",
        "Listen on this host, an IPv4 or IPv6 address or a name. May be given several times.")
    port: int = setting(8000, Integer(0, 65535), "Listening",
        "Listen on this port. 0 lets the kernel pick one, which is logged.")
    uds: str | None = setting(None, Text("PATH"), "Listening",
        "Listen on a Unix domain socket at this path instead of host and port.")
    uds_permissions: int = setting(0o666, Octal(), "Listening",
        "Permissions of the Unix domain socket, in octal.")
    fd: int | None = setting(None, Integer(), "Listening",
        "Listen on this inherited file descriptor, as supervisord and circus hand over.")
    backlog: int = setting(2048, Integer(1), "Listening",
        "Connections that the kernel may hold before a worker accepts them.")

    workers: int | Literal["auto"] | None = setting(None, Workers(), "Workers",
        "Run an arbiter with this many workers; auto counts the CPUs that this process may use. "
        "Without it, one plain server without an arbiter.", variables=("WEB_CONCURRENCY",))
    limit_max_requests: int | None = setting(None, Integer(1), "Workers",
        "Retire a worker after this many requests; its successor is ready before it goes.")
    limit_max_requests_jitter: int = setting(0, Integer(), "Workers",
        "Add up to this many requests, at random, so that workers do not retire together.")
    timeout_worker_healthcheck: float = setting(30.0, Seconds(), "Workers",
        "Replace a worker whose event loop has been silent for this long. At half of it, its stack is logged.")
    timeout_worker_startup: float = setting(300.0, Seconds(), "Workers",
        "Give up on a worker that is not ready after this long; importing the application counts.")

    loop: Literal["auto", "uvloop", "asyncio"] = setting("auto", Choice("auto", "uvloop", "asyncio"), "Protocol",
        "Event loop. auto takes uvloop where it is installed.")
    http: Literal["auto", "httptools", "h11"] = setting("auto", Choice("auto", "httptools", "h11"), "Protocol",
        "HTTP parser. auto takes httptools where it is installed.")

    limit_concurrency: int | None = setting(None, Integer(1), "Limits",
        "Answer 503 once a worker has this many connections or requests in flight.")
    limit_request_head: int = setting(65536, Integer(1024), "Limits",
        "Largest request line and headers together, in bytes; more is refused with 414 or 431.")

    timeout_keep_alive: float = setting(5.0, Seconds(zero=True), "Timeouts",
        "Close a connection that has been idle between requests for this long.")
    timeout_request_header: float = setting(10.0, Seconds(), "Timeouts",
        "Refuse, with 408, a request whose head takes longer than this to arrive.")
    timeout_graceful_shutdown: float = setting(30.0, Seconds(zero=True), "Timeouts",
        "Let requests in flight finish for this long when a worker stops; then they are cancelled.")

    server_header: bool = setting(True, Switch(), "Responses", "Send the Server header.")
    date_header: bool = setting(True, Switch(), "Responses", "Send the Date header.")
    header: tuple[str, ...] = setting((), Many(HeaderLine()), "Responses",
        "Add this header to every response. May be given several times.")

    proxy_headers: bool = setting(True, Switch(), "Proxies",
        "Take client address and scheme from X-Forwarded-For and X-Forwarded-Proto of trusted peers.")
    forwarded_allow_ips: str = setting("127.0.0.1,::1", Text("LIST"), "Proxies",
        "Peers to trust with those headers: addresses, networks, unix: for Unix sockets, or *, split at commas.",
        variables=("FORWARDED_ALLOW_IPS",))

    log_level: Literal["critical", "error", "warning", "info", "debug", "trace"] = setting("info",
        Choice("critical", "error", "warning", "info", "debug", "trace"), "Logging",
        "Log what is at least this serious.")
    access_log: bool = setting(True, Switch(), "Logging", "Log every request, to stdout.")
    use_colors: bool | None = setting(None, Switch(), "Logging",
        "Colour the log. Default: only where it goes to a terminal.")


def declarations() -> Mapping[str, Declaration]:
    """Every setting's declaration by field name, in the order of the class."""
    return {f.name: f.metadata["declaration"] for f in dataclasses.fields(Settings)}


def defaults() -> Mapping[str, Any]:
    """Every setting's default by field name."""
    return {f.name: f.default for f in dataclasses.fields(Settings)}
