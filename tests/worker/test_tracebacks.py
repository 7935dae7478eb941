"""What is shown of an exception in an application's code."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path

import pytest

from ostler.worker.importer import import_from_string
from ostler.worker.tracebacks import one_line, own_traceback


@pytest.fixture
def application(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "failing_application.py"
    monkeypatch.delitem(sys.modules, path.stem, raising=False)
    return path


def failure(path: Path) -> BaseException:
    """The exception of an import, without the frame of this test."""
    with pytest.raises(Exception, match=r".") as caught:
        import_from_string(f"{path.stem}:app")
    caught.value.__traceback__ = caught.tb.tb_next
    return caught.value


def test_a_traceback_begins_in_the_application(application: Path) -> None:
    application.write_text("def fail():\n    raise ValueError('no')\n\n\nfail()\n")

    frames = traceback.extract_tb(own_traceback(failure(application)))

    assert [(frame.filename, frame.lineno) for frame in frames] == [
        (str(application), 5),
        (str(application), 2),
    ]


def test_one_line_names_the_applications_line_where_an_import_fails(application: Path) -> None:
    application.write_text("import os\nimport no_such_module\n")

    assert one_line(failure(application)) == (
        f"ModuleNotFoundError: No module named 'no_such_module' ({application}, line 2)"
    )


def test_one_line_names_the_place_of_a_syntax_error(application: Path) -> None:
    application.write_text("def broken(\n")

    assert one_line(failure(application)).endswith(f"({application}, line 1)")


def test_a_syntax_error_in_the_applications_own_module_shows_no_frame_of_ostlers(application: Path) -> None:
    application.write_text("def app(:\n")

    assert own_traceback(failure(application)) is None
