"""Which frame of a stack is the application's."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path

import pytest

import ostler
from ostler.system import source_files

PYTHON = [threading.__file__, asyncio.base_events.__file__, "<frozen runpy>", "<string>"]
OSTLER = os.path.join(os.path.dirname(ostler.__file__), "worker", "main.py")
LIBRARY = "/srv/venv/lib/python3.12/site-packages/requests/api.py"


@pytest.mark.parametrize(
    ("files", "index"),
    [
        (["/srv/main.py", OSTLER], 0),
        ([threading.__file__, "/srv/main.py", "/srv/other.py", OSTLER], 1),
        ([threading.__file__, LIBRARY, "/srv/main.py", LIBRARY, OSTLER], 2),
        ([threading.__file__, LIBRARY, "/usr/lib/python3/dist-packages/app.py", OSTLER], 1),
        ([*PYTHON, OSTLER], None),
        ([], None),
    ],
)
def test_the_innermost_frame_of_the_application_is_found(files: list[str], index: int | None) -> None:
    assert source_files.innermost(files) == index


def test_an_installed_ostler_is_not_the_application(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_files, "_OSTLER", "/srv/venv/lib/python3.12/site-packages/ostler/")
    own = "/srv/venv/lib/python3.12/site-packages/ostler/worker/main.py"
    assert source_files.innermost([own]) is None
    assert source_files.innermost([own, LIBRARY]) == 1


def test_a_file_is_named_relative_to_the_working_directory() -> None:
    assert source_files.shown("/srv/app/views.py", "/srv") == "app/views.py"
    assert source_files.shown("/srv2/app/views.py", "/srv") == "/srv2/app/views.py"


def test_a_module_is_named_by_its_file() -> None:
    assert source_files.module(LIBRARY) == "requests.api"
    assert source_files.module("/x/site-packages/numpy/__init__.py") == "numpy"
    assert source_files.module(threading.__file__) == "threading"
    assert source_files.module(str(Path(asyncio.__file__))) == "asyncio"
    assert source_files.module(asyncio.base_events.__file__) == "asyncio.base_events"
    assert source_files.module("/srv/helpers.py") == "helpers"
