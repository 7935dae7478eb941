"""The working directory as the person entered it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ostler.errors import SettingsError
from ostler.system.working_directory import working_directory


@pytest.fixture
def current(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A link to the working directory."""
    release = tmp_path / "release"
    release.mkdir()
    (tmp_path / "current").symlink_to("release")
    monkeypatch.chdir(tmp_path / "current")
    return tmp_path / "current"


def test_the_link_by_which_a_directory_was_entered_is_kept(
    current: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PWD", str(current))
    assert working_directory() == str(current)


@pytest.mark.parametrize("stale", ["/", "relative", "", "/does/not/exist"])
def test_a_variable_that_names_another_directory_does_not_count(
    current: Path, monkeypatch: pytest.MonkeyPatch, stale: str
) -> None:
    monkeypatch.setenv("PWD", stale)
    assert working_directory() == os.path.realpath(current)


def test_without_the_variable_it_is_what_the_system_says(
    current: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PWD", raising=False)
    assert working_directory() == os.path.realpath(current)


def test_a_directory_that_was_removed_is_one_line(current: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PWD", str(current))
    os.rmdir(os.path.realpath(current))
    with pytest.raises(
        SettingsError, match=r"^the working directory cannot be used: No such file or directory$"
    ):
        working_directory()
