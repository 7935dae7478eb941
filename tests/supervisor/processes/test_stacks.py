"""The stacks that faulthandler writes, of several Pythons: the event loop's thread first, and its place."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from ostler.cli import worker_entry
from ostler.supervisor.processes import stacks

HEARTBEAT = [
    f'  File "{threading.__file__}", line 331 in wait',
    '  File "/x/ostler/worker/heartbeat.py", line 111 in _run',
]
LOOP = [
    f'  File "{Path(threading.__file__).parent}/re/__init__.py", line 166 in match',
    '  File "/srv/app/main.py", line 10 in app',
    f'  File "{worker_entry.__file__}", line 16 in run_worker',
    '  File "<string>", line 1 in <module>',
]
C_STACK = [
    "Current thread's C stack trace (most recent call first):",
    '  Binary file "/usr/bin/python3.14", at _Py_DumpStack+0x31 [0x6a]',
    "  <truncated rest of calls>",
]
MODULES = ["Extension modules: uvloop.loop, httptools.parser.parser (total: 2)"]
SUFFIX = "(most recent call first):"


@pytest.mark.parametrize(
    ("heartbeat", "loop"),
    [
        (f"Current thread 0x00007fea9ad996c0 {SUFFIX}", f"Thread 0x00007fea9c5f6b80 {SUFFIX}"),
        (f"Thread 0x00007fea9ad996c0 {SUFFIX}", f"Current thread 0x00007fea9c5f6b80 {SUFFIX}"),
        (f"Thread 0x00007fea [ostler-heartbe] {SUFFIX}", f"Current thread 0x00007feb [python] {SUFFIX}"),
        ("Thread 0x7fea (most recent call first, approximate line numbers):", f"Thread 0x7feb {SUFFIX}"),
    ],
)
@pytest.mark.parametrize(
    ("before", "after"), [([], []), (["Fatal Python error: Aborted"], [*C_STACK, *MODULES])]
)
def test_the_thread_of_the_loop_comes_first(
    heartbeat: str, loop: str, before: list[str], after: list[str]
) -> None:
    lines = [*before, heartbeat, *HEARTBEAT, loop, *LOOP, *after]
    expected = [*before, loop, *LOOP, heartbeat, *HEARTBEAT, *after]
    assert stacks.loop_thread_first(lines) == expected
    assert stacks.loop_thread_first(expected) == expected
    for order in (lines, expected):
        assert stacks.place(order, "/srv") == "app/main.py:10 app(), re.match"


def test_a_deep_stack_without_its_outermost_frames_is_the_oldest_one() -> None:
    head, other = f"Thread 0x2 {SUFFIX}", f"Thread 0x1 {SUFFIX}"
    deep = [head, *['  File "/srv/main.py", line 3 in f'] * 99, "  ..."]
    assert stacks.loop_thread_first([other, *HEARTBEAT, *deep]) == [*deep, other, *HEARTBEAT]
    assert stacks.place([other, *HEARTBEAT, *deep], "/srv") == "main.py:3 f()"


def test_of_more_threads_than_faulthandler_writes_the_order_stays() -> None:
    lines = [f"Thread 0x1 {SUFFIX}", *HEARTBEAT, f"Thread 0x2 {SUFFIX}", *HEARTBEAT, "..."]
    assert stacks.loop_thread_first(lines) == lines
    assert stacks.place(lines, "/srv") is None


@pytest.mark.parametrize(
    "lines",
    [
        [],
        ["a line of the application"],
        ["Fatal Python error: Segmentation fault", "<no threads>"],
        [f"Thread 0x1 {SUFFIX}", "  <no Python frame>"],
    ],
)
def test_other_lines_stay_as_they_are(lines: list[str]) -> None:
    assert stacks.loop_thread_first(lines) == lines
    assert stacks.place(lines, "/srv") is None
