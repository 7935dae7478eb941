"""The choice of event loop, HTTP parser and WebSocket library."""

import sys
from typing import Any

import pytest

from ostler.errors import SettingsError
from ostler.settings import libraries
from ostler.settings.declarations import Settings


@pytest.mark.c_libraries
def test_auto_chooses_the_fast_libraries_if_they_are_installed() -> None:
    assert libraries.event_loop(Settings()) == "uvloop"
    assert libraries.http_parser(Settings()) == "httptools"
    assert libraries.websocket(Settings()) == "websockets"


def test_the_pure_python_libraries_can_be_chosen() -> None:
    assert libraries.event_loop(Settings(loop="asyncio")) == "asyncio"
    assert libraries.http_parser(Settings(http="h11")) == "h11"


def test_an_event_loop_of_the_user_is_not_looked_up_before_a_worker_runs() -> None:
    assert libraries.event_loop(Settings(loop="nowhere:make_loop")) == "nowhere:make_loop"


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("websockets", "websockets"),
        ("websockets-sansio", "websockets"),
        ("wsproto", "wsproto"),
        ("none", "none"),
    ],
)
def test_the_websocket_library_can_be_chosen(asked: Any, found: str) -> None:
    assert libraries.websocket(Settings(ws=asked)) == found


def test_auto_chooses_wsproto_if_websockets_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libraries, "find_spec", lambda name: None if name == "websockets" else name)
    assert libraries.websocket(Settings()) == "wsproto"


@pytest.fixture
def without_c_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libraries, "find_spec", lambda name: None)


@pytest.mark.usefixtures("without_c_libraries")
def test_auto_falls_back_to_the_pure_python_libraries() -> None:
    assert libraries.event_loop(Settings()) == "asyncio"
    assert libraries.http_parser(Settings()) == "h11"
    assert libraries.websocket(Settings()) == "none"


@pytest.mark.parametrize(
    ("uvloop", "httptools", "chosen"),
    [
        ("0.21.0", "0.7.1", ("asyncio", "h11")),
        ("0.22.1", "0.8.0", ("uvloop", "httptools")),
        ("1.0", "1.0.0rc1", ("uvloop", "httptools")),
        ("unknown", "0", ("asyncio", "h11")),
    ],
)
def test_on_a_free_threaded_python_auto_chooses_nothing_that_switches_the_gil_on(
    monkeypatch: pytest.MonkeyPatch, uvloop: str, httptools: str, chosen: tuple[str, str]
) -> None:
    monkeypatch.setattr(libraries, "find_spec", lambda name: name)
    monkeypatch.setattr("importlib.metadata.version", {"uvloop": uvloop, "httptools": httptools}.get)
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: False, raising=False)
    assert (libraries.event_loop(Settings()), libraries.http_parser(Settings())) == chosen
    # What is asked for by name is taken: Python itself warns of the GIL.
    asked = Settings(loop="uvloop", http="httptools")
    assert (libraries.event_loop(asked), libraries.http_parser(asked)) == ("uvloop", "httptools")

    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: True)
    assert (libraries.event_loop(Settings()), libraries.http_parser(Settings())) == ("uvloop", "httptools")


@pytest.mark.usefixtures("without_c_libraries")
@pytest.mark.parametrize(
    ("python", "remedy"),
    [("cpython", "pip install uvloop, or use --loop asyncio"), ("pypy", "use --loop asyncio")],
)
def test_a_chosen_library_that_is_not_installed_is_one_line(
    monkeypatch: pytest.MonkeyPatch, python: str, remedy: str
) -> None:
    monkeypatch.setattr(sys.implementation, "name", python)
    with pytest.raises(SettingsError, match=f"--loop uvloop: uvloop is not installed; {remedy}$"):
        libraries.event_loop(Settings(loop="uvloop"))
    with pytest.raises(SettingsError, match="--http httptools: httptools is not installed"):
        libraries.http_parser(Settings(http="httptools"))
    with pytest.raises(SettingsError, match="--ws wsproto: wsproto is not installed; pip install wsproto"):
        libraries.websocket(Settings(ws="wsproto"))
