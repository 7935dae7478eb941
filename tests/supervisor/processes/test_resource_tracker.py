"""What the arbiter does to multiprocessing's resource tracker, and what it leaves alone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from ostler.supervisor.event_loop import EventLoop
from ostler.supervisor.processes.resource_tracker import LazyResourceTracker

UTILITIES = SimpleNamespace(_args_from_interpreter_flags=list, spawnv_passfds=lambda *_: 4711)


class FakeTracker:
    """multiprocessing's tracker object, before it has started the process."""

    def __init__(self) -> None:
        self._fd: int | None = None
        self._pid: int | None = None
        self.asked = 0

    def ensure_running(self) -> None:
        self.asked += 1

    def getfd(self) -> int | None:
        self.ensure_running()
        return self._fd


@pytest.fixture
def loop() -> Iterator[EventLoop]:
    loop = EventLoop()
    yield loop
    loop.close()


def test_a_spawn_gets_the_pipe_and_starts_no_tracker(loop: EventLoop) -> None:
    fake = FakeTracker()
    lazy = LazyResourceTracker(loop, fake, UTILITIES)

    lazy.start()

    assert fake.getfd() is not None
    assert fake.asked == 0
    lazy.close()
    assert fake._fd is None
    fake.getfd()
    assert fake.asked == 1


def test_the_first_message_starts_the_tracker(loop: EventLoop) -> None:
    fake = FakeTracker()
    lazy = LazyResourceTracker(loop, fake, UTILITIES)
    lazy.start()
    assert fake._fd is not None
    os.write(fake._fd, b"PROBE:0:noop\n")

    loop.call_later(0, loop.stop)
    loop.run_forever()

    assert fake._pid == 4711
    lazy.close()


def test_a_tracker_that_runs_already_stays(loop: EventLoop) -> None:
    fake = FakeTracker()
    fake._fd = 99
    lazy = LazyResourceTracker(loop, fake, UTILITIES)

    lazy.start()
    lazy.close()

    assert fake._fd == 99


@pytest.mark.parametrize("missing", ["_fd", "_pid", "getfd", "ensure_running", "tracker", "flags", "spawn"])
def test_where_a_private_name_is_gone_multiprocessing_starts_its_tracker_as_usual(
    loop: EventLoop, missing: str
) -> None:
    present = {"_fd": None, "_pid": None, "getfd": FakeTracker.getfd, "ensure_running": print}
    present.pop(missing, None)
    tracker = None if missing == "tracker" else SimpleNamespace(**present)
    functions = dict(vars(UTILITIES))
    functions.pop({"flags": "_args_from_interpreter_flags", "spawn": "spawnv_passfds"}.get(missing, ""), None)
    lazy = LazyResourceTracker(loop, tracker, SimpleNamespace(**functions))

    lazy.start()
    lazy.close()

    assert tracker is None or vars(tracker) == present


def test_this_python_has_the_names(loop: EventLoop) -> None:
    from multiprocessing import resource_tracker

    tracker = resource_tracker.ResourceTracker()
    lazy = LazyResourceTracker(loop, tracker)

    lazy.start()

    assert tracker.getfd() is not None
    assert tracker._pid is None  # type: ignore[attr-defined]
    lazy.close()
