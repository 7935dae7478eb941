"""The new arbiter's side of an upgrade: it says when it is ready, and then takes the old one's place."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ostler.errors import SettingsError
from ostler.ipc.contract import PIPE_SIZE
from ostler.supervisor.event_loop import EventLoop
from ostler.supervisor.upgrade import handover
from ostler.supervisor.upgrade.handover import Inherited
from ostler.system.sockets import Listener

if TYPE_CHECKING:
    from ostler.supervisor.fleet.fleet import Fleet
    from ostler.system.pid_file import PidFile

logger = logging.getLogger("ostler.error.supervisor")


class NewArbiter:
    """What an arbiter does that another arbiter has started in its place.

    The place is taken when this arbiter is ready and the old one has handed over, or has died.

    Args:
        loop: the arbiter's event loop.
        inherited: what the old arbiter hands over.
        listeners: this arbiter's listening sockets; it owns their paths once it has the place.
        pid_file: the file to write then.
        take_place: called then.
    """

    def __init__(
        self,
        loop: EventLoop,
        inherited: Inherited,
        listeners: Sequence[Listener],
        pid_file: PidFile | None,
        take_place: Callable[[], None],
    ) -> None:
        self.over = False
        """Whether this arbiter has the place."""
        self._loop = loop
        self._inherited = inherited
        self._listeners = listeners
        self._pid_file = pid_file
        self._take_place = take_place
        self._announced = False
        self._old_arbiter_died = False

    def __repr__(self) -> str:
        return f"<NewArbiter after pid={self._inherited.pid} over={self.over}>"

    def start(self) -> None:
        """Listen to the old arbiter."""
        self._inherited.channel.setblocking(False)
        self._loop.add_reader(self._inherited.channel, self._read)

    def update(self, fleet: Fleet) -> None:
        """Tell the old arbiter that all workers are ready, as soon as they are."""
        if self.over or self._announced:
            return
        if fleet.ready >= fleet.size and not fleet.stopping:
            self._announced = True
            self._inherited.say(handover.READY)
            if self._old_arbiter_died:
                self._finish()

    def close(self) -> None:
        """Listen no more."""
        if not self.over:
            self._loop.remove_reader(self._inherited.channel)

    def _read(self) -> None:
        try:
            data = self._inherited.channel.recv(PIPE_SIZE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data.startswith(handover.GO):
            self._finish()
            return
        self._loop.remove_reader(self._inherited.channel)
        self._old_arbiter_died = True
        logger.warning("The old arbiter process [%d] has gone before its time", self._inherited.pid)
        if self._announced:
            self._finish()

    def _finish(self) -> None:
        self.over = True
        self._loop.remove_reader(self._inherited.channel)
        self._inherited.channel.close()
        for listener in self._listeners:
            listener.owned = True
        if self._pid_file is not None:
            try:
                self._pid_file.write()
            except SettingsError as error:
                logger.error("%s", error)
        self._take_place()
        logger.info(
            "Upgrade complete: arbiter process [%d] has taken over from [%d]",
            os.getpid(),
            self._inherited.pid,
        )
