"""Which file is named when a module calls ostler.run() while it is imported."""

from __future__ import annotations

import multiprocessing
import sys
from pathlib import Path

import pytest

from ostler import import_guard
from ostler.errors import StartupError


def run(path: Path) -> None:
    exec(compile(path.read_text(), str(path), "exec"), {"refuse": import_guard.refuse})


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "served.py"
    path.write_text("def start():\n    refuse('ostler.run()')\n\n\nstart()\n")
    return path


def test_a_script_that_nothing_imports_may_call(script: Path) -> None:
    run(script)


def test_a_module_that_is_imported_to_be_served_is_named(script: Path) -> None:
    with (
        import_guard.importing(),
        pytest.raises(StartupError, match=r"^served\.py calls ostler\.run\(\)"),
    ):
        run(script)


def test_a_script_that_a_spawned_process_imports_is_named(
    script: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(multiprocessing.current_process(), "_inheriting", True, raising=False)
    with pytest.raises(StartupError, match=r"^served\.py calls"):
        run(script)


def test_without_frames_the_message_has_no_file(script: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(sys, "_getframe")
    with import_guard.importing(), pytest.raises(StartupError) as caught:
        run(script)
    assert str(caught.value).startswith("the module calls ostler.run() when")
