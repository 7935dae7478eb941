"""The variables of `ostler.Config(env_file=...)`: the server sets them, not the constructor."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import pickle
from pathlib import Path
from typing import Any

import pytest

import ostler


async def app(scope: Any, receive: Any, send: Any) -> None:
    """An application, to be passed as an object."""


@pytest.fixture
def env_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "env"
    path.write_text("OF_THE_FILE=1\nSET_ALREADY=2\nOSTLER_BACKLOG=5\n")
    monkeypatch.setenv("SET_ALREADY", "1")
    for name in ("OF_THE_FILE", "OSTLER_BACKLOG"):
        monkeypatch.setenv(name, "removed again at the end")
        monkeypatch.delenv(name)
    return path


def test_a_copy_has_the_same_env_file(env_file: Path) -> None:
    copy = dataclasses.replace(ostler.Config(app, env_file=env_file), port=1)

    assert copy.env_file == str(env_file)
    assert copy.environment == (("OF_THE_FILE", "1"), ("SET_ALREADY", "2"), ("OSTLER_BACKLOG", "5"))


def test_a_default_that_is_given_counts_before_the_env_file(env_file: Path) -> None:
    config = ostler.Config(app, env_file=env_file)

    assert dataclasses.replace(config, backlog=2048).backlog == 2048


def test_the_constructor_leaves_the_environment_as_it_is(env_file: Path) -> None:
    before = dict(os.environ)

    config = ostler.Config(app, env_file=env_file)

    assert os.environ == before
    assert config.backlog == 5


IMPORTED = """
import os
SEEN = os.environ["OF_THE_FILE"], os.environ["SET_ALREADY"]


async def app(scope, receive, send):
    raise RuntimeError


def make_loop():
    import asyncio
    assert os.environ["OF_THE_FILE"] == "1"
    return asyncio.new_event_loop()
"""


@pytest.mark.parametrize("how", ["serve", "run"])
def test_the_variables_are_there_when_the_application_is_imported(
    env_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    (tmp_path / f"imported_by_{how}.py").write_text(IMPORTED)
    monkeypatch.syspath_prepend(tmp_path)
    config = ostler.Config(
        f"imported_by_{how}:app", loop=f"imported_by_{how}:make_loop", port=0, env_file=env_file
    )
    server = ostler.Server(config, configure_logging=False)

    async def serve() -> None:
        serving = asyncio.create_task(server.serve())
        await server.started
        server.stop()
        await serving

    if how == "serve":
        asyncio.run(serve())
    else:
        monkeypatch.setattr(server.started, "settle", lambda **_: server.stop())
        server.run()

    assert __import__(f"imported_by_{how}").SEEN == ("1", "1")


def test_a_config_can_be_pickled_with_its_variables(env_file: Path) -> None:
    config = ostler.Config("main:app", env_file=env_file)

    assert pickle.loads(pickle.dumps(config)) == config
    assert "OF_THE_FILE" not in repr(config)
