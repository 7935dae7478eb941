"""The arbiter's own event loop, with real pipes, signals and threads."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator

import pytest

from ostler.supervisor.event_loop import EventLoop

PATIENCE = 30.0


@pytest.fixture
def loop() -> Iterator[EventLoop]:
    loop = EventLoop()

    def late() -> None:
        raise AssertionError("nothing has stopped the loop")

    loop.call_later(PATIENCE, late)
    yield loop
    loop.close()


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


def test_a_readable_descriptor_calls_back_with_its_arguments(loop: EventLoop, pipe: tuple[int, int]) -> None:
    called = []

    def readable(name: str) -> None:
        called.append((name, os.read(pipe[0], 100)))
        loop.stop()

    loop.add_reader(pipe[0], readable, "other")
    loop.add_reader(pipe[0], readable, "this")
    loop.call_soon(lambda: os.write(pipe[1], b"x"))
    loop.run_forever()

    assert called == [("this", b"x")]


def test_a_reader_that_is_removed_in_a_round_is_not_called_in_it(loop: EventLoop) -> None:
    pipes = [os.pipe(), os.pipe()]
    called = []

    def readable(number: int) -> None:
        called.append(number)
        loop.remove_reader(pipes[1 - number][0])
        loop.call_later(0.01, loop.stop)

    for number, (reader, writer) in enumerate(pipes):
        loop.add_reader(reader, readable, number)
        os.write(writer, b"x")
    loop.call_soon(loop.stop)
    loop.run_forever()
    for ends in pipes:
        for end in ends:
            os.close(end)

    assert len(called) == 1


def test_a_reader_can_be_removed_twice_and_is_not_called_any_more(
    loop: EventLoop, pipe: tuple[int, int]
) -> None:
    loop.add_reader(pipe[0], pytest.fail, "called")
    loop.remove_reader(pipe[0])
    loop.remove_reader(pipe[0])
    os.write(pipe[1], b"x")
    loop.call_later(0.01, loop.stop)
    loop.run_forever()


def test_timers_are_called_in_the_order_in_which_they_are_due(loop: EventLoop) -> None:
    called: list[str] = []
    loop.call_later(0.02, loop.stop)
    for name in "abc":
        loop.call_later(0.01, lambda name=name: called.append(name))  # type: ignore[misc]
    loop.call_later(0.0, lambda: called.append("first"))
    loop.call_later(0.005, lambda: called.append("cancelled")).cancel()
    loop.run_forever()

    assert called == ["first", "a", "b", "c"]


def test_the_loop_can_sleep_for_a_timer_of_years(loop: EventLoop) -> None:
    distant = EventLoop()
    distant.call_later(1e9, lambda: None)
    distant.call_soon(lambda: threading.Timer(0.01, distant.call_soon_threadsafe, (distant.stop,)).start())
    distant.run_forever()
    distant.close()


def test_timers_that_are_cancelled_are_not_kept(loop: EventLoop) -> None:
    for delay in range(1000):
        loop.call_later(60 + delay, loop.stop).cancel()
    loop.call_later(60, loop.stop)

    assert "2 timers" in repr(loop)  # this one, and the fixture's


def test_a_callback_may_start_and_cancel_timers(loop: EventLoop) -> None:
    called = []
    later = loop.call_later(0.002, lambda: called.append("cancelled"))

    def first() -> None:
        called.append("first")
        later.cancel()
        loop.call_later(0, lambda: called.append("second"))
        loop.call_later(0.01, loop.stop)

    loop.call_later(0.001, first)
    loop.run_forever()

    assert called == ["first", "second"]


def test_another_thread_wakes_the_loop(loop: EventLoop) -> None:
    threads = []

    def called(name: object) -> None:
        threads.append((name, threading.current_thread()))
        loop.stop()

    thread = threading.Thread(target=lambda: loop.call_soon_threadsafe(called, "thread"))
    loop.call_soon(thread.start)
    loop.run_forever()
    thread.join()

    assert threads == [("thread", threading.current_thread())]


def test_a_closed_loop_refuses_callbacks_of_other_threads(loop: EventLoop) -> None:
    loop.close()
    loop.close()
    with pytest.raises(RuntimeError, match="closed"):
        loop.call_soon_threadsafe(print)


@pytest.fixture
def handled(loop: EventLoop) -> Iterator[Callable[..., None]]:
    numbers = (signal.SIGUSR1, signal.SIGUSR2)
    before = {number: signal.getsignal(number) for number in numbers}

    def handle(*handlers: Callable[[], object]) -> None:
        for number, handler in zip(numbers, handlers, strict=False):
            loop.add_signal_handler(number, handler)

    yield handle
    for number in numbers:
        loop.remove_signal_handler(number)
        signal.signal(number, before[number])


def test_every_delivery_of_a_signal_counts(loop: EventLoop, handled: Callable[..., None]) -> None:
    called: list[str] = []

    def send() -> None:
        for number in (signal.SIGUSR1, signal.SIGUSR1, signal.SIGUSR2, signal.SIGUSR1):
            os.kill(os.getpid(), number)

    def second() -> None:
        called.append("2")
        loop.call_later(0.05, loop.stop)

    handled(lambda: called.append("1"), second)
    loop.call_soon(send)
    loop.run_forever()

    assert sorted(called) == ["1", "1", "1", "2"]


def test_a_flood_of_signals_neither_blocks_the_loop_nor_prints_a_warning(
    loop: EventLoop, handled: Callable[..., None], capfd: pytest.CaptureFixture[str]
) -> None:
    """The interpreter's warning takes a lock within the C handler, and the next signal would wait for it."""
    called: list[None] = []

    def flood() -> None:
        for _ in range(70_000):  # more than a pipe holds
            signal.raise_signal(signal.SIGUSR1)
        loop.call_later(0.01, loop.stop)

    handled(lambda: called.append(None))
    loop.call_soon(flood)
    loop.run_forever()

    assert 0 < len(called) < 70_000
    assert capfd.readouterr().err == ""


def test_a_callback_that_raises_is_reported_and_the_others_are_called(loop: EventLoop) -> None:
    defects = []
    called: list[str] = []

    def fails() -> None:
        raise ValueError("x")

    loop.exception_handler = lambda callback, error: defects.append((callback, str(error)))
    loop.call_soon(fails)
    loop.call_soon(lambda: called.append("next"))
    loop.call_soon(loop.stop)
    loop.run_forever()

    assert defects == [(fails, "x")]
    assert called == ["next"]
