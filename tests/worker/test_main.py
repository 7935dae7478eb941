"""What a worker waits for before it imports its application."""

from __future__ import annotations

import contextlib
import fcntl
import resource
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ostler.errors import StartupError
from ostler.settings.declarations import Settings
from ostler.system.pipes import PipeEnd, pipe
from ostler.worker import main

HIGH = 1100
"""More than select(2) can watch: FD_SETSIZE is 1024."""


class NoSignals:
    """Signal handlers that leave the process of the tests alone."""

    def drain(self, server: object) -> None: ...
    def over(self) -> None: ...


@pytest.fixture
def high_descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard <= HIGH:
        pytest.skip("the hard limit of descriptors is too low")
    if soft != resource.RLIM_INFINITY and soft <= HIGH:
        resource.setrlimit(resource.RLIMIT_NOFILE, (HIGH + 1, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("high_descriptors")
@pytest.mark.parametrize("opened", ["by a byte", "by the end of the arbiter"])
def test_the_gate_opens_on_a_descriptor_that_select_cannot_watch(
    opened: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", sys.path[:])
    reader, writer = pipe()
    gate = PipeEnd(fcntl.fcntl(reader.fileno(), fcntl.F_DUPFD_CLOEXEC, HIGH))
    with contextlib.closing(reader), contextlib.closing(gate), contextlib.closing(writer):
        if opened == "by a byte":
            with open(writer.fileno(), "wb", closefd=False) as stream:
                stream.write(b"g")
        else:
            writer.close()
        signals: Any = NoSignals()
        watcher: Any = None
        with pytest.raises(StartupError, match="missing_application"):  # it is imported behind the gate
            main._serve(Settings(app="missing_application:app"), str(tmp_path), [], signals, watcher, gate)
