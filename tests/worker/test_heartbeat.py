"""The heartbeat of a worker around forks, in this process."""

from __future__ import annotations

import os
import threading

import pytest

from ostler.ipc.assignment import Assignment
from ostler.settings.declarations import Settings
from ostler.system.pipes import pipe
from ostler.worker.heartbeat import Heartbeat


class NoSignals:
    """Stands for `SignalHandlers`: the arbiter of these tests does not end."""


def running(heartbeat: Heartbeat) -> bool:
    return heartbeat._thread.is_alive()


def test_a_thread_that_cannot_start_after_a_fork_starts_at_a_later_tick(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    beats, stacks, lifeline = pipe(), pipe(), pipe()
    assignment = Assignment(1, 1, Settings(), os.getcwd(), (), beats[1], stacks[1], lifeline[0])
    heartbeat = Heartbeat(assignment, NoSignals())  # type: ignore[arg-type]
    heartbeat._start_thread()
    heartbeat._pause()
    assert not running(heartbeat)
    with monkeypatch.context() as limited:

        def refuse(thread: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        limited.setattr(threading.Thread, "start", refuse)
        heartbeat._resume()
        heartbeat.ticked(0.0)
        assert not running(heartbeat)
        heartbeat._pause()
        heartbeat._resume()
    heartbeat.ticked(0.0)
    assert running(heartbeat)
    heartbeat._pause()
    assert not running(heartbeat)
    heartbeat._forks.release()
