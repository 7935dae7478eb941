"""The signal handlers of a process that serves, where the machine leaves them little."""

from __future__ import annotations

import faulthandler
import os

import pytest

from ostler.settings.declarations import Settings
from ostler.worker.signal_handlers import SignalHandlers


def test_an_order_to_stop_is_obeyed_also_where_no_thread_can_be_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_thread(*_: object, **__: object) -> None:
        raise RuntimeError("unable to start watchdog thread")  # faulthandler's words at RLIMIT_NPROC

    monkeypatch.setattr(faulthandler, "dump_traceback_later", no_thread)
    with open(os.devnull, "wb") as stacks:
        handlers = SignalHandlers(
            Settings("main:app"), stacks.fileno(), supervised=True, leave=lambda: pytest.fail("it has left")
        )
        handlers.set_deadline(1.0)
