"""Changed copies of an `ostler.Config`, which dataclasses.replace() makes."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

import ostler
from ostler.settings.kinds import LogConfig
from tests.settings.test_sources import GOOD


async def app(scope: Any, receive: Any, send: Any) -> None:
    """An application, to be passed as an object."""


@pytest.mark.parametrize(
    "given",
    [{}, {"uds": "app.sock"}, {"fd": 3}, {"host": "::1", "port": 1}, {"headers": [("a", "b")]}],
    ids=str,
)
def test_a_copy_with_a_changed_setting_keeps_the_others(given: dict[str, Any]) -> None:
    config = ostler.Config(app, **given)

    copy = dataclasses.replace(config, backlog=7)

    assert isinstance(copy, ostler.Config)
    assert copy.backlog == 7
    assert dataclasses.replace(copy, backlog=2048) == config


@pytest.mark.parametrize("name", GOOD)
def test_a_copy_keeps_every_setting(name: str) -> None:
    value = GOOD[name][2]
    needed: dict[str, Any] = {"ssl_context_factory": "main:tls"} if name.startswith("ssl_") else {}
    config = ostler.Config(**{"app": app, **needed, name: value})

    assert dataclasses.replace(config) == config


def test_a_copy_is_checked() -> None:
    config = ostler.Config(app, log_format="json")

    with pytest.raises(
        ostler.SettingsError, match=r"^log_config from .* and log_format from argument log_format exclude"
    ):
        dataclasses.replace(config, log_config=LogConfig("from code", {"version": 1}))


def test_a_default_that_is_given_counts_before_the_platforms_variable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "*")

    config = ostler.Config(app, forwarded_allow_ips="127.0.0.1,::1")

    assert config.forwarded_allow_ips == "127.0.0.1,::1"
