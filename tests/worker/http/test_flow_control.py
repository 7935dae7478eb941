"""Pausing and resuming a transport's reading."""

from __future__ import annotations

import asyncio
from typing import cast

from ostler.worker.http.flow_control import FlowControlMixin
from ostler.worker.server_state import ServerState


class LostTransport(asyncio.Transport):
    """Behaves like asyncio's TLS transport in Python 3.10 whose loss is not reported yet."""

    def is_closing(self) -> bool:
        return False

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        raise AttributeError("'NoneType' object has no attribute 'resume_reading'")


class Paused(FlowControlMixin):
    """A protocol that has paused the reading of its transport, which then was lost."""

    def __init__(self) -> None:
        super().__init__(cast("ServerState", None))
        self._transport = LostTransport()
        self._pause_reading()

    def resume(self) -> None:
        self._resume_reading()


def test_a_lost_transport_that_does_not_say_so_is_resumed_without_an_error() -> None:
    protocol = Paused()
    protocol.resume()
    assert not protocol.reading_paused
