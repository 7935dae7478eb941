"""Reads the stacks that a worker's faulthandler writes: the event loop's thread first, and where it is. Pure.

Relies on what faulthandler writes in CPython 3.10 to 3.15 and in PyPy: a block of lines for each thread,
which begins with `Thread 0x` or `Current thread 0x`; in it the frames, the innermost first, indented by two
spaces; the threads in the order of their starts, the newest first. What stands before the first block (the
fatal error) and after the last (C stacks, extension modules) stays there. Without such blocks nothing is
changed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from ostler.system import source_files

_THREAD = re.compile(r"(Current t|T)hread 0x")
_FRAME = re.compile(r'  File "(?P<file>.*)", line (?P<line>\d+) in (?P<function>.*)')
_ENTRY = "worker_entry.py"
"""The file of the function that a worker's main thread runs: `ostler.cli.worker_entry`."""
_MORE_THREADS = "..."
"""Ends a list of threads that is too long for faulthandler."""


def loop_thread_first(lines: Sequence[str]) -> list[str]:
    """Return the lines with the block of the thread that runs the event loop before those of the others."""
    before, blocks, after = _split(lines)
    loop = _loop_block(blocks, whole=_MORE_THREADS not in after)
    if loop is not None:
        blocks.insert(0, blocks.pop(loop))
    return [*before, *(line for block in blocks for line in block), *after]


def place(lines: Sequence[str], directory: str) -> str | None:
    """Return where the event loop's thread is in the application, as `main.py:4 app(), re.match`.

    The second part is the function that this line has called, where that is written in Python. None if the
    thread runs no code of the application, or is not among the lines.

    Args:
        lines: what faulthandler has written.
        directory: files below it are named relative to it.
    """
    _, blocks, after = _split(lines)
    loop = _loop_block(blocks, whole=_MORE_THREADS not in after)
    if loop is None:
        return None
    frames = [frame for frame in map(_FRAME.fullmatch, blocks[loop]) if frame is not None]
    index = source_files.innermost([frame["file"] for frame in frames])
    if index is None:
        return None
    found = frames[index]
    text = f"{source_files.shown(found['file'], directory)}:{found['line']} {found['function']}()"
    if index:
        called = frames[index - 1]
        text += f", {source_files.module(called['file'])}.{called['function']}"
    return text


def _split(lines: Sequence[str]) -> tuple[list[str], list[list[str]], list[str]]:
    """Return what stands before the threads' blocks, the blocks, and what stands after them."""
    before: list[str] = []
    blocks: list[list[str]] = []
    for number, line in enumerate(lines):
        if _THREAD.match(line):
            blocks.append([line])
        elif not blocks:
            before.append(line)
        elif line.startswith("  "):
            blocks[-1].append(line)
        else:
            return before, blocks, list(lines[number:])
    return before, blocks, []


def _loop_block(blocks: Sequence[Sequence[str]], *, whole: bool) -> int | None:
    """Return the index of the main thread's block; None if there is none.

    Its outermost frames are missing if its stack is deep. Then it is the last one, as the oldest.
    """
    for index, block in enumerate(blocks):
        if any(f'{_ENTRY}", line' in line for line in block):
            return index
    return len(blocks) - 1 if blocks and whole else None
