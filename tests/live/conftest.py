"""Fixtures of the tests with real processes."""

from pathlib import Path

import pytest

from tests.live.harness import APP


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A directory with the application `main:app` in `main.py`."""
    (tmp_path / "main.py").write_text(APP)
    return tmp_path
