"""The run without C parts (`make test-pure`): on asyncio and h11, where nothing else is installed.

It leaves out what is parametrised over uvloop or httptools, and what is marked as in need of them. Nowhere
else is anything left out for want of them.
"""

from __future__ import annotations

import os
from importlib.util import find_spec

import pytest

ABSENT = ("uvloop", "httptools")
PURE = bool(os.environ.get("OSTLER_TESTS_PURE"))


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "c_libraries: needs uvloop and httptools; not in the run without them")
    for name in ABSENT if PURE else ():
        if find_spec(name) is not None:
            raise pytest.UsageError(f"{name} is installed: this would not be the run without it")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if PURE:
        left_out = [item for item in items if _needs_absent(item)]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def _needs_absent(item: pytest.Item) -> bool:
    parameters = getattr(getattr(item, "callspec", None), "id", "")
    return item.get_closest_marker("c_libraries") is not None or any(name in parameters for name in ABSENT)
