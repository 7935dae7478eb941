"""The user and the group that `--user` and `--group` name."""

from __future__ import annotations

import pytest

from ostler.errors import SettingsError
from ostler.settings.declarations import Settings
from ostler.system import privileges

ENDLESS = "9" * 5000
"""More digits than int() takes from a text."""


@pytest.mark.parametrize("name", ["\u00b2", "\u0663", "3\u00b2", "no such user"])
def test_digits_that_are_not_ascii_are_a_name(name: str) -> None:
    with pytest.raises(SettingsError, match=f"^user is '{name}': there is no such user$"):
        privileges.wanted(Settings(user=name))
    with pytest.raises(SettingsError, match=f"^group is '{name}': there is no such group$"):
        privileges.wanted(Settings(group=name))


@pytest.mark.parametrize("number", [str(2**32 - 1), ENDLESS])
def test_a_number_that_no_user_can_have_is_one_line(number: str) -> None:
    with pytest.raises(
        SettingsError, match=f"^user is {number}: expected a name or a number below 4294967295$"
    ):
        privileges.wanted(Settings(user=number, group="0"))
    with pytest.raises(
        SettingsError, match=f"^group is {number}: expected a name or a number below 4294967295$"
    ):
        privileges.wanted(Settings(group=number))


def test_an_unknown_number_needs_a_group() -> None:
    with pytest.raises(SettingsError, match="of whom the system knows no group: give --group as well"):
        privileges.wanted(Settings(user=ENDLESS))
