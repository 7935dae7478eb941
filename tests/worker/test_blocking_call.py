"""Where a thread is: the line of the application, and the call in it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ostler.worker import blocking_call
from tests.live.harness import wait_until

HERE = str(Path(__file__).parent)


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("    time.sleep(60)", "time.sleep"),
        ("    found = connection.cursor.fetchall()  # f(x)", "connection.cursor.fetchall"),
        ("    return await asyncio.sleep (1)", "asyncio.sleep"),
        ("    if not lock.acquire(): return", "lock.acquire"),
        ("    if (x): pass", None),
        ("    print(time.sleep(5))", None),
        ("    while True:", None),
        ("async def app(scope, receive, send):", None),
        ("", None),
    ],
)
def test_the_call_in_a_line_is_named_if_there_is_one(line: str, name: str | None) -> None:
    assert blocking_call.called_in(line) == name


@contextmanager
def running(function: Callable[[], object]) -> Iterator[int]:
    """Run a function in a thread, and yield that thread's id."""
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    assert thread.ident is not None
    yield thread.ident
    thread.join()


def test_a_call_of_c_is_named_by_the_source() -> None:
    lock = threading.Lock()

    def block() -> None:
        lock.acquire()
        lock.release()

    lock.acquire()
    with running(block) as thread:
        line = block.__code__.co_firstlineno + 1
        expected = f"{Path(__file__).name}:{line} block(), lock.acquire"
        wait_until(lambda: blocking_call.describe(thread, HERE) == expected, "the thread waits for the lock")
        assert blocking_call.describe(thread, "/srv") == f"{HERE}/{expected}"
        lock.release()


def test_a_call_of_a_library_is_named_by_its_function() -> None:
    event = threading.Event()

    def block() -> None:
        event.wait()

    with running(block) as thread:
        place = f"{Path(__file__).name}:{block.__code__.co_firstlineno + 1} block(), threading."

        def described() -> bool:
            text = blocking_call.describe(thread, HERE) or ""
            return text.startswith(place) and text.endswith("wait")

        wait_until(described, "the thread waits for the event")
        event.set()


def test_a_thread_without_code_of_the_application_is_nowhere() -> None:
    event = threading.Event()
    with running(event.wait) as thread:
        assert blocking_call.describe(thread, HERE) is None
        event.set()
    assert blocking_call.describe(0, HERE) is None
