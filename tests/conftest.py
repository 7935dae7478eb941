"""Select the tests of `make test-pure`, which runs without uvloop and httptools, on asyncio and h11.

Under OSTLER_TESTS_PURE, and under PyPy, tests are deselected that are parametrised with uvloop or httptools,
or marked `c_libraries`. No other test is skipped because these libraries are missing.
"""

from __future__ import annotations

import os
import platform
from importlib.util import find_spec

import pytest

ABSENT = ("uvloop", "httptools")
PURE = bool(os.environ.get("OSTLER_TESTS_PURE")) or platform.python_implementation() == "PyPy"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "c_libraries: needs uvloop and httptools; deselected by `make test-pure`"
    )
    for name in ABSENT if PURE else ():
        if find_spec(name) is not None:
            raise pytest.UsageError(
                f"{name} is installed: `make test-pure`, and PyPy, need an environment without it"
            )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if PURE:
        deselected = [item for item in items if _needs_absent(item)]
        config.hook.pytest_deselected(items=deselected)
        items[:] = [item for item in items if item not in deselected]


def _needs_absent(item: pytest.Item) -> bool:
    parameters = getattr(getattr(item, "callspec", None), "id", "")
    return item.get_closest_marker("c_libraries") is not None or any(name in parameters for name in ABSENT)
