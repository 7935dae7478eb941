"""Each behaviour of uvicorn is ostler's, or differs on purpose, which docs/coming-from-uvicorn.md names.

uvicorn itself is not needed: what it did is in uvicorn.json, which `make replay` writes anew.
"""

from __future__ import annotations

import re

import pytest

from tests.replay import recording
from tests.replay.behaviours import BEHAVIOURS, Exchange, Observation
from tests.replay.observe import PURE, observe
from tests.replay.topics import load

load()
RECORDED = recording.read(recording.UVICORN)
DIFFERENCES = recording.read(recording.DIFFERENCES)
# What the library says or chooses: another one says and chooses something else.
THE_LIBRARYS = {
    "requests/chunked, not last",
    "requests/nonsense: what the client sees",
    "requests/nonsense: what the log says",
    "websockets/handshake: compression is offered",
    "websockets/handshake: compression with window bits",
}
ON_SHARED_SERVERS = [
    name for name, each in BEHAVIOURS.items() if isinstance(each.work, Exchange) and name not in THE_LIBRARYS
]


def _selected(request: pytest.FixtureRequest, test: str) -> list[str]:
    """Return the behaviours whose tests run, so that `-k` costs no more than it has to."""
    items = [item for item in request.session.items if item.name.startswith(f"{test}[")]
    return [str(item.callspec.params["name"]) for item in items if isinstance(item, pytest.Function)]


@pytest.fixture(scope="module")
def ours(request: pytest.FixtureRequest) -> dict[str, Observation]:
    """What ostler does, with the default loop and libraries."""
    return observe("ostler", _selected(request, "test_ostler_does_as_uvicorn_or_says_why_not"))


@pytest.fixture(scope="module")
def ours_in_pure_python(request: pytest.FixtureRequest) -> dict[str, Observation]:
    """What ostler does on asyncio with h11 and wsproto."""
    return observe("ostler", _selected(request, "test_the_other_loop_and_libraries_do_the_same"), PURE)


def _expected(name: str) -> Observation:
    return DIFFERENCES[name]["ostler"] if name in DIFFERENCES else RECORDED[name]


@pytest.mark.parametrize("name", BEHAVIOURS)
def test_ostler_does_as_uvicorn_or_says_why_not(name: str, ours: dict[str, Observation]) -> None:
    assert ours[name] == _expected(name)


@pytest.mark.parametrize("name", ON_SHARED_SERVERS)
def test_the_other_loop_and_libraries_do_the_same(
    name: str, ours_in_pure_python: dict[str, Observation]
) -> None:
    assert ours_in_pure_python[name] == _expected(name)


@pytest.mark.parametrize("name", DIFFERENCES)
def test_a_difference_is_one_and_has_a_row(name: str) -> None:
    assert DIFFERENCES[name]["ostler"] != RECORDED[name], "it is equal: take it off the list"
    assert DIFFERENCES[name]["row"] in recording.rows()


def test_every_behaviour_is_recorded_and_the_recording_has_no_others() -> None:
    assert set(RECORDED) == set(BEHAVIOURS)
    assert set(DIFFERENCES) <= set(BEHAVIOURS)
    assert len(BEHAVIOURS) >= 323


def test_nothing_was_recorded_that_failed() -> None:
    failed = re.compile("'(failed|does not serve|does not start)':|still running|'silent'")
    assert [name for name, seen in RECORDED.items() if failed.search(repr(seen))] == []
