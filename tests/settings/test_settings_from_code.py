"""`ostler.Settings(...)` in code: values are checked and stored as from any other source."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

import ostler
from ostler.settings.declarations import Settings
from ostler.settings.sources import Sources
from tests.settings.test_sources import BAD, GOOD


async def app(scope: Any, receive: Any, send: Any) -> None:
    """An application, to be passed as an object."""


def test_settings_from_code_are_checked_and_stored_as_from_any_source() -> None:
    settings = Settings(app=app, host="::1", header=[("X-A", "b: c")], uds_permissions=0o600)  # type: ignore[arg-type]

    assert settings.app is app
    assert (settings.host, settings.header, settings.uds_permissions) == (("::1",), ("X-A:b: c",), 0o600)


@pytest.mark.parametrize("name", GOOD)
def test_a_stored_value_is_accepted_again(name: str) -> None:
    stored = GOOD[name][2]

    assert getattr(Settings(**{name: stored}), name) == stored
    assert getattr(dataclasses.replace(Settings(**{name: stored}), backlog=7), name) in (stored, 7)


@pytest.mark.parametrize("name", [name for name in BAD if name != "uds_permissions"])
def test_a_wrong_value_has_the_same_message_as_from_any_source(name: str) -> None:
    wrong: Any = ["\0 is", "nothing"] if name == "header" else object()

    with pytest.raises(ostler.SettingsError) as from_code:
        Settings(**{name: wrong})
    with pytest.raises(ostler.SettingsError) as from_run:
        Sources(values={name: wrong}, pyproject=False).load()

    assert str(from_code.value) == str(from_run.value)
    assert str(from_code.value).startswith(f"{name} from argument {name} is ")
