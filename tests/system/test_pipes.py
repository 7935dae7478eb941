"""The ends of a pipe."""

from __future__ import annotations

import os

import pytest

from ostler.system import pipes


def test_an_end_that_is_dropped_is_closed_even_while_the_interpreter_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A module's names may be None by then. An exception in `__del__` would be printed."""
    reader, writer = pipes.pipe()
    os.set_blocking(reader.fileno(), False)
    with monkeypatch.context() as ending:
        ending.setattr(pipes, "os", None)
        del writer
    assert os.read(reader.fileno(), 1) == b""
    reader.close()
