"""What an arbiter hands over to the one that takes its place: listening sockets, and a line to speak over.

The new arbiter finds it all in one variable of its environment, as JSON; the descriptors are inherited. Over
the line it says `ready` or `failed: why`, and is answered with `go`: from then on the place is its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Iterable, Mapping, MutableMapping
from typing import Any

from ostler.errors import BindError, OstlerError
from ostler.records import record
from ostler.settings.declarations import Settings
from ostler.system.sockets import Listener, adopt

VARIABLE = "OSTLER_HANDOVER"
"""Where the new arbiter finds it."""

READY, FAILED, GO = b"ready", b"failed: ", b"go"

_FORMAT = 1
"""Changed when an ostler that knows the old one would do harm with the new; not for keys that are added."""

_PLACE = ("fd", "uds", "host", "port")


def offer(listeners: Iterable[Listener], settings: Settings, *, line: int, stderr: int) -> str:
    """Return the variable's text: `line` and `stderr` are descriptors, as the sockets are."""
    entries = [
        {
            # One address may have several queues; their order is what the kernel knows them by.
            "fds": [sock.fileno() for sock in (listener.socket, *listener.further)],
            "path": listener.path,
            "inode": listener.inode,
            "origin": listener.origin,
        }
        for listener in listeners
    ]
    facts = {
        "format": _FORMAT,
        "pid": os.getpid(),
        "line": line,
        "stderr": stderr,
        "place": {name: getattr(settings, name) for name in _PLACE},
        "listeners": entries,
    }
    return json.dumps(facts)


@record
class Inherited:
    """What the old arbiter has offered, seen by the new one; its sockets are owned once the place is."""

    pid: int
    """The old arbiter's."""
    line: socket.socket
    place: Mapping[str, Any]
    entries: tuple[Mapping[str, Any], ...]

    def suits(self, settings: Settings, *, asked: bool) -> bool:
        """Whether the new settings listen where the old ones did; `asked`: they say where, by themselves."""
        passed = any(str(entry.get("origin", "")) for entry in self.entries)
        same = all(self.place.get(name) == _plain(getattr(settings, name)) for name in _PLACE)
        return same and not (passed and asked)

    def listeners(self, backlog: int) -> list[Listener]:
        """Take the sockets as our own, all but the right to unlink a path.

        Raises:
            BindError: a descriptor is not what it was offered as.
        """
        found = []
        for entry in self.entries:
            first, *further = [_take_socket(fd, backlog) for fd in entry["fds"]]
            inode = entry.get("inode")
            path = entry.get("path")
            origin = str(entry.get("origin", ""))
            found.append(
                Listener(first, path, tuple(inode) if inode else None, origin, False, tuple(further))
            )
        return found

    def decline(self) -> None:
        """Let go of the sockets: the new settings listen elsewhere."""
        for entry in self.entries:
            for fd in entry["fds"]:
                with contextlib.suppress(OSError):
                    os.close(fd)

    def say(self, word: bytes) -> None:
        """Tell the old arbiter; when it is gone, nobody."""
        with contextlib.suppress(OSError):
            self.line.sendall(word + b"\n")

    def failed(self, why: str) -> None:
        """Tell the old arbiter why it has to serve on."""
        self.say(FAILED + " ".join(why.split()).encode("utf-8", "replace"))


def take(environ: MutableMapping[str, str]) -> Inherited | None:
    """Return what is offered in `environ`, where it is taken out; None: nothing is.

    Until then stderr is a pipe to the old arbiter, which logs what a broken installation says there.

    Raises:
        OstlerError: it cannot be understood, or comes from an ostler that is too new or too old.
    """
    text = environ.pop(VARIABLE, None)
    if text is None:
        return None
    try:
        facts = json.loads(text)
        if facts["format"] != _FORMAT:
            raise OstlerError(
                f"{VARIABLE} has format {facts['format']}, expected {_FORMAT}: a restart is needed between "
                f"these two versions of ostler"
            )
        entries = tuple(facts["listeners"])
        for fd in (facts["line"], facts["stderr"], *(fd for entry in entries for fd in entry["fds"])):
            os.set_inheritable(fd, False)
        os.dup2(facts["stderr"], 2)
        os.close(facts["stderr"])
        line = socket.socket(fileno=facts["line"])
        return Inherited(int(facts["pid"]), line, dict(facts["place"]), entries)
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise BindError(
            f"{VARIABLE} is {text!r}, which nobody can take over ({error}): it is for ostler alone to set"
        ) from None


def _take_socket(fd: int, backlog: int) -> socket.socket:
    sock = adopt(fd, backlog, source=VARIABLE)
    os.close(fd)
    sock.listen(backlog)  # which may be another one now
    return sock


def _plain(value: object) -> object:
    """As JSON has it."""
    return list(value) if isinstance(value, tuple) else value
