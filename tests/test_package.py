"""The package `ostler`: its public names, and what an import of them loads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import ostler


def test_every_public_name_exists_and_no_other() -> None:
    assert all(getattr(ostler, name) is not None for name in ostler.__all__)
    assert set(ostler.__all__) <= set(dir(ostler))
    with pytest.raises(AttributeError, match="no attribute 'runn'"):
        _ = ostler.runn


def loaded(code: str) -> set[str]:
    source = f"import sys\n{code}\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_ostler_and_run_loads_no_module_of_a_worker() -> None:
    modules = loaded("import ostler; ostler.run")

    assert not {name for name in modules if name.startswith("ostler.worker")}
    assert not modules & {"uvloop", "httptools", "h11", "websockets", "wsproto", "click"}


def test_importing_ostler_does_not_load_asyncio() -> None:
    assert "asyncio" not in loaded("import ostler; ostler.Settings(port=1)")


def test_the_package_is_marked_as_typed() -> None:
    assert (Path(ostler.__file__).parent / "py.typed").is_file()
