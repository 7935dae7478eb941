"""What an arbiter hands over to the one that takes its place: its listening sockets, and a channel.

The new arbiter finds their descriptors, which it inherits, in one variable of its environment, as JSON. The
channel is a socket pair: the new arbiter writes `ready` or `failed: why`, and the old one answers with `go`.
From then on the place is the new one's.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterable, Mapping, MutableMapping
from typing import Any

from ostler.errors import BindError, OstlerError
from ostler.records import record
from ostler.settings.declarations import Settings
from ostler.system.sockets import Listener, adopt

VARIABLE = "OSTLER_HANDOVER"
"""The variable that the new arbiter finds it in."""

READY, FAILED, GO = b"ready", b"failed: ", b"go"

_FORMAT = 1
"""To be changed when an ostler that knows the old format would do harm with the new; not for added keys."""

_PLACE = ("fd", "uds", "host", "port")


def offer(listeners: Iterable[Listener], settings: Settings, *, channel: int, stderr: int) -> str:
    """Return the variable's text.

    Args:
        listeners: the arbiter's listening sockets.
        settings: those that the sockets were opened with.
        channel: the descriptor of the new arbiter's end of the channel.
        stderr: a descriptor of what is to be its stderr once it has understood all this.
    """
    import json  # at an upgrade only: the arbiter stays small

    entries = [
        {
            # One address may have several queues. The kernel knows them by their order.
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
        "line": channel,
        "stderr": stderr,
        "place": {name: getattr(settings, name) for name in _PLACE},
        "listeners": entries,
    }
    return json.dumps(facts)


@record
class Inherited:
    """What the old arbiter hands over, as the new one has read it."""

    pid: int
    """The old arbiter's process id."""
    channel: socket.socket
    place: Mapping[str, Any]
    """The settings that say where the old arbiter listens."""
    entries: tuple[Mapping[str, Any], ...]
    """One for each listener."""

    def suits(self, settings: Settings, *, asked: bool) -> bool:
        """Return whether the new settings listen where the old ones did.

        Args:
            settings: the new ones.
            asked: whether they say where to listen, and not only by their defaults.
        """
        passed = any(str(entry.get("origin", "")) for entry in self.entries)
        same = all(self.place.get(name) == _plain(getattr(settings, name)) for name in _PLACE)
        return same and not (passed and asked)

    def listeners(self, backlog: int) -> list[Listener]:
        """Return the sockets as listeners; their paths stay the old arbiter's until it has handed over.

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
                Listener(
                    first,
                    path,
                    tuple(inode) if inode else None,
                    origin,
                    owned=False,
                    further=tuple(further),
                    ours=not origin and self.place.get("fd") is None,
                )
            )
        return found

    def decline(self) -> None:
        """Close the sockets: the new settings listen elsewhere."""
        for entry in self.entries:
            for fd in entry["fds"]:
                with contextlib.suppress(OSError):
                    os.close(fd)

    def say(self, word: bytes) -> None:
        """Write a word to the old arbiter; if it is gone, do nothing."""
        with contextlib.suppress(OSError):
            self.channel.sendall(word + b"\n")

    def failed(self, why: str) -> None:
        """Tell the old arbiter why this one fails, so that it serves on."""
        self.say(FAILED + " ".join(why.split()).encode("utf-8", "replace"))


def take(environ: MutableMapping[str, str]) -> Inherited | None:
    """Return what `environ` says is handed over, and remove that variable; None if it is not there.

    Until then stderr is a pipe to the old arbiter, which logs what a broken installation writes there.

    Raises:
        OstlerError: it cannot be understood, or comes from an ostler that is too new or too old.
    """
    text = environ.pop(VARIABLE, None)
    if text is None:
        return None
    import json  # at an upgrade only: the arbiter stays small

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
        channel = socket.socket(fileno=facts["line"])
        return Inherited(int(facts["pid"]), channel, dict(facts["place"]), entries)
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise BindError(
            f"{VARIABLE} is {text!r}, which nobody can take over ({error}): it is for ostler alone to set"
        ) from None


def _take_socket(fd: int, backlog: int) -> socket.socket:
    sock = adopt(fd, backlog, source=VARIABLE)
    os.close(fd)
    sock.listen(backlog)  # the setting may have changed
    return sock


def _plain(value: object) -> object:
    """Return a setting's value as JSON gives it back."""
    return list(value) if isinstance(value, tuple) else value
