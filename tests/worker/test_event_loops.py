"""Which event loop a worker runs on."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ostler.errors import StartupError
from ostler.settings.declarations import Settings
from ostler.worker.event_loops import new_event_loop

SOURCE = """
import asyncio

class MyLoop(asyncio.SelectorEventLoop):
    pass

class makers:
    @staticmethod
    def make():
        return MyLoop()

def number(): return 5
def needs(x): ...
def raises(): raise OSError("no io_uring here")
"""


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "sample_loops.py").write_text(SOURCE)
    (tmp_path / "sample_loops_broken.py").write_text("raise KeyError('wrong')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    for name in ("sample_loops", "sample_loops_broken"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("auto", "uvloop.Loop"),
        ("uvloop", "uvloop.Loop"),
        ("asyncio", "asyncio.unix_events._UnixSelectorEventLoop"),
        ("asyncio:SelectorEventLoop", "asyncio.unix_events._UnixSelectorEventLoop"),
        ("sample_loops:MyLoop", "sample_loops.MyLoop"),
        ("sample_loops:makers.make", "sample_loops.MyLoop"),
    ],
)
def test_the_loop_is_the_one_in_the_settings_or_the_one_that_the_users_function_returns(
    asked: str, expected: str
) -> None:
    loop = new_event_loop(Settings(loop=asked))
    try:
        assert isinstance(loop, asyncio.AbstractEventLoop)
        assert f"{type(loop).__module__}.{type(loop).__qualname__}" == expected
    finally:
        loop.close()


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ("sample_nowhere:make", 'Could not import module "sample_nowhere"'),
        ("sample_loops:nothing", 'Attribute "nothing" not found in module "sample_loops"'),
        ("sample_loops:number", "must return an event loop, not int"),
        ("sample_loops:needs", "made no event loop: TypeError: .*missing 1 required positional argument"),
        (
            "sample_loops:raises",
            r"made no event loop: OSError: no io_uring here \(.*sample_loops.py, line 14\)",
        ),
        ("sample_loops_broken:make", "made no event loop: KeyError: 'wrong'"),
    ],
)
def test_a_function_that_returns_no_loop_is_one_line_that_names_it(asked: str, says: str) -> None:
    with pytest.raises(StartupError, match=f"^--loop {asked}:? .*{says}") as caught:
        new_event_loop(Settings(loop=asked))
    assert "\n" not in str(caught.value)
