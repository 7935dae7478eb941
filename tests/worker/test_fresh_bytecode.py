"""Sources that have just been saved are compiled, and their bytecode is not cached."""

from __future__ import annotations

import importlib.util
import os
import time
from pathlib import Path
from types import ModuleType

import pytest

from ostler.worker.fresh_bytecode import CarefulLoader


def load(path: Path) -> ModuleType:
    loader = CarefulLoader("edited", str(path))
    spec = importlib.util.spec_from_file_location("edited", path, loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def bytecode(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.dont_write_bytecode", False)


def test_two_saves_of_one_length_within_a_second_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "edited.py"
    now = time.time()
    for value in ("one", "two"):
        path.write_text(f'value = "{value}"\n')
        os.utime(path, (now, now))
        assert load(path).value == value
    assert not list(tmp_path.glob("__pycache__/*"))


def test_a_source_that_was_saved_earlier_has_its_bytecode_cached(tmp_path: Path) -> None:
    path = tmp_path / "edited.py"
    path.write_text('value = "one"\n')
    os.utime(path, (time.time() - 10, time.time() - 10))
    assert load(path).value == "one"
    assert len(list(tmp_path.glob("__pycache__/*"))) == 1
